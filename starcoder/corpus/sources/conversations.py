"""What is cleaned in GitHub issues and pull requests (paper §3.3).

    texts ─► e-mail replies ─► long comments ─► bots ─► length and users ─► usernames
             cut away          cut short        out     enough of both      username_0, username_1, …

Each step is a function from an issue to the issue it leaves, or to the reason to leave it out. The paper's last step,
which keeps English issues only, is not offered: its language model is no part of the release.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from starcoder.corpus.document import Rejection

FEWEST_CHARACTERS = 200
LONE_CHARACTERS = 7000
LONE_EVENTS = 10
"""The most that an issue with one user may have, in characters (the 96th percentile) and in events."""
LONGEST_COMMENT = 80
"""Lines, as in the released code; the paper's text says 100."""
LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a user did to an issue: opened it, wrote a comment, closed or reopened it."""

    author: str
    text: str
    action: str = ""


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue or a pull request: its title and what happened, in order."""

    title: str
    events: tuple[Event, ...]


Step = Callable[[Issue], Issue | Rejection]


def clean(issue: Issue) -> Issue | Rejection:
    """Return what all steps leave of `issue`, or the first reason to leave it out."""
    for step in STEPS:
        result = step(issue)
        if isinstance(result, Rejection):
            return result
        issue = result
    return issue


def without_email(issue: Issue) -> Issue:
    """Cut away what a reply by e-mail repeats."""
    return _map_texts(issue, strip_email)


def with_short_comments(issue: Issue) -> Issue:
    """Keep the first and the last lines of comments that are too long, mostly logs."""
    return _map_texts(issue, truncate)


def without_bots(issue: Issue) -> Issue | Rejection:
    """Take out the events of bots, and the comments right before them that called them."""
    kept: list[Event] = []
    previous = None
    for event in issue.events:
        if not is_bot(event.author):
            kept.append(event)
        # Whoever opened the issue did not only call a bot: the first event stays.
        elif len(kept) > 1 and kept[-1] is previous and _calls(kept[-1].text, event.author):
            kept.pop()
        previous = event
    return replace(issue, events=tuple(kept)) if kept else Rejection("only bots")


def long_enough(issue: Issue) -> Issue | Rejection:
    """Leave out what is hardly a text."""
    size = _size(issue)
    return issue if size >= FEWEST_CHARACTERS else Rejection("short issue", f"{size} characters")


def with_several_users(issue: Issue) -> Issue | Rejection:
    """Leave out monologues that are long, or of many events: they are mostly generated."""
    size, events = _size(issue), len(issue.events)
    if len({event.author for event in issue.events}) >= 2 or (size <= LONE_CHARACTERS and events <= LONE_EVENTS):
        return issue
    return Rejection("long issue of one user", f"{size} characters, {events} events")


def with_masked_users(issue: Issue) -> Issue:
    """Number the users in the order in which they appear, and use these names in all texts too.

    The authors replaced every occurrence of the letters one name after the other, so a user "a" turned each "a" of the
    issue into "username_0". Here a name counts where it stands alone, and names do not replace parts of each other.
    """
    users = {user: f"username_{i}" for i, user in enumerate(dict.fromkeys(event.author for event in issue.events))}
    # One pattern for all names of words and hyphens, as GitHub's are, so that many users cost no more than few.
    others = sorted((user for user in users if user and not _NAME.fullmatch(user)), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?<!\w-)(?:{'|'.join([*map(re.escape, others), _NAME.pattern])})(?!-?\w)")

    def mask(text: str) -> str:
        return pattern.sub(lambda found: users.get(found[0], found[0]), text)

    events = (replace(event, author=users[event.author], text=mask(event.text)) for event in issue.events)
    return Issue(mask(issue.title), tuple(events))


STEPS: tuple[Step, ...] = (
    *(without_email, with_short_comments, without_bots),
    *(long_enough, with_several_users, with_masked_users),
)


