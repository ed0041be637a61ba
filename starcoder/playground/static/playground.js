// The editor: a text, the parts of it that the model wrote, and what may be asked of the model and the index.
// Places in the editor count UTF-16 units, as the browser does.

import { counted, element, escaped, odd, show, step } from "./trace.js";

const $ = id => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const editor = $("editor"), backdrop = $("backdrop");
const GROUP_MS = 1000; // typing without a longer rest is undone at once
const HISTORY = 200;
const EXAMPLES = [ // ‸ is where the cursor goes
  ["Python: go on", 'def count_words(path):\n    """Count how often each word of a file occurs."""\n‸'],
  ["Python: fill in", "import argparse\n\n\ndef main():\n    parser = argparse.ArgumentParser()\n‸\n" +
    "    args = parser.parse_args()\n    print(args.name)\n"],
  ["JavaScript: go on", "/** Call a function at most once in `wait` milliseconds. */\nfunction throttle(call, wait) {\n‸"],
  ["C: fill in", "#include <string.h>\n\n/* Reverse a string in place. */\nvoid reverse(char *text) {\n‸\n}\n"],
];

let text = "", made = []; // made: {start, end} of what the model wrote
let told = null; // a text, and of each token of it that the model wrote last the character at which it begins, and log p
let writing = null, tracing = null, found = null;
let past = [], future = [], lastEdit = { kind: "", at: 0 };

// --- The text and its history

const state = () => ({ text, made, start: editor.selectionStart, end: editor.selectionEnd });

function restore({ text: value, made: parts, start, end }) {
  editor.value = text = value;
  made = parts;
  editor.setSelectionRange(start, end);
  changed();
}

/** Remember what is there, to come back to it. */
function remember(kind, before = state()) {
  past = [...past.slice(-HISTORY), before];
  future = [];
  lastEdit = { kind, at: performance.now() };
}

function travel(from, to) {
  if (writing || !from.length) return;
  to.push(state());
  restore(from.pop());
  lastEdit = { kind: "", at: 0 };
  editor.focus();
}
const undo = () => travel(past, future), redo = () => travel(future, past);

/** Move or cut the model's parts as `removed` units at `at` are replaced by `added` ones. */
function moved(parts, at, removed, added) {
  const kept = [];
  for (const { start, end } of parts) {
    const rest = [[start, Math.min(end, at)], [Math.max(start, at + removed), end]];
    for (const [index, [from, to]] of rest.entries()) {
      const shift = index ? added - removed : 0;
      if (from < to) kept.push({ start: from + shift, end: to + shift });
    }
  }
  return kept;
}

/** Take over what was typed: the one stretch in which the editor differs from the text. */
function typed() {
  const value = editor.value, most = Math.min(text.length, value.length);
  let at = 0, tail = 0;
  while (at < most && text[at] === value[at]) at++;
  while (tail < most - at && text.at(-1 - tail) === value.at(-1 - tail)) tail++;
  made = moved(made, at, text.length - at - tail, value.length - at - tail);
  text = value;
  changed();
}

/** Put `written` where `removed` units were at `at`; what stood there before must be what `base` holds. */
function put(base, at, removed, written) {
  editor.value = text = base.text.slice(0, at) + written + base.text.slice(at + removed);
  made = moved(base.made, at, removed, written.length);
  if (written) made = [...made, { start: at, end: at + written.length }].sort((a, b) => a.start - b.start);
  editor.setSelectionRange(at + written.length, at + written.length);
  changed();
}

// --- What is seen of it

function changed() {
  const parts = [];
  let from = 0;
  for (const { start, end } of made) {
    const mark = document.createElement("mark");
    mark.className = "made";
    mark.textContent = text.slice(start, end);
    parts.push(text.slice(from, start), mark);
    from = end;
  }
  backdrop.replaceChildren(...parts, text.slice(from), "\n");
  placeCaret();
  sayOdd();
  $("full").hidden = text.length < editor.maxLength;
  $("stale").hidden = !found || found.text === text;
  $("undo").setAttribute("aria-disabled", Boolean(writing) || !past.length);
  $("redo").setAttribute("aria-disabled", Boolean(writing) || !future.length);
}

