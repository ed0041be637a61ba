import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.errors import UserError
from starcoder.pii.baseline import read_baseline, write_baseline
from starcoder.pii.entity import Entity
from starcoder.pii.findings import findings_of, fingerprint, mask

TEXT = "import x\n\nserver = '10.20.30.40', 'ada@lovelace.org'  # é\n"
ADDRESS = Entity(TEXT.index("10."), TEXT.index("40'") + 2, "IP_ADDRESS", 1.0, "address")
EMAIL = Entity(TEXT.index("ada"), TEXT.index("org") + 3, "EMAIL", 0.98765, "email")


def test_a_finding_has_its_place_and_masks_itself_and_its_neighbours() -> None:
    (first, second) = findings_of("a.py", TEXT, [ADDRESS, EMAIL], [ADDRESS, EMAIL], show=False)
    assert (first.line, first.column, first.label, first.value) == (3, 11, "IP_ADDRESS", "***")
    assert first.before == "server = '"
    assert first.after == "', '***'  # é"
    assert (second.line, second.score, second.before) == (3, 0.988, "server = '***', '")


def test_values_are_shown_when_asked_for() -> None:
    (finding,) = findings_of("a.py", TEXT, [ADDRESS, EMAIL], [EMAIL], show=True)
    assert (finding.value, finding.before) == ("ada@lovelace.org", "server = '10.20.30.40', '")


@given(st.text(max_size=60), st.data())
def test_no_character_of_a_secret_is_told(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    entities = [Entity(a, b, "PASSWORD") for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    marked = "".join("\ue000" if any(e.start <= i < e.end for e in entities) else c for i, c in enumerate(text))
    told = "".join(f.before + f.value + f.after for f in findings_of("", marked, entities, entities, show=False))
    assert "\\ue000" not in told
    assert all(1 <= f.line <= marked.count("\n") + 1 for f in findings_of("", marked, entities, entities, show=False))


class Counted(list[Entity]):
    """Counts the entities that are read."""

    reads = 0

    def __getitem__(self, key: Any) -> Any:
        self.reads += len(range(*key.indices(len(self)))) if isinstance(key, slice) else 1
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Entity]:
        for entity in super().__iter__():
            self.reads += 1
            yield entity


def test_a_line_with_many_findings_takes_time_in_proportion() -> None:
    found = Counted(Entity(10 * number, 10 * number + 8, "EMAIL") for number in range(2000))
    findings = findings_of("a", "ada@l.org," * 2000, found, list(found), show=False)
    assert findings[1000].before == "***g," * 6
    assert found.reads < 60 * len(found)


def test_a_long_key_keeps_the_head_that_names_its_kind() -> None:
    assert mask("KEY", "ghp_" + "x" * 36) == "ghp_***"
    assert mask("KEY", "short") == mask("PASSWORD", "p" * 40) == "***"


def test_a_fingerprint_does_not_depend_on_the_line() -> None:
    moved = "\n\n" + TEXT
    (first,) = findings_of("a.py", TEXT, [EMAIL], [EMAIL], show=False)
    later = Entity(EMAIL.start + 2, EMAIL.end + 2, "EMAIL")
    (second,) = findings_of("a.py", moved, [later], [later], show=True)
    assert first.fingerprint == second.fingerprint
    names = {fingerprint(*names) for names in (("a", "b", "c"), ("ab", "", "c"), ("a", "b", "d"), ("b", "b", "c"))}
    assert len(names) == 4


def test_a_baseline_is_read_back_without_the_secret(tmp_path: Path) -> None:
    findings = findings_of("a.py", TEXT, [EMAIL], [EMAIL, EMAIL], show=True)
    assert write_baseline(tmp_path / "baseline.json", findings) == 1
    assert read_baseline(tmp_path / "baseline.json") == {findings[0].fingerprint}
    assert "lovelace" not in (tmp_path / "baseline.json").read_text()


@pytest.mark.parametrize("content", [{}, {"format": 2, "accepted": []}, {"format": 1, "accepted": ["x"]}])
def test_what_is_no_baseline_is_told(tmp_path: Path, content: object) -> None:
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="baseline"):
        read_baseline(tmp_path / "b.json")


def test_an_entity_of_several_lines_is_masked_whole_and_has_its_first_line() -> None:
    text = "a\nkey = '12\n34\n56'  # b\nc"
    key = Entity(text.index("12"), text.index("56") + 2, "KEY")
    (finding,) = findings_of("a", text, [key], [key], show=False)
    assert (finding.line, finding.column) == (2, 8)
    assert (finding.before, finding.value, finding.after) == ("key = '", "***", "'  # b")
