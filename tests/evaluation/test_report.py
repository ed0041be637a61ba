"""The report's files: what they say of a small run, and that hostile completions stay text."""

import base64
import hashlib
import io
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from starcoder.errors import UserError
from starcoder.evaluation import page
from starcoder.evaluation.page import choose, render
from starcoder.evaluation.picture import draw
from starcoder.evaluation.program import Status
from starcoder.evaluation.report import console, to_markdown, write_report
from starcoder.evaluation.results import Estimate, Results, Row, Sample, TaskResult, read_report, to_json
from tests.pages import Page

HOSTILE = "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\x1b[2J\u202e$x$|`*"


def row(group: str, value: float, problems: int = 164, measure: str = "pass@1") -> Row:
    return Row(group, {measure: Estimate(value, value - 0.06, value + 0.061, problems)}, problems, 20 * problems)


HUMANEVAL = TaskResult(
    "humaneval",
    "HumanEval",
    "§6.1.1",
    {"n_samples": 20, "temperature": 0.2, "stop": ["\nclass"]},
    (Row("", {"pass@1": Estimate(0.291, 0.231, 0.352, 164), "pass@10": Estimate(0.44, 0.4, 0.5, 164)}, 164, 3277),),
    verdicts={Status.PASSED: 954, Status.FAILED: 2323, Status.SANDBOX_ERROR: 3},
    notes=("the first 164 problems",),
)
MULTIPL_E = TaskResult(
    "humaneval-multipl-e",
    "MultiPL-E HumanEval",
    "§6.2.1",
    {},
    (row("C++", 0.25, 161), row("Go", 0.1, 154)),
    total=row("", 0.18, 315),
    verdicts={Status.PASSED: 3, Status.FAILED: 5},
)
BITS = TaskResult("bits-per-byte", "Bits per byte", "", {}, (row("", 0.512, 300, "bits_per_byte"),))
RESULTS = Results(
    model="build/smoke/starcoder",
    engine={"engine": "kit", "dtype": "bfloat16", "weights": "0123abcd"},
    settings={"preset": "humaneval"},
    versions={"python": "3.11.7"},
    isolation="landlock",
    strict=False,
    seed=7,
    date="2026-10-01T12:00:00+00:00",
    hardware={"cores": "2"},
    tasks=(HUMANEVAL, MULTIPL_E, BITS),
)
INCOMPLETE = replace(MULTIPL_E, skipped={"Swift": "swiftc is not installed"})


def sample(number: int = 0, **changes: object) -> Sample:
    values: dict[str, object] = {
        "task": "humaneval",
        "problem": f"HumanEval/{number}",
        "sample": number,
        "verdict": "failed",
        "right": False,
        "prompt": "def f():",
        "completion": "\n    return 1",
        "detail": "AssertionError",
        "stderr": "Traceback\nAssertionError",
    }
    return Sample(**values | changes)  # type: ignore[arg-type]


def test_the_json_is_read_back_as_it_was(tmp_path: Path) -> None:
    nothing = replace(BITS, rows=(Row("", {"bits_per_byte": Estimate(math.nan, math.nan, math.nan)}, 0, 0),))
    write_report(tmp_path / "report", replace(RESULTS, tasks=(HUMANEVAL, INCOMPLETE)))
    assert read_report(tmp_path / "report") == replace(RESULTS, tasks=(HUMANEVAL, INCOMPLETE))
    (tmp_path / "report.json").write_text(to_json(replace(RESULTS, tasks=(nothing,))))
    data = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert data["schema"] == 1
    assert data["tasks"][0]["rows"][0]["measures"]["bits_per_byte"] == {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
    }
    assert math.isnan(read_report(tmp_path / "report.json").tasks[0].rows[0].measures["bits_per_byte"].value)


