// The view of a trace: its text with the matches marked, and the lists of where they stand.
// Texts and names are strangers': they go into the page as text, what does not print as its escape.

const TITLES = { verbatim: "Verbatim and rare", partial: "Partial", similar: "Only similar", nothing: "Nothing found" };
const FEWEST_BITS = 40; // of the second of five shades; each of the others takes twice as many
const SHOWN = 3; // sources of a match that are shown at first
const ODD = /(?![ \n\t])[\p{C}\p{Z}]/gu;

const $ = id => document.getElementById(id);
const number = (value, digits = 0) => value.toLocaleString("en", { maximumFractionDigits: digits });
/** A number with the noun that it takes. */
export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const spoken = ([first, last]) => first === last ? `line ${first}` : `lines ${first}–${last}`;
const shade = bits => Math.max(1, Math.min(5, Math.floor(Math.log2(bits / FEWEST_BITS)) + 2));

/** The characters of a text that do not print, or turn the reading direction: matches with their index. */
export const odd = text => [...text.matchAll(ODD)];

/** How a character that does not print is written. */
export function escaped(character) {
  const code = character.codePointAt(0);
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}

/** An element with a class and children; strings among them are text, characters that do not print stand out. */
export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const child of children.flat()) made.append(...(typeof child === "string" ? printed(child) : [child]));
  return made;
}

function printed(text) {
  const parts = [];
  let from = 0;
  for (const found of odd(text)) {
    const mark = document.createElement("span");
    mark.className = "odd";
    mark.textContent = escaped(found[0]);
    parts.push(text.slice(from, found.index), mark);
    from = found.index + found[0].length;
  }
  return [...parts, text.slice(from)];
}

/** Cut [0, length) where ranges begin and end: pieces with the ranges that cover them. */
export function pieces(length, ranges) {
  const changes = new Map([[0, []], [length, []]]);
  for (const range of ranges)
    for (const place of [range.start, range.end]) changes.set(place, [...(changes.get(place) ?? []), range]);
  const places = [...changes.keys()].sort((a, b) => a - b), covering = new Set(), cut = [];
  for (const [index, start] of places.slice(0, -1).entries()) {
    for (const range of changes.get(start)) range.start === start ? covering.add(range) : covering.delete(range);
    cut.push({ start, end: places[index + 1], ranges: [...covering] });
  }
  return cut;
}

/** The licences of a source, all of which apply. */
function licenses(source) {
  const names = source.licenses?.length ? source.licenses : ["no licence known"];
  return names.flatMap((name, index) => [...(index ? [" and "] : []), element("span", "license", name)]);
}

let shownMatches = [], chosen = -1;

/** Show a trace. */
export function show(found) {
  shownMatches = found.matches.toSorted((a, b) => a.start - b.start || b.end - a.end);
  chosen = -1;
  $("result").hidden = false;
  $("result").dataset.level = found.verdict.level;
  $("level").textContent = TITLES[found.verdict.level] ?? found.verdict.level;
  $("reason").replaceChildren(...printed(found.verdict.reason));
  $("calibration").replaceChildren(...printed(found.calibration ?? ""));
  showText(found);
  $("matches").querySelector("ol").replaceChildren(...shownMatches.map(matchEntry));
  $("matches").hidden = !shownMatches.length;
  document.querySelector(".stepper").hidden = !shownMatches.length;
  $("chosen").textContent = `${counted(shownMatches.length, "match", "matches")}; ‹ and › step through them`;
  showList("owed", found.verdict.owed, owedEntry);
  showList("aside", found.aside ?? [], asideEntry, ["set aside, as it stands anywhere", "set aside, as they stand anywhere"]);
  showList("similar", found.similar ?? [], similarEntry, ["similar document", "similar documents"]);
}

function showText(found) {
  const characters = Array.from(found.text); // a trace counts characters, not UTF-16 units
  const made = found.generated ?? [], aside = found.aside ?? [];
  const ranges = [
    ...shownMatches.map((match, index) => ({ ...match, kind: "match", index })),
    ...aside.map(row => ({ ...row, kind: "aside" })),
    ...made.map(row => ({ ...row, kind: "made" })),
  ];
  const part = piece => characters.slice(piece.start, piece.end).join("");
  $("traced").replaceChildren(...pieces(characters.length, ranges).map(piece => painted(part(piece), piece.ranges)));
  $("legend-aside").hidden = !aside.length;
  $("legend-made").hidden = !made.length;
}

function painted(text, ranges) {
  if (!ranges.length) return element("span", "", text);
  const matches = ranges.filter(range => range.kind === "match");
  const mark = element("mark", [...new Set(ranges.map(range => range.kind))].join(" "), text);
  const set = ranges.find(range => range.kind === "aside");
  if (set) mark.title = `set aside: ${set.aside}`;
  if (matches.length) {
    mark.classList.add(`level-${Math.max(...matches.map(match => shade(match.surprise)))}`);
    mark.dataset.matches = matches.map(match => match.index).join(" ");
    const shortest = matches.reduce((a, b) => b.end - b.start < a.end - a.start ? b : a);
    mark.addEventListener("click", () => { if (getSelection().isCollapsed) choose(shortest.index, "text"); });
  }
  return mark;
}