_REPLY, _LINK, _SENDER = "Reply to this email directly", "view it on GitHub", "notifications@github.com"
_SIGNATURE = re.compile(r"^Signed-off-by: [^<\n]+<[^>\n]+>.*\n?", re.MULTILINE)
_DATE = re.compile(r"\d{1,4}/\d{1,4}/\d{1,4} \d{2}:\d{2} [AP]M.")
_NAME = re.compile(r"\w+(?:-\w+)*+")
_PAGE_BREAK = re.compile("_{20,}")


def strip_email(text: str) -> str:
    """Return the text of an event without what its author's e-mail program and GitHub added."""
    for strip in (_strip_notification, _strip_signatures, _strip_quotation):
        stripped = strip(text)
        if stripped != text:
            break
    return _PAGE_BREAK.sub("", stripped).strip()


def truncate(text: str) -> str:
    """Return a text of at most 80 lines and a note: the first 60 and the last 20 of a longer one."""
    lines = text.split("\n")
    if len(lines) <= LONGEST_COMMENT:
        return text
    return "\n".join([*lines[: LONGEST_COMMENT - LAST_LINES], "[Truncated]", *lines[-LAST_LINES:]])


_BOT_PARTS = ("[bot]", "botmanager", "bors-", "jenkins", "k8s-", "-test-", "travis")
_BOT_ENDS = (
    *("-automaton", "-automation", "-benchmark", "-build", "-deployer", "-cloud", "bot", "-ci"),
    *("-linter", "-teamcity", "-test", "-testing"),
    "-service-account",  # in capitals in the released code, where it never meets the lower-cased names
)
_BOT_NAMES = {
    *("apache-hbase", "autorestci", "claassistant", "claassistantio", "cmsbuild", "codecov-commenter", "codecov-io"),
    *("coveralls", "danger-public", "dnfclas", "karma-pr-reporter", "msftclas", "probot-stale", "pydocteur", "sparkqa"),
}


def is_bot(author: str) -> bool:
    """Whether a user's name is that of a program."""
    name = author.lower()
    return name in _BOT_NAMES or name.endswith(_BOT_ENDS) or any(part in name for part in _BOT_PARTS)


def _calls(text: str, bot: str) -> bool:
    return text.startswith("/") or bot in text


def _strip_notification(text: str) -> str:
    """Cut from the last header line before GitHub's footer to the end of the footer's last line.

    The authors' patterns mean to keep what follows; written as they are, they drop it.
    """
    reply = text.find(_REPLY)
    link = text.find(_LINK, reply) if reply >= 0 else -1
    if link < 0:
        return text
    start = text.rfind("From:", 0, reply)
    sender = text.rfind(_SENDER, 0, reply)
    if start < 0 and sender >= 0 and text.find("wrote:", sender, reply) >= 0:
        start = max(text.rfind("\nOn ", 0, sender), 0 if text.startswith("On ") else -1)
    return text if start < 0 else text[:start].rstrip() + "\n" + text[link:].partition("\n")[2]


def _strip_signatures(text: str) -> str:
    return _SIGNATURE.sub("", text)


def _strip_quotation(text: str) -> str:
    """Cut from the line that says who wrote when to the last quoted line, or line of GitHub's footer, after it.

    Without such a line nothing is cut: a quoted line alone is Markdown. The released code then drops all text above it.
    """
    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if _SENDER in line or _is_dated(line)), None)
    if start is None:
        return text
    end = start
    for place, line in enumerate(map(str.strip, lines[start:]), start):
        if _REPLY in line:
            end = place + line.endswith(":")  # the address follows on a line of its own
        elif line.startswith(">"):
            end = place
    return "\n".join(lines[:start] + lines[end + 1 :])


def _is_dated(line: str) -> bool:
    date = _DATE.search(line)
    return date is not None and "wrote" in line[date.end() :]


def _map_texts(issue: Issue, change: Callable[[str], str]) -> Issue:
    return replace(issue, events=tuple(replace(event, text=change(event.text)) for event in issue.events))


def _size(issue: Issue) -> int:
    return sum(len(event.text) for event in issue.events)