def test_the_schema_is_frozen() -> None:
    data = json.loads(to_json(RESULTS))
    assert " ".join(data) == "schema model engine settings versions isolation strict seed date hardware tasks"
    assert " ".join(data["tasks"][1]) == "name title section settings rows total verdicts skipped notes"
    assert " ".join(data["tasks"][1]["total"]) == "group measures n_problems n_samples"
    assert data["tasks"][1]["total"]["measures"] == {"pass@1": {"value": 0.18, "low": 0.12, "high": 0.241, "n": 315}}


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"schema": 1}', '{"schema": 0}', '{"schema": 1, "tasks": [1]}']
)
def test_what_is_no_report_is_said_in_one_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError, match=r"report\.json (cannot be read as|is a report of another version)") as caught:
        read_report(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    for _ in range(2):
        write_report(tmp_path / "report", RESULTS, [sample()])
    assert {path.name for path in tmp_path.rglob("*")} == {
        "report",
        *("report.json", "report.md", "report.png", "index.html"),
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds something else"):
        write_report(tmp_path / "mine", RESULTS)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_terminal_has_our_numbers_beside_the_papers() -> None:
    lines = [re.sub(r" {2,}", "  ", line).strip() for line in console(RESULTS).split("\n")]
    assert lines[0] == (
        "build/smoke/starcoder, 2026-10-01T12:00:00+00:00, sandbox: landlock, tests in the candidate's process"
    )
    assert "29.1  23.1 to 35.2  33.6  30.4  44.0  40.0 to 50.0  29.0†  164  3,277" in lines
    assert "C++  25.0  19.0 to 31.1  31.55  30.56  161  3,220" in lines
    assert "Go  10.0  4.0 to 16.1  17.61  21.47†  154  3,080" in lines
    assert "all  18.0  12.0 to 24.1  315  6,300" in lines
    assert "0.512  0.452 to 0.573  300  6,000" in lines
    assert "verdicts: passed 954, failed 2,323, sandbox_error 3" in lines
    assert "3 samples could not be judged (sandbox errors): no measure counts them" in lines
    assert lines[-1].startswith("† recalled, not re-checked")


def test_with_skipped_groups_the_header_says_so_and_there_is_no_total() -> None:
    results = replace(RESULTS, tasks=(INCOMPLETE,))
    title = "MultiPL-E HumanEval (incomplete: Swift skipped, no total)"
    for text in (console(results), to_markdown(results), " ".join(Page(render(results, [])).all("h2"))):
        assert title in text.replace("\\", "")
    for text in (console(results), to_markdown(results), render(results, [])):
        assert "skipped Swift: swiftc is not installed" in text
        assert "315" not in text
        assert "18.0" not in text
    alone = replace(HUMANEVAL, skipped={"3 problems": "they need the network"})
    text = console(replace(RESULTS, tasks=(alone,)))
    assert "those judged" in text
    assert "33.6" not in text  # the paper's number is that of all problems


def test_markdown_names_settings_and_sources() -> None:
    text = to_markdown(replace(RESULTS, model=HOSTILE))
    assert "| C++ | 25.0 | 19.0 to 31.1 | 31.55 | 30.56 | 30.59† |" in text
    assert '- stop: \\["\\\\nclass"\\]' in text
    assert "- StarCoder: the model card of bigcode/starcoder\n" in text
    assert "StarCoderBase-3B: arXiv 2305.06161, recalled and not re-checked" in text
    for line in ("- seed: 7", "- preset: humaneval", "- dtype: bfloat16", "- python: 3.11.7", "- cores: 2"):
        assert line in text
    assert "\\<script\\>" in text
    assert not re.search(r"(?<!\\)<|\x1b|\u202e", text)


def test_the_page_shows_the_same_tables() -> None:
    found = Page(render(RESULTS, []))
    header, *lines = found.table(2)
    assert header[:5] == ["", "pass@1 %", "95 % interval", "StarCoder", "StarCoderBase"]
    assert [line[:5] for line in lines] == [
        ["C++", "25.0", "19.0 to 31.1", "31.55", "30.56"],
        ["Go", "10.0", "4.0 to 16.1", "17.61", "21.47†"],
        ["all", "18.0", "12.0 to 24.1", "", ""],
    ]
    widths = [float(a["width"] or -1) for tag, a in found.elements if tag == "rect"]
    assert widths == pytest.approx([100 * n / 3280 for n in (954, 2323, 3)] + [37.5, 62.5], abs=1e-3)
    assert [" ".join(text.split()) for text in found.all("li")][1:5] == [
        "the first 164 problems",
        "3 samples could not be judged (sandbox errors): no measure counts them",
        "passed 954",
        "failed 2,323",
    ]
    facts = [line for index in range(len(found.all("table"))) for line in found.table(index)]
    for fact in (["seed", "7"], ["dtype", "bfloat16"], ["stop", '["\\nclass"]']):
        assert fact in facts
    assert "There are none." in found.all("p")


def test_hostile_texts_stay_text() -> None:
    texts = dict.fromkeys(
        ("problem", "prompt", "completion", "suffix", "expected", "detail", "stdout", "stderr"), HOSTILE
    )
    task = replace(HUMANEVAL, title=HOSTILE, name=HOSTILE, skipped={HOSTILE: HOSTILE}, notes=(HOSTILE,), settings=texts)
    results = replace(RESULTS, model=HOSTILE, tasks=(task,), engine=texts, isolation=HOSTILE)
    html = render(results, [sample(0, **texts, task=HOSTILE, verdict=HOSTILE, group=HOSTILE)])
    found = Page(html)
    tags = Counter(tag for tag, _ in found.elements)
    assert (tags["script"], tags["img"]) == (1, 0)
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert found.all("pre") == [3 * shown, shown, shown, shown]  # around the gap and in it; expected; outputs
    assert found.all("h1") == [f"Evaluation of {shown}"]
    assert "49" not in found.all("pre")[0]
    for text in (html, console(results)):
        assert not re.search("[\x1b\u202e]", text)
    Image.open(io.BytesIO(draw(results))).verify()  # "$x$" is no formula


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded() -> None:
    html = render(RESULTS, [sample()])
    found = Page(html)
    policy = next(a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(found.all("script")[0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not [a for _, a in found.elements if "src" in a or not (a.get("href") or "#").startswith("#")]
    anchors = {a["href"] for _, a in found.elements if "href" in a}
    assert anchors == {f"#{a['id']}" for tag, a in found.elements if tag == "h2"}
    assert "url(" not in html


def test_every_control_has_a_name_and_every_sample_its_task_and_verdict() -> None:
    found = Page(render(RESULTS, [sample(), sample(1, verdict="passed", right=True, task="humaneval-multipl-e")]))
    controls = [tag for tag, _ in found.elements if tag in ("select", "input")]
    assert len([text for text in found.all("label") if text.split()]) == len(controls) == 3
    assert [a["value"] for tag, a in found.elements if tag == "option"] == [
        *("", "humaneval", "humaneval-multipl-e"),
        *("*", "", "failed", "passed"),
    ]
    samples = [a for tag, a in found.elements if tag == "details" and "data-task" in a]
    assert [(a["data-task"], a["data-verdict"], "data-right" in a) for a in samples] == [
        ("humaneval", "failed", False),
        ("humaneval-multipl-e", "passed", True),
    ]
    summary = " ".join(found.all("summary")[3].split())
    assert summary == "HumanEval/0 failed HumanEval, sample 0: AssertionError"


def test_of_many_samples_some_of_each_verdict_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "OF_EACH_VERDICT", 3)
    many = [sample(n, verdict="failed" if n % 10 else "passed", right=not n % 10) for n in range(200)]
    chosen = choose(many)
    assert Counter(one.verdict for one in chosen) == {"failed": 3, "passed": 3}
    assert [one.right for one in chosen] == [False] * 3 + [True] * 3
    assert choose(reversed(many)) == chosen
    assert len({one.problem for one in chosen}) == 6
    monkeypatch.setattr(page, "SAMPLES", 4)
    assert Counter(one.verdict for one in choose(many)) == {"failed": 2, "passed": 2}


def test_texts_are_cut_where_they_matter_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "CHARACTERS", 20)
    long = "".join(f"{n:03}." for n in range(100))
    html = render(RESULTS, [sample(prompt=long, completion=long, stdout="\x00" * 90, stderr=long, detail="")])
    around, stdout, stderr = Page(html).all("pre")
    cut = "[… at least 380 characters left out …]"
    assert around == f"{cut}\n{long[-20:]}{long[:20]}\n{cut}"
    assert stdout == "\\x00" * 5 + "\n[… at least 70 characters left out …]"
    assert stderr == f"{cut}\n{long[-20:]}"
    assert "cut at 20 characters" in " ".join(html.split())


def test_the_page_is_bounded() -> None:
    huge = '"' * 300_000  # each takes five characters of HTML
    many = (sample(n, verdict=f"v{n % 30}", completion=huge, stdout=huge, stderr=huge) for n in range(900))
    assert len(render(RESULTS, many)) < 8_000_000


def test_short_texts_leave_their_room_to_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, ends = "p" * 900, [f"{n:04}" for n in range(40)]
    samples = [
        sample(n, prompt=prompt + end, completion="c", stdout="", stderr="", detail="") for n, end in enumerate(ends)
    ]
    monkeypatch.setattr(page, "OF_EACH_VERDICT", 40)
    monkeypatch.setattr(page, "PAGE_CHARACTERS", 40 * 950)  # of seven texts each, a fair share would be 135
    assert all(prompt + end in render(RESULTS, samples) for end in ends)
    monkeypatch.setattr(page, "PAGE_CHARACTERS", 40 * 500)
    html = render(RESULTS, samples)
    kept = [text.count("p") for text in Page(html).all("pre") if text.startswith("[…")]
    assert len(kept) == 40
    assert min(kept) > 400
    assert sum(kept) < 40 * 500


def test_the_picture_has_a_panel_for_each_measure() -> None:
    one, all_ = (Image.open(io.BytesIO(draw(replace(RESULTS, tasks=tasks)))) for tasks in ((BITS,), RESULTS.tasks))
    assert one.width == all_.width == 990
    assert all_.height > 3 * one.height
    assert draw(RESULTS) == draw(RESULTS)
    many = tuple(replace(BITS, title=f"task {n}") for n in range(60))
    assert Image.open(io.BytesIO(draw(replace(RESULTS, tasks=many)))).height < 5000
    Image.open(io.BytesIO(draw(replace(RESULTS, tasks=())))).verify()