/** Say where the cursor is, and draw it where the browser does not: while one is elsewhere, or the model writes. */
function placeCaret() {
  const { selectionStart: start, selectionEnd: end } = editor, drawn = backdrop.querySelector(".caret");
  const before = text.slice(0, start), line = before.split("\n").length, column = start - before.lastIndexOf("\n");
  const chosen = end > start ? `, ${end - start} selected` : "";
  $("place").textContent =
    `line ${line}, column ${column}${chosen}; ${start} characters before, ${text.length - end} after`;
  if (drawn) {
    drawn.remove();
    backdrop.normalize();
  }
  if (document.activeElement !== editor || writing) drawCaret(start);
}

function drawCaret(start) {
  const caret = element("span", "caret"), walker = document.createTreeWalker(backdrop, NodeFilter.SHOW_TEXT);
  let rest = start, node = walker.nextNode();
  while (node && node.length < rest) { rest -= node.length; node = walker.nextNode(); }
  if (node) node.splitText(rest).before(caret);
}

function sayOdd() {
  const all = odd(text), some = all.slice(0, 4);
  const line = ({ index }) => text.slice(0, index).split("\n").length;
  const where = some.map(each => `${escaped(each[0])} in line ${line(each)}`).join(", ");
  const said = `${counted(all.length, "character does", "characters do")} not print: ${where}`;
  $("odd-said").hidden = !all.length;
  $("odd-said").textContent = all.length > some.length ? `${said}, …` : said;
}

/** Keep the cursor in sight where the editor scrolls, as the browser does for what is typed. */
function follow() {
  const box = $("editor-box"), outer = box.getBoundingClientRect();
  const caret = backdrop.querySelector(".caret")?.getBoundingClientRect();
  if (caret && caret.bottom > outer.bottom) box.scrollTop += caret.bottom - outer.bottom + 24;
  if (caret && caret.top < outer.top) box.scrollTop += caret.top - outer.top - 24;
}

function fail(message = "") {
  $("failure").hidden = !message;
  $("failure").textContent = message;
}
const say = message => { $("state").textContent = message; };

// --- Asking the server

