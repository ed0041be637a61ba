import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Rejection
from starcoder.corpus.sources.conversations import (
    Event,
    Issue,
    clean,
    is_bot,
    long_enough,
    strip_email,
    truncate,
    with_masked_users,
    with_several_users,
    without_bots,
)

LINES = "first\nsecond"
FOOTER = "—\nReply to this email directly or view it on GitHub (#12)."


def issue(*events: tuple[str, str], title: str = "A title") -> Issue:
    return Issue(title, tuple(Event(author, text) for author, text in events))


def pairs(result: Issue | Rejection) -> list[tuple[str, str]]:
    assert isinstance(result, Issue)
    return [(event.author, event.text) for event in result.events]


class TestEmail:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (LINES, LINES),
            ("  spaces \n", "spaces"),
            (f"Thanks\n\nFrom: Ann\nTo: Bob\n> quoted\n{FOOTER}", "Thanks"),
            (f"Thanks\n\nFrom: Ann\n{FOOTER}\nSent from my phone", "Thanks\nSent from my phone"),
            (f"From: me, a word of my own\n\nFrom: Ann\n{FOOTER}", "From: me, a word of my own"),
            (f"Yes\nOn Mon, May 1, 2017 at 9:00, Ann <notifications@github.com> wrote:\n> {LINES}\n{FOOTER}", "Yes"),
            (f"On Mon, Onur <notifications@github.com>\nwrote:\n> x\n{FOOTER}\nAfter", "After"),
            ("Fix\n\nSigned-off-by: Ann B <a@b.org>\nmore", "Fix\n\nmore"),
            ("Fix\n\nSigned-off-by: A <a@b>\nSigned-off-by: C <c@d>", "Fix"),
            ("a < b\nSigned-off-by: nobody", "a < b\nSigned-off-by: nobody"),
            ("Top\nOn 1/2/2015 03:04 PM, Ann wrote:\n> one\n> two\nBottom", "Top\nBottom"),
            ("Top\nAnn <notifications@github.com>\n> one\nReply to this email directly:\nhttps://x\nEnd", "Top\nEnd"),
            ("Top\nnotifications@github.com, 5 May\nBottom", "Top\nBottom"),
            ("I say\n> a quotation\nand answer", "I say\n> a quotation\nand answer"),
            (f"{'_' * 20}\nx{'_' * 25}y {'_' * 19}", f"xy {'_' * 19}"),
            ("", ""),
        ],
    )
    def test_hand_made(self, text: str, expected: str) -> None:
        assert strip_email(text) == expected

    LINE = st.sampled_from(["From: a", "On 1 May Ann wrote:", "> x", "Signed-off-by: a <b>", "", "text", "_" * 20])

    @given(st.lists(LINE))
    def test_without_github_only_signatures_and_page_breaks_go(self, lines: list[str]) -> None:
        kept = (line.replace("_", "") for line in lines if not line.startswith("Signed-off-by"))
        assert strip_email("\n".join(lines)) == "\n".join(kept).strip()

    @pytest.mark.parametrize(
        "part", ["From:", "1", "<", "_", "\n>", "On ", "Signed-off-by: ", "view it on GitHub", "1/1/1 11:11 AM "]
    )
    def test_takes_linear_time(self, part: str) -> None:
        strip_email(part * (200_000 // len(part)))  # minutes, if any pattern were quadratic


class TestTruncate:
    def test_at_the_limit(self) -> None:
        lines = [f"line {i}" for i in range(81)]
        assert truncate("\n".join(lines[:80])) == "\n".join(lines[:80])
        assert truncate("\n".join(lines)).split("\n") == [*lines[:60], "[Truncated]", *lines[61:]]


class TestBots:
    @pytest.mark.parametrize(
        "name",
        [
            *("dependabot[bot]", "k8s-ci-robot", "Jenkins-X", "travisci", "foo-test-bar", "my-CI", "greenkeeperio-bot"),
            *("CLAassistant", "claassistant", "codecov-io", "Apache-HBase", "acme-Service-Account", "x-teamcity"),
        ],
    )
    def test_names_of_bots(self, name: str) -> None:
        assert is_bot(name)

    @pytest.mark.parametrize("name", ["torvalds", "botany", "test", "cicero", "", "codecov", "tracey"])
    def test_names_of_people(self, name: str) -> None:
        assert not is_bot(name)

    @pytest.mark.parametrize(
        ("events", "kept"),
        [
            ("ann:a bob:b", "ann:a bob:b"),
            ("ann:a x-bot:b bob:c", "ann:a bob:c"),
            ("ann:a bob:/retest x-bot:ok", "ann:a"),
            ("ann:a bob:x-bot,run x-bot:ok cid:c", "ann:a cid:c"),
            ("ann:a bob:hello x-bot:ok", "ann:a bob:hello"),
            ("ann:/help x-bot:ok bob:b", "ann:/help bob:b"),  # what opened the issue stays
            ("ann:a bob:/retest cid:c x-bot:ok", "ann:a bob:/retest cid:c"),
            ("ann:a bob:/go y-bot:1 x-bot:2", "ann:a"),
            ("ann:a bob:/1 cid:/2 y-bot:1 x-bot:2", "ann:a bob:/1"),  # the second did not come right after a call
        ],
    )
    def test_bots_and_their_calls_go(self, events: str, kept: str) -> None:
        def read(line: str) -> list[tuple[str, str]]:
            return [(author, text) for author, _, text in (event.partition(":") for event in line.split())]

        assert pairs(without_bots(issue(*read(events)))) == read(kept)

    def test_only_bots(self) -> None:
        assert without_bots(issue(("x-bot", "/a"), ("y-bot", "b"))) == Rejection("only bots")


class TestSize:
    def test_length(self) -> None:
        assert long_enough(issue(("ann", "x" * 199))) == Rejection("short issue", "199 characters")
        assert isinstance(long_enough(issue(("ann", "x" * 100), ("ann", "x" * 100))), Issue)

    @pytest.mark.parametrize(
        ("events", "kept"),
        [
            ([("ann", "x" * 7000)], True),
            ([("ann", "x" * 7001)], False),
            ([("ann", "x" * 7000), ("bob", "x")], True),
            ([("ann", "x")] * 10, True),
            ([("ann", "x")] * 11, False),
            ([("ann", "x")] * 11 + [("bob", "")], True),
        ],
    )
    def test_monologues(self, events: list[tuple[str, str]], kept: bool) -> None:
        assert isinstance(with_several_users(issue(*events)), Issue) == kept


class TestUsernames:
    def test_hand_made(self) -> None:
        masked = with_masked_users(
            issue(
                ("zoe", "@a: see zoe/code and zoey"),
                ("a", "a thing, zoe-x, -zoe, username_1's, zoe."),
                ("username_1", "thanks @zoe"),
                ("zoe", "done"),
                title="For zoe",
            )
        )
        assert masked.title == "For username_0"
        assert pairs(masked) == [
            ("username_0", "@username_1: see username_0/code and zoey"),
            ("username_1", "username_1 thing, zoe-x, -username_0, username_2's, username_0."),
            ("username_2", "thanks @username_0"),
            ("username_0", "done"),
        ]

    def test_names_are_no_patterns(self) -> None:
        assert pairs(with_masked_users(issue(("a", "a"), ("a.b", "axb a.b"), ("(", "(")))) == [
            ("username_0", "username_0"),
            ("username_1", "axb username_1"),
            ("username_2", "username_2"),
        ]

    @given(st.lists(st.tuples(st.sampled_from(["ann", "bob", "an", "b-b"]), st.text("anbo-@ ", max_size=30))))
    def test_equals_replacing_word_by_word(self, events: list[tuple[str, str]]) -> None:
        order = list(dict.fromkeys(author for author, _ in events))

        def mask(word: str) -> str:
            bare = word.strip("-@")
            return word.replace(bare, f"username_{order.index(bare)}") if bare in order else word

        for (_, before), (_, after) in zip(events, pairs(with_masked_users(issue(*events))), strict=True):
            if "@" not in before:
                assert after == " ".join(map(mask, before.split(" ")))

    NAMES = st.sampled_from(["a", "b-b", "a.b", "b b", "-a", "a-", "_", "b", "("])

    @given(st.lists(NAMES, min_size=1), st.text("ab-. _(c", max_size=40))
    def test_equals_one_alternative_for_each_name(self, names: list[str], text: str) -> None:
        order = list(dict.fromkeys(names))
        longest_first = "|".join(re.escape(name) for name in sorted(order, key=len, reverse=True))
        expected = re.sub(
            rf"(?<!\w)(?<!\w-)(?:{longest_first})(?!-?\w)", lambda found: f"username_{order.index(found[0])}", text
        )
        masked = with_masked_users(issue(*((name, text) for name in names)))
        assert {after for _, after in pairs(masked)} == {expected}

    def test_many_users_in_long_texts(self) -> None:
        users = [
            (f"user-{i}", "user-1 word " * 40) for i in range(5000)
        ]  # minutes, if each name were tried at each word
        assert pairs(with_masked_users(issue(*users)))[-1] == ("username_4999", "username_1 word " * 40)


def test_all_steps_in_order() -> None:
    long = "\n".join(f"log line {i}" for i in range(100))
    cleaned = clean(
        issue(
            ("ann", f"It fails:\n{long}"),
            ("x-bot", "I am a bot"),
            ("bob", f"@ann: fixed\nFrom: ann\n{FOOTER}"),
        )
    )
    opened, answer = pairs(cleaned)
    assert (opened[0], opened[1].count("\n"), answer) == ("username_0", 80, ("username_1", "@username_0: fixed"))
    assert clean(issue(("x-bot", "x" * 300))) == Rejection("only bots")
    # Bots do not count as users, nor their texts as text.
    assert clean(issue(("ann", "x" * 7001), ("x-bot", "hello"))) == Rejection(
        "long issue of one user", "7001 characters, 1 events"
    )
    assert clean(issue(("ann", "x"), ("x-bot", "y" * 300))) == Rejection("short issue", "1 characters")
