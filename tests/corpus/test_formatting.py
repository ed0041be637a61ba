import subprocess
import sys
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Document, Kind, Mark
from starcoder.corpus.formatting import METADATA_RATE, segments, star_bucket, structured
from starcoder.errors import UserError
from starcoder.tokenizer import SENTINELS, Sentinel

CODE = Document("owner/name", "src/a.py", "python", "py", ("MIT",), 6, "x = 1\n", stars=42)


def with_parts(kind: Kind, *parts: Sentinel | str) -> Document:
    content, marks = structured(parts)
    return replace(CODE, kind=kind, content=content, marks=marks)


def spelled(parts: list[Sentinel | str]) -> str:
    return "".join(SENTINELS[part] if isinstance(part, Sentinel) else part for part in parts)


def test_code_with_and_without_metadata() -> None:
    found = {spelled(segments(replace(CODE, path=f"{i}.py"), 1)).replace(f"{i}.py", "P") for i in range(600)}
    repository, path, stars = "<reponame>owner/name", "<filename>P", "<gh_stars>10-100"
    assert found == {
        "x = 1\n",
        *(f"{prefix}\nx = 1\n" for prefix in (repository, path, stars, repository + path, path + stars)),
        *(f"{prefix}\nx = 1\n" for prefix in (repository + stars, repository + path + stars)),
    }


def test_prefix_and_content_are_one_text() -> None:
    every = [segments(replace(CODE, path=f"{i}.py"), 1) for i in range(600)]
    full = next(parts for parts in every if len(parts) == 6)
    assert full[:5] == [Sentinel.REPONAME, "owner/name", Sentinel.FILENAME, full[3], Sentinel.GH_STARS]
    assert full[5] == "10-100\nx = 1\n"


@pytest.mark.parametrize("kind", ["code", "notebook-script"])
def test_each_field_has_its_rate(kind: Kind) -> None:
    every = [segments(replace(CODE, kind=kind, path=f"{i}.py"), 1) for i in range(4000)]
    for sentinel in (Sentinel.REPONAME, Sentinel.FILENAME, Sentinel.GH_STARS):
        # five standard deviations of a binomial share
        assert fmean(sentinel in parts for parts in every) == pytest.approx(METADATA_RATE, abs=5 * (0.16 / 4000) ** 0.5)
    assert fmean(len(parts) == 1 for parts in every) == pytest.approx(0.8**3, abs=5 * (0.25 / 4000) ** 0.5)


def test_metadata_depends_on_seed_and_name_alone() -> None:
    drawn = [segments(replace(CODE, path=f"{i}.py"), 1) for i in range(50)]
    assert drawn == [segments(replace(CODE, path=f"{i}.py"), 1) for i in range(50)]
    assert drawn != [segments(replace(CODE, path=f"{i}.py"), 2) for i in range(50)]
    scripts = [segments(replace(CODE, path=f"{i}.py", kind="notebook-script"), 1) for i in range(50)]
    assert drawn == scripts


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            with_parts(
                "notebook",
                *(Sentinel.JUPYTER_START, Sentinel.JUPYTER_TEXT, "Add", Sentinel.JUPYTER_CODE, "1 + 1"),
                *(Sentinel.JUPYTER_OUTPUT, Sentinel.EMPTY_OUTPUT),
            ),
            "<jupyter_start><jupyter_text>Add<jupyter_code>1 + 1<jupyter_output><empty_output>",
        ),
        (
            with_parts("issue", Sentinel.ISSUE_START, "Title: a\nusername_0: b", Sentinel.ISSUE_CLOSED),
            "<issue_start>Title: a\nusername_0: b<issue_closed>",
        ),
        (
            with_parts("commit", Sentinel.COMMIT_BEFORE, Sentinel.COMMIT_MSG, "Add x", Sentinel.COMMIT_AFTER, "x\n"),
            "<commit_before><commit_msg>Add x<commit_after>x\n",
        ),
    ],
)
def test_structured_documents_have_no_metadata(document: Document, expected: str) -> None:
    for number in range(100):
        assert spelled(segments(replace(document, path=str(number)), 1)) == expected


def test_text_that_spells_a_sentinel_stays_text() -> None:
    document = with_parts("issue", Sentinel.ISSUE_START, "What is <issue_start>?", Sentinel.ISSUE_COMMENT, "<NAME>")
    assert segments(document, 1) == [
        Sentinel.ISSUE_START,
        "What is <issue_start>?",
        Sentinel.ISSUE_COMMENT,
        "<NAME>",
    ]
    assert segments(with_parts("commit", "<commit_msg>"), 1) == ["<commit_msg>"]


PARTS = st.lists(st.sampled_from(list(Sentinel)) | st.text(alphabet="a<>|\n", max_size=4) | st.sampled_from(SENTINELS))


@given(PARTS)
def test_segments_give_the_parts_and_the_content_back(parts: list[Sentinel | str]) -> None:
    document = with_parts("issue", *parts)
    found = segments(document, 1)
    assert "".join(part for part in found if isinstance(part, str)) == document.content
    assert [part for part in found if isinstance(part, Sentinel)] == [p for p in parts if isinstance(p, Sentinel)]
    assert spelled(found) == spelled(parts)
    assert structured(found) == (document.content, document.marks)


@pytest.mark.parametrize("mark", [Mark(7, "<issue_start>"), Mark(-1, "<issue_start>"), Mark(0, "<NAME>")])
def test_impossible_marks(mark: Mark) -> None:
    with pytest.raises(UserError, match=r"owner/name/src/a.py: no control token"):
        segments(replace(CODE, marks=(mark,)), 1)


@pytest.mark.parametrize(
    ("stars", "bucket"),
    [
        *((None, "0"), (0, "0"), (1, "1-10"), (10, "1-10"), (11, "10-100")),
        *((100, "10-100"), (101, "100-1000"), (1000, "100-1000"), (1001, "1000+")),
    ],
)
def test_star_buckets(stars: int | None, bucket: str) -> None:
    assert star_bucket(stars) == bucket


def test_formatting_needs_no_torch() -> None:
    program = "import sys, starcoder.corpus.formatting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