async function post(path, body, signal) {
  let answer;
  try {
    const headers = { "Content-Type": "application/json" };
    answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch (error) {
    throw signal?.aborted ? error : new Error("the server does not answer: does it still run?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => null);
  throw new Error(said?.error?.message ?? `the server answers ${answer.status}`);
}

/** The events of a stream, as objects. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const whole = (rest + read.value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const body = JSON.parse(data);
      if (body.error) throw new Error(body.error.message);
      yield body;
    }
  }
  throw new Error("the server broke off");
}

function wish(prompt, suffix) {
  const seed = $("seed").value;
  return {
    model: facts.model, prompt, stream: true, stream_options: { include_usage: true }, logprobs: 0,
    truncate_prompt_tokens: -1,
    temperature: $("temperature").valueAsNumber, max_tokens: $("max-tokens").valueAsNumber,
    ...(suffix === null ? {} : { suffix }), ...(seed === "" ? {} : { seed: Number(seed) }),
  };
}

const controls = () => [$("temperature"), $("max-tokens"), $("seed")];

/** Let the model write: at the end, or with `fill` at the cursor. */
async function write(fill) {
  const wrong = controls().find(control => !control.checkValidity());
  if (wrong) wrong.reportValidity();
  if (writing || wrong) return;
  const base = state(), start = fill ? base.start : text.length, end = fill ? base.end : text.length;
  const body = wish(text.slice(0, start), fill ? text.slice(end) : null);
  writing = new AbortController();
  tracing?.abort();
  setWriting(true);
  say("Writing; Escape stops.");
  const tokens = [];
  let raw = "", written = "", ended = "";
  try {
    for await (const { choices: [choice], usage } of events(await post("/v1/completions", body, writing.signal))) {
      tokens.push(...probabilities(choice?.logprobs, characters(body.prompt)));
      if (choice?.text && !written) remember("model", base);
      if (choice?.text) {
        raw += choice.text;
        written = raw.replace(/\r\n?/g, "\n"); // as the editor has it
        put(base, start, end - start, written);
        follow();
      }
      if (usage) ended = outcome(usage.completion_tokens, body.max_tokens);
    }
  } catch (error) {
    if (writing.signal.aborted) ended = "Stopped.";
    else fail(error.message);
  }
  writing = null;
  if (written) told = raw === written ? { text, tokens } : null; // else tokens are not where they say
  setWriting(false);
  say(ended);
  if (written && facts.traces) await trace();
}

const outcome = (tokens, most) => `${counted(tokens, "token")} written; ` +
  (tokens < most ? "there it ended." : "that is the most it was let write.");

function setWriting(on) {
  if (on) fail();
  editor.readOnly = on;
  const idle = [$("complete"), $("infill"), ...$("examples").querySelectorAll("button")];
  for (const button of idle) button.setAttribute("aria-disabled", on);
  $("stop").setAttribute("aria-disabled", !on);
  changed();
}

// --- Traces

/** How many characters a text has: an emoji is two units. */
const characters = value => Array.from(value).length;

/** The model's parts in characters. */
const inCharacters = parts => parts.map(part => ({
  start: characters(text.slice(0, part.start)), end: characters(text.slice(0, part.end)),
}));

/** Tokens of a completion with their probabilities, as the server tells them, in the text where it begins at `start`. */
const probabilities = (block, start) =>
  (block?.text_offset ?? []).map((at, index) => ({ at: start + at, logprob: block.token_logprobs[index] }));

/** A match of a text with the bits that its tokens were to the model, as far as that wrote them last. */
function weighed(match, asked) {
  const own = told?.text === asked ? told.tokens.filter(({ at }) => match.start <= at && at < match.end) : [];
  const bits = own.reduce((sum, { logprob }) => sum - logprob / Math.LN2, 0);
  return own.length ? { ...match, to_model: bits } : match;
}

async function trace() {
  if (writing || !facts.traces) return;
  if (!text.trim()) { fail("there is no text to trace"); return; }
  tracing?.abort();
  const mine = tracing = new AbortController(), said = $("state").textContent;
  const asked = text, generated = inCharacters(made);
  fail();
  say(`${said} Tracing…`.trim());
  try {
    const result = await (await post("/trace", { text: asked }, mine.signal)).json();
    found = { ...result, matches: result.matches.map(match => weighed(match, asked)), text: asked, generated };
    show(found);
    say(`${said} Traced: ${counted(found.matches.length, "match", "matches")}.`.trim());
    changed();
  } catch (error) {
    if (mine.signal.aborted) return;
    fail(error.message);
    say(said);
  }
}

async function keep() {
  try {
    const address = URL.createObjectURL(await (await post("/export", found)).blob());
    Object.assign(document.createElement("a"), { href: address, download: "trace.html" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    fail(error.message);
  }
}

// --- Wiring

editor.addEventListener("beforeinput", event => {
  if (event.inputType === "historyUndo" || event.inputType === "historyRedo") { event.preventDefault(); return; }
  const rested = performance.now() - lastEdit.at > GROUP_MS;
  if (rested || event.inputType !== lastEdit.kind || event.data === "\n") remember(event.inputType);
  lastEdit.at = performance.now();
});
editor.addEventListener("input", typed);
document.addEventListener("selectionchange", () => { if (document.activeElement === editor) placeCaret(); });
for (const kind of ["select", "focus", "blur"]) editor.addEventListener(kind, placeCaret);

const clicks = {
  complete: () => write(false), infill: () => write(true), stop: () => writing?.abort(), undo, redo, trace, export: keep,
};
for (const [id, action] of Object.entries(clicks)) $(id)?.addEventListener("click", action);

document.addEventListener("keydown", event => {
  const control = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
  const atEnd = editor.selectionStart === text.length;
  const actions = [
    [event.key === "Escape" && writing, () => writing.abort()],
    [control && event.key === "Enter", () => write(!atEnd)],
    [control && key === "z" && event.target === editor, event.shiftKey ? redo : undo],
    [control && key === "y" && event.target === editor, redo],
    [event.altKey && !control && event.code === "KeyT", trace],
    [event.altKey && !control && event.code === "KeyN", () => step(1)],
    [event.altKey && !control && event.code === "KeyP", () => step(-1)],
  ];
  const action = actions.find(([pressed]) => pressed)?.[1];
  if (!action) return;
  event.preventDefault();
  action();
});

function exampleButton([name, example]) {
  const button = element("button", "", name), place = example.indexOf("‸");
  button.type = "button";
  button.addEventListener("click", () => {
    if (writing) return;
    remember("example");
    restore({ text: example.replace("‸", ""), made: [], start: place, end: place });
    editor.focus();
  });
  return button;
}

$("examples").append(...EXAMPLES.map(exampleButton));
$("max-tokens").value = Math.min(60, facts.max_tokens, Math.max(1, Math.floor(facts.context / 2)));
editor.value = "";
changed();