function matchEntry(match, index) {
  const pick = element("button", "pick", element("b", "", `${index + 1}`), ` ${spoken(match.lines)}`);
  pick.type = "button";
  pick.addEventListener("click", () => choose(index, "list"));
  const weight = `${number(match.surprise)} bits of surprise × ${number(match.rarity, 2)} rarity = ${number(match.score)}`;
  const model = match.to_model == null ? "" : `; ${number(match.to_model)} bits to the model, as far as it wrote it`;
  const measured = `${counted(match.tokens, "token")}; ${weight}; at ${counted(match.count, "place")}${model}`;
  const entry = element("li", `level-${shade(match.surprise)}`, pick, element("p", "note", measured), places(match.sources));
  entry.dataset.match = index;
  return entry;
}

function places(sources) {
  const first = element("ul", "places", sources.slice(0, SHOWN).map(place));
  if (sources.length <= SHOWN) return [first];
  const more = element("details", "", element("summary", "", `${number(sources.length - SHOWN)} more`));
  more.append(element("ul", "places", sources.slice(SHOWN).map(place)));
  return [first, more];
}

function place(source) {
  const notes = [];
  if (source.copies > 1) notes.push(`stands for ${number(source.copies)} files of its cluster`);
  if (source.commit) notes.push(`commit ${source.commit.slice(0, 12)}`);
  if (source.opted_out === false) notes.push("not opted out");
  const out = source.opted_out ? [element("b", "warning", "opted out")] : [];
  return element("li", "", origin(source, [source.lines]), out, element("span", "note", notes.join("; ")));
}

/** Licence, repository, path, and lines where they are given. */
const origin = (source, lines = []) => [
  ...licenses(source), " ", element("bdi", "", source.repository),
  element("span", "path", [source.path, ...lines.map(spoken)].join(", ")),
];

function owedEntry(owed) {
  const { source } = owed, asks = Object.entries(owed.asks ?? {});
  const words = asks.map(([name, what]) => (asks.length > 1 ? `${name}: ` : "") + what);
  if (!asks.length) words.push("no licence is known: ask its author");
  if (source.opted_out) words.unshift("its owner opted out: do not ship it");
  return element("li", "", origin(source, owed.lines), words.map(text => element("span", "asked", text)));
}

const asideEntry = row => element("li", "", `${spoken(row.lines)}: ${row.aside}`);
const similarEntry = ({ source, overlap }) =>
  element("li", "", origin(source), element("span", "note", `${number(100 * overlap)} % overlap`));

function showList(id, rows, entry, title = null) {
  $(id).hidden = !rows.length;
  $(id).querySelector("ul").replaceChildren(...rows.map(entry));
  if (title) $(id).querySelector("summary").textContent = counted(rows.length, ...title);
}

/** Choose a match, in the text and in the list, and say where it stands; `from` is where the reader is. */
function choose(index, from) {
  chosen = index;
  const match = shownMatches[index], source = match.sources[0];
  for (const mark of $("traced").querySelectorAll("mark.match"))
    mark.classList.toggle("chosen", mark.dataset.matches.split(" ").includes(String(index)));
  for (const entry of $("matches").querySelectorAll("li[data-match]")) {
    const here = Number(entry.dataset.match) === index;
    entry.classList.toggle("chosen", here);
    entry.querySelector(".pick").setAttribute("aria-current", here);
    if (here) reveal(entry, $("matches").closest(".lists"), from === "list");
  }
  reveal($("traced").querySelector("mark.chosen"), $("traced"), from === "text");
  const place = ` ${source.repository}, ${source.path}, ${spoken(source.lines)}`;
  $("chosen").replaceChildren(
    element("b", "", `${index + 1} of ${shownMatches.length}`), ` ${spoken(match.lines)}: `,
    ...licenses(source), ...printed(place),
  );
}

/** Scroll a box until an element of it is seen, and where the reader is the page, too. */
function reveal(wanted, box, page) {
  const inner = wanted.getBoundingClientRect(), outer = box.getBoundingClientRect();
  if (inner.top < outer.top || inner.bottom > outer.bottom) box.scrollTop += inner.top - outer.top - 24;
  if (page) wanted.scrollIntoView({ block: "nearest" });
}

/** Choose the next match, or for -1 the previous one. */
export function step(by) {
  const count = shownMatches.length;
  if (!count) return;
  const list = document.activeElement?.closest("#matches");
  choose(chosen < 0 ? (by > 0 ? 0 : count - 1) : (chosen + by + count) % count, list ? "list" : "text");
  if (list) $("matches").querySelectorAll(".pick")[chosen].focus({ preventScroll: true });
}

const STEPS = { n: 1, j: 1, p: -1, k: -1 };

/** Step with n and p, j and k pressed within an element. */
function listen(within) {
  within.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in STEPS)) return;
    event.preventDefault();
    step(STEPS[event.key]);
  });
}

$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
listen($("found") ? document : $("result"));
if ($("found")) show(JSON.parse($("found").textContent));
