import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from starcoder.corpus import build as build_module
from starcoder.corpus import stages
from starcoder.corpus.build import build
from starcoder.corpus.dedup import jaccard, shingles
from starcoder.corpus.document import Document, read_documents
from starcoder.corpus.filters import FilterOptions
from starcoder.corpus.forget import forget
from starcoder.corpus.inspect import inspect
from starcoder.corpus.sources import SourceSpec
from starcoder.corpus.summary import STAGES, read_summary
from starcoder.errors import UserError
from starcoder.executors import Execution
from starcoder.pii.redaction import Redacted
from starcoder.training.shards import tokenize
from starcoder.training.stream import open_shards
from tests.conftest import ROOT, Tiny

ONE = Execution(workers=1)
SPLITS = ("train", "validation", "rejected")


def program(name: str, lines: int = 40) -> str:
    return "".join(f"def {name}_{n}(first, second):\n    return first * {n} + second\n" for n in range(lines))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A large repository that is never held out, eight of one file, and one in which everything is wrong."""
    files = {f"large/{n}.py": program(f"large{n}", 100) for n in range(20)}
    files |= {f"small{n}/a.py": program(f"small{n}") for n in range(8)}
    files |= {
        "wrong/near.py": program("large0", 100) + "# a last line that the other one has not\n",
        "wrong/copy.py": program("large1", 100),
        "wrong/short.py": "x = 1\n",
        "wrong/short_too.py": "x = 1\n",
        "wrong/empty.py": " \n",
        "wrong/latin.py": "é",
        "wrong/zero.py": "a\0b",
        "wrong/wide.py": "x" * 1001,
        "wrong/stub.pyi": program("stub"),
        "wrong/gpl.py": "# SPDX-License-Identifier: GPL-3.0-only\n" + program("gpl"),
        "wrong/own.py": "# SPDX-License-Identifier: ISC\n" + program("own"),
        "wrong/_vendor/a.py": program("vendored"),
        "wrong/data.json": json.dumps({"k": "v" * 6000}),
    }
    for path, text in files.items():
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / path).write_bytes(text.encode("latin-1" if text == "é" else "utf-8"))
    return tmp_path / "source"


def read(folder: Path) -> dict[str, list[Document]]:
    return {split: list(read_documents(folder, split)) for split in SPLITS}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make(output: Path, source: Path, **options: object) -> dict[str, list[Document]]:
    build(output, source=source, license="MIT", execution=ONE, **options)
    return read(output)


def test_every_file_ends_in_one_split_with_its_reason(source: Path, tmp_path: Path) -> None:
    splits = make(tmp_path / "out", source, validation_share=0.3)
    found = Counter(document.name for documents in splits.values() for document in documents)
    assert found == Counter(path.relative_to(source).as_posix() for path in source.rglob("*.*"))
    reasons = {d.name: (d.rejection.stage, d.rejection.reason) for d in splits["rejected"] if d.rejection}
    assert reasons == {
        "wrong/near.py": ("near-duplicates", "near-duplicate"),
        "wrong/copy.py": ("exact duplicates", "exact duplicate"),
        "wrong/short_too.py": ("exact duplicates", "exact duplicate"),
        "wrong/empty.py": ("readable", "empty"),
        "wrong/latin.py": ("readable", "not UTF-8"),
        "wrong/zero.py": ("readable", "binary"),
        "wrong/wide.py": ("filters", "longest line"),
        "wrong/stub.pyi": ("language", "no language of the table"),
        "wrong/gpl.py": ("licence", "file under another licence"),
        "wrong/_vendor/a.py": ("licence", "vendored code"),
        "wrong/data.json": ("filters", "size of a data file"),
    }
    assert {stage for stage, _ in reasons.values()} <= set(STAGES)
    kept = {document.name: document for split in SPLITS[:2] for document in splits[split]}
    assert all((source / name).read_text() == document.content for name, document in kept.items())
    assert kept["small0/a.py"].licenses == ("MIT",)
    assert kept["wrong/own.py"].licenses == ("ISC",)
    assert {document.source for document in kept.values()} == {"source"}
    assert (kept["large/0.py"].copies, kept["large/1.py"].copies, kept["large/2.py"].copies) == (2, 2, 1)
    near = next(document for document in splits["rejected"] if document.name == "wrong/near.py")
    assert near.rejection
    similarity = jaccard(shingles(kept["large/0.py"].content), shingles((source / "wrong/near.py").read_text()))
    assert near.rejection.detail == f"large/0.py, Jaccard {similarity:.2f}"


def test_held_out_repositories_are_whole(source: Path, tmp_path: Path) -> None:
    for seed in range(3):
        splits = make(tmp_path / "out", source, validation_share=0.3, seed=seed)
        apart = {document.repository for document in splits["validation"]}
        assert apart
        assert apart.isdisjoint(document.repository for document in splits["train"])


def test_the_number_of_workers_does_not_change_a_byte_but_the_seed_does(source: Path, tmp_path: Path) -> None:
    options = {"task_bytes": 30_000, "max_bytes": 120_000, "source": source, "license": "MIT"}
    for name, execution in {"one": ONE, "two": Execution(workers=2)}.items():
        build(tmp_path / name, execution=execution, **options)
    assert len(list((tmp_path / "one").glob("train-*"))) > 2
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    build(tmp_path / "other", execution=ONE, seed=1, **options)
    assert contents(tmp_path / "other") != contents(tmp_path / "one")
    assert not list(tmp_path.glob("*.work"))


def test_slurm_runs_the_stages_as_dependent_job_arrays(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for sbatch and srun run at once what they are given; the scripts themselves are datatrove's."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sbatch").write_text(
        f"#!{sys.executable}\n"
        "import os, re, subprocess, sys\n"
        "script = next(arg for arg in sys.argv[1:] if not arg.startswith('-'))\n"
        "text = open(script).read()\n"
        f"log = open({str(tmp_path / 'sbatch.log')!r}, 'a')\n"
        "array = re.search('--array=0-([0-9]+)', text)\n"
        "name = re.search('--job-name=([a-z]+)', text)[1]\n"
        "waits = next((arg.split(':')[1] for arg in sys.argv if arg.startswith('--dependency')), '-')\n"
        "job = len(open(log.name).read().split()) // 2 + 1\n"
        "log.write(f'{name} {waits}\\n')\n"
        "log.flush()\n"
        "for task in range(int(array[1]) + 1 if array else 0):\n"
        "    env = os.environ | {'SLURM_ARRAY_TASK_ID': str(task), 'RUN_OFFSET': '0', 'SLURM_NODELIST': 'here'}\n"
        "    subprocess.run(['bash', script], env=env, check=True, capture_output=True)\n"
        "print('Submitted batch job', job)\n"
    )
    (tools / "srun").write_text(
        '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done\nexec "$@"\n'
    )
    (tools / "scontrol").write_text("#!/bin/sh\necho here\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    local = make(tmp_path / "local", source)
    slurm = Execution("slurm", partition="cpu", environment="true")
    build(tmp_path / "slurm", source=source, license="MIT", execution=slurm)
    assert read(tmp_path / "slurm") == local
    submitted = [line.split() for line in (tmp_path / "sbatch.log").read_text().splitlines()]
    # Every second job merges the statistics of the one before it.
    names = ("read", "match", "cluster", "compare", "star", "split", "finish", "seal")
    assert submitted[::2] == [[name, str(2 * number - 1) if number else "-"] for number, name in enumerate(names)]
    assert contents(tmp_path / "slurm") == contents(tmp_path / "local")


class Killed(BaseException):
    """Nothing but the test expects it."""


@pytest.mark.parametrize("stage", ["Write", "Sign", "Compare", "Star", "Split", "Finish", "Seal"])
def test_killed_in_any_stage_it_goes_on_without_doing_anything_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    options = {"task_bytes": 30_000, "source": source, "license": "MIT", "execution": ONE}
    build(tmp_path / "whole", **options)
    step = getattr(stages, stage)
    run = step.run
    calls: list[int] = []

    def dies_in_its_last_task(self: object, data: object = None, rank: int = 0, world_size: int = 1) -> object:
        calls.append(rank)
        if rank == world_size - 1:
            raise Killed
        return run(self, data, rank, world_size)

    monkeypatch.setattr(step, "run", dies_in_its_last_task)
    with pytest.raises(Killed):
        build(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    first = list(calls)
    monkeypatch.setattr(
        step, "run", lambda self, data=None, rank=0, world=1: (calls.append(rank), run(self, data, rank, world))[1]
    )
    build(tmp_path / "out", **options)
    assert calls[len(first) :] == first[-1:]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not list(tmp_path.glob("*.work"))


def test_killed_for_real_it_leaves_no_process_and_goes_on(source: Path, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from starcoder.corpus.build import build; from starcoder.executors import Execution;"
        f"build(Path('out'), source=Path({str(source)!r}), license='MIT', task_bytes=30_000,"
        " execution=Execution(workers=2))"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list((tmp_path / "out.work" / "logs").glob("0-read/completions/*")):
        assert run.poll() is None
        time.sleep(0.005)
    run.kill()
    run.wait()
    deadline = time.monotonic() + 20
    while alive(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(run.pid)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    build(tmp_path / "whole", source=source, license="MIT", task_bytes=30_000, execution=ONE)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(
        path.read_text().rpartition(")")[2].split()[2] == str(group) for path in Path("/proc").glob("[0-9]*/stat")
    )


def test_a_process_that_the_kernel_kills_is_one_line(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"source": source, "license": "MIT", "task_bytes": 30_000, "execution": Execution(workers=2)}
    (source / "small0" / "a.py").unlink()
    os.mkfifo(source / "small0" / "b.py")  # never read: it is no file
    monkeypatch.setattr(stages.Write, "__reduce__", _suicidal, raising=False)
    with pytest.raises(UserError, match="died, perhaps for want of memory; run again with fewer workers"):
        build(tmp_path / "out", **environment)


def _suicidal(self: object) -> tuple[object, tuple[int, int]]:
    return _kill, (0, signal.SIGKILL)


def _kill(_: int, number: int) -> None:
    os.kill(os.getpid(), number)


def test_budget_is_shared_fairly(source: Path, tmp_path: Path) -> None:
    splits = make(tmp_path / "out", source, max_bytes=60_000)
    kept = splits["train"] + splits["validation"]
    over = [d for d in splits["rejected"] if d.rejection and d.rejection.stage == "budget"]
    assert sum(document.size for document in kept) <= 60_000
    assert {document.repository for document in kept} >= {"large", *(f"small{n}" for n in range(8))}
    assert {document.repository for document in over} == {"large", "wrong"}  # the others have less than the share


def test_what_asked_to_be_left_out_is_left_out_before_and_after(
    source: Path, tmp_path: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "opt-out.txt"
    listed.write_text("# asked by mail\nLARGE\n")
    before = make(tmp_path / "before", source, opt_out=listed)
    make(tmp_path / "after", source)
    for name, options in {"all": {}, "rest": {"split": "validation"}}.items():
        tokenize(tmp_path / "after", tiny.tokenizer, tmp_path / name, execution=ONE, **options)
    inspect(tmp_path / "after")
    assert "large7_3" in (tmp_path / "after-report.html").read_text() + str(read(tmp_path / "after"))
    forget(listed, tmp_path / "after", [tmp_path / "all", tmp_path / "rest"])
    after = read(tmp_path / "after")
    for splits in (before, after):
        assert "large" not in {document.repository for split in SPLITS[:2] for document in splits[split]}
        out = [d for d in splits["rejected"] if d.rejection and d.rejection.stage == "opt-out"]
        assert {(d.repository, d.content, d.rejection.detail) for d in out if d.rejection} == {("large", "", "large")}
    assert "large7_3" not in str(after)
    assert not (tmp_path / "after-report.html").exists()
    summary = read_summary(tmp_path / "after")
    assert summary["options"]["opted_out_later"] == read_summary(tmp_path / "before")["options"]["opt_out"]
    for split in SPLITS:
        assert summary[split]["documents"] == len(after[split])
    with pytest.raises(UserError, match="large opted out; run `starcoder tokenize` again"):
        open_shards(tmp_path / "all")
    assert open_shards(tmp_path / "rest").n_tokens
    with pytest.raises(UserError, match="name a --corpus"):
        forget(listed)
    for name in ("before", "after"):
        with pytest.raises(UserError, match="name their list by --opt_out"):
            make(tmp_path / name, source)
    make(tmp_path / "after", source, opt_out=listed)


def test_malware_has_no_content(source: Path, tmp_path: Path) -> None:
    quarantine = tmp_path / "quarantine.txt"
    quarantine.write_text("path:small0/a.py\n")
    splits = make(tmp_path / "out", source, quarantine=quarantine)
    rejected = next(document for document in splits["rejected"] if document.name == "small0/a.py")
    assert rejected.rejection
    assert (rejected.rejection.stage, rejected.content) == ("malware", "")


def test_benchmarks_are_not_in_the_corpus(source: Path, tmp_path: Path) -> None:
    prompt = f'def f():\n    """{program("asked", 3)}"""'
    problem = {"task_id": "HumanEval/0", "prompt": prompt, "canonical_solution": program("answer", 3)}
    folder = tmp_path / "benchmarks" / "humaneval"
    folder.mkdir(parents=True)
    (folder / "HumanEval.jsonl").write_text(json.dumps(problem | {"entry_point": "f", "test": ""}) + "\n")
    (source / "small1" / "leak.py").write_text(f"import os\n{program('real')}{program('answer', 3).upper()}")
    (source / "small2" / "clean.py").write_text(f"import os\n{program('real')}")
    splits = make(tmp_path / "out", source, benchmarks=tmp_path / "benchmarks")
    # The two are near-duplicates: the clean one must not go for the sake of one that is left out itself.
    assert "small2/clean.py" in {document.name for split in SPLITS[:2] for document in splits[split]}
    (source / "small2" / "clean.py").unlink()
    splits = make(tmp_path / "out", source, benchmarks=tmp_path / "benchmarks")
    (leak,) = [d for d in splits["rejected"] if d.rejection and d.rejection.stage == "benchmarks"]
    assert leak.rejection
    assert leak.name == "small1/leak.py"
    assert "HumanEval/0" in leak.rejection.detail
    summary = read_summary(tmp_path / "out")
    assert summary["benchmarks"] == {"humaneval": 2}
    assert {"mbpp", "ds1000"} < set(summary["benchmarks_missing"])


def test_a_source_that_is_all_copies_raises_an_alarm(tmp_path: Path) -> None:
    for source in ("first", "second"):
        for number in range(60):
            path = tmp_path / source / f"owner{number % 3}" / f"{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(program(f"f{number}", 400) + f"# {source}\n")
    specs = [SourceSpec("folder", str(tmp_path / name), "MIT", "same") for name in ("first", "second")]
    build(tmp_path / "out", sources=specs, execution=ONE, validation_share=0.4)
    messages = read_summary(tmp_path / "out")["messages"]
    assert any("same-2" in message for message in messages)
    assert any(message.startswith("source same-2: 100% of") for message in messages)


def test_summary_counts_the_shards(source: Path, tmp_path: Path) -> None:
    splits = make(tmp_path / "out", source, validation_share=0.3)
    summary = read_summary(tmp_path / "out")
    for split, documents in splits.items():
        assert summary[split]["documents"] == len(documents)
        assert summary[split]["bytes"] == sum(document.size for document in documents)
        for group in ("languages", "licenses", "repositories"):
            assert sum(entry["bytes"] for entry in summary[split][group].values()) == summary[split]["bytes"]
    assert summary["rejected"]["reasons"]["exact duplicate"]["documents"] == 2
    assert "reasons" not in summary["train"]
    assert [row["stage"] for row in summary["stages"]] == [*STAGES, "kept"]
    assert summary["stages"][0]["files"] == sum(map(len, splits.values()))
    assert summary["stages"][-1]["files"] == len(splits["train"]) + len(splits["validation"])
    assert summary["redactor"] == "regex"


def test_real_code_of_this_machine(tmp_path: Path) -> None:
    """A small corpus of installed packages: several languages, and a held-out part that is not in training."""
    build(tmp_path / "out", max_bytes=4_000_000, execution=ONE)
    splits = read(tmp_path / "out")
    train, validation = splits["train"], splits["validation"]
    assert len({document.repository for document in train}) > 30
    assert {"python", "c", "c++"} < {document.language for document in train}
    assert {document.repository for document in validation}.isdisjoint(document.repository for document in train)
    apart = [shingles(document.content) for document in validation]
    assert all(jaccard(shingles(d.content), own) < 0.95 for d in train[:200] for own in apart[:50])
    assert sum(document.size for document in validation if document.language == "python") > 50_000
    rejected = {document.repository for document in splits["rejected"]} - {d.repository for d in train + validation}
    assert "hypothesis" in rejected  # MPL-2.0
    assert all(document.evidence and document.commit for document in train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bytes": 0, "validation_share": 1.0}, "max_bytes must be .*; validation_share must be"),
        ({"similarity": 0.0}, "similarity must be"),
        ({"accept": ["FOO"]}, "no such SPDX licence id: FOO"),
        ({"license": "GPL-3.0-only"}, "GPL-3.0-only: licence not permissive"),
        ({"license": "nothing we know"}, "licence unknown"),
        ({"execution": Execution("slurm")}, "needs execution.partition"),
        ({"execution": Execution(workers=0)}, "workers must be at least 1"),
        ({"repository": Path()}, "not two of them"),
        ({"opt_out": Path("missing")}, "missing"),
        ({"clamd": "tcp:127.0.0.1:1"}, "127.0.0.1"),
        ({"pii": "no/such/model/here"}, "no/such/model/here"),
    ],
)
def test_bad_options(source: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(tmp_path / "out", **({"source": source, "license": "MIT", "execution": ONE} | options))
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [source]


def test_excerpts_are_redacted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "open_redactor", lambda pii: (Shout(), f"{pii} 1"))
    splits = make(tmp_path / "out", source)
    texts = [document.content for document in splits["rejected"] if document.content]
    assert "X" * 1001 in texts
    assert all(text == text.upper() for split in SPLITS for text in [document.content for document in splits[split]])
    summary = read_summary(tmp_path / "out")
    count = sum(len(splits[split]) for split in SPLITS[:2])
    assert summary["redacted"] == {"words": count}
    assert summary["redacted_languages"] == {"python": {"words": count}}
    assert summary["unredacted"] == {"words": 2 * count}
    assert (summary["redactor"], summary["options"]["pii_version"]) == ("shout", "regex 1")


class Shout:
    name = "shout"

    def redact_all(self, texts: Sequence[str], languages: Sequence[str]) -> list[Redacted]:
        assert set(languages) <= {"python", "json"}
        return [Redacted(text.upper(), {"words": 1}, {"words": 2}) for text in texts]


def test_personal_data_is_redacted_unless_asked_not_to(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mail, address = "ada@lovelace.org", "93.184.216.34"
    for number in range(3):
        text = f"# {mail} {address}\nx = {mail}\n" + program(f"secret{number}")
        (source / f"small{number}" / "secret.py").write_text(text)
    (source / "small3" / "secret.c").write_text(f"// {mail}\n" + program("secret_c").replace("def ", "int "))
    (source / "wrong" / "wide.py").write_text(f"x = '{mail} {'x' * 1000}'\n")
    options = {"source": source, "license": "MIT", "task_bytes": 30_000}
    for name, workers in (("one", 1), ("two", 2)):
        build(tmp_path / name, execution=Execution(workers=workers), **options)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    shown, summary = capsys.readouterr().out, read_summary(tmp_path / "one")
    assert summary["redacted"] == {"EMAIL": 4, "IP_ADDRESS": 3}
    assert summary["redacted_languages"] == {"c": {"EMAIL": 1}, "python": {"EMAIL": 3, "IP_ADDRESS": 3}}
    assert summary["unredacted"] == {"EMAIL": 3}
    line = "PII: redacted by regex: 4 EMAIL, 3 IP_ADDRESS; left as they are: 3 EMAIL\n"
    assert f"corpus: {line}" in shown
    assert "corpus: one: train" in shown
    assert summary["options"]["pii"] == "regex"
    splits = read(tmp_path / "one")
    texts = {document.name: document.content for split in SPLITS for document in splits[split]}
    code = texts["small0/secret.py"].splitlines()
    assert code[0].startswith("# <EMAIL> 1")
    assert code[1] == f"x = {mail}"  # a product of matrices
    assert not [name for name, text in texts.items() if address in text or (mail in text and "secret.py" not in name)]
    assert texts["wrong/wide.py"].startswith("x = '<EMAIL> xxx")
    inspect(tmp_path / "one")
    assert line in capsys.readouterr().out
    build(tmp_path / "none", pii="none", execution=ONE, **options)
    assert "corpus: PII: not redacted" in capsys.readouterr().out
    plain = {document.name: document.content for split in SPLITS[:2] for document in read(tmp_path / "none")[split]}
    assert all((source / name).read_text() == text for name, text in plain.items())
    assert read_summary(tmp_path / "none")["redacted"] == {}


def test_a_corpus_is_not_written_into_what_is_read(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lies in"):
        make(source / "corpus", source)
    assert not (source / "corpus.work").exists()


def test_nothing_to_keep_is_one_line(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fewer than two repositories.*; left out: \d+ mean line, "):
        make(tmp_path / "out", source, filters=FilterOptions(mean_line=1))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_corpus_is_not_replaced(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds something else"):
        build(source, source=source, license="MIT")
    assert (source / "small0/a.py").exists()
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty", source)
    assert read_summary(tmp_path / "empty")


def test_one_repository_of_ones_own_is_split_by_file(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for number in range(40):
        path = root / f"part{number % 3}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"def f{number}_{n}(x):\n    return x * {number * n + 1}\n" for n in range(9)))
    build(tmp_path / "corpus", repository=root, validation_share=0.2, similarity=1.0, execution=ONE)
    train, validation = (list(read_documents(tmp_path / "corpus", split)) for split in ("train", "validation"))
    assert len(train) + len(validation) == 40
    assert 1 <= len(validation) <= 10
    assert {document.repository for document in [*train, *validation]} == {"mine"}
    assert {document.licenses for document in train} == {("LicenseRef-Own",)}
    with pytest.raises(UserError, match="does not exist"):
        build(tmp_path / "other", repository=tmp_path / "nowhere")
