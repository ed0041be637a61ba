import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.licenses import judge_license
from starcoder.corpus.sources.base import Candidate
from starcoder.corpus.sources.stack import Stack, open_store
from starcoder.errors import UserError

ROWS = [
    {
        "hexsha": "0" * 40,
        "size": 6,
        "ext": "py",
        "lang": "Python",
        "max_stars_repo_path": "src/a.py",
        "max_stars_repo_name": "owner/one",
        "max_stars_repo_head_hexsha": "a" * 40,
        "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
        "max_stars_count": 7,
        "content": "x = 1\n",
        "avg_line_length": 5.0,
    },
    {
        "hexsha": "1" * 40,
        "size": 2,
        "ext": "h",
        "lang": "C",
        "max_stars_repo_path": "b.h",
        "max_stars_repo_name": "owner/two",
        "max_stars_repo_head_hexsha": "b" * 40,
        "max_stars_repo_licenses": ["MIT", "GPL-3.0-only"],
        "max_stars_count": None,
        "content": "é",
        "avg_line_length": 1.0,
    },
]


def save(path: Path, rows: Sequence[Mapping[str, Any]] | pa.Table, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows)), path, **options)
    return path


def found(source: Stack) -> list[Candidate]:
    return [candidate for unit in source.units() for candidate in source.candidates(unit)]


def one(tmp_path: Path, row: Mapping[str, Any], license: str | None = None) -> Candidate:
    [candidate] = found(Stack(str(save(tmp_path / "one.parquet", [row])), license))
    return candidate


def test_rows_of_the_stack(tmp_path: Path) -> None:
    save(tmp_path / "data/python/train-00000.parquet", ROWS[:1])
    save(tmp_path / "data/c/train-00000.parquet", ROWS[1:])
    (tmp_path / "README.md").touch()
    source = pickle.loads(pickle.dumps(Stack(str(tmp_path))))
    assert [unit.name for unit in source.units()] == ["data/c/train-00000.parquet", "data/python/train-00000.parquet"]
    second, first = found(source)
    assert first.document == Document(
        "owner/one", "src/a.py", "python", "py", (), 6, stars=7, commit="a" * 40, source="stack"
    )
    assert second.document == Document("owner/two", "b.h", "c", "h", (), 2, commit="b" * 40, source="stack")
    assert [candidate.read and candidate.read() for candidate in (first, second)] == [b"x = 1\n", "é".encode()]
    assert first.license.evidence == "max_stars_repo_licenses"
    assert judge_license(first.license.expression) == ("Apache-2.0", "MIT")
    assert isinstance(judge_license(second.license.expression), Rejection)  # every licence must be permissive


@pytest.mark.parametrize(
    ("lang", "ext", "path", "expected"),
    [
        ("C#", "cs", "a.cs", ("c-sharp", "cs")),
        ("F#", "fs", "a.fs", ("f-sharp", "fs")),
        ("C++", "hpp", "a.hpp", ("c++", "hpp")),
        ("Protocol Buffer", "proto", "a.proto", ("protocol-buffer", "proto")),
        ("reStructuredText", "rst", "a.rst", ("restructuredtext", "rst")),
        ("Dockerfile", None, "Dockerfile", ("dockerfile", "")),
        ("Java Server Pages", "jsp", "a.jsp", ("java-server-pages", "jsp")),
        ("Jupyter Notebook", "ipynb", "a.ipynb", ("", "ipynb")),
        ("Perl", "ph", "a.ph", ("", "ph")),  # left out by hand in the paper
        ("Brainfuck", "b", "a.b", ("", "b")),
        ("TypeScript", ".TSX", "a.tsx", ("typescript", "tsx")),
        (None, None, "src/a.rs", ("rust", "rs")),
        (None, None, "src/a.unknown", ("", "unknown")),
    ],
)
def test_languages(tmp_path: Path, lang: str | None, ext: str | None, path: str, expected: tuple[str, str]) -> None:
    document = one(tmp_path, {**ROWS[0], "lang": lang, "ext": ext, "max_stars_repo_path": path}).document
    assert (document.language, document.extension) == expected


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["MIT"], "MIT"),
        (["MIT", "MIT", "ISC"], "MIT AND ISC"),
        (["MIT OR GPL-2.0-only", "ISC"], "(MIT OR GPL-2.0-only) AND ISC"),
        ([None, "MIT"], "MIT"),
        ([], ""),
        (None, ""),
    ],
)
def test_licences(tmp_path: Path, licenses: list[str | None] | None, expected: str) -> None:
    column = pa.array([licenses], pa.list_(pa.string()))
    table = pa.Table.from_pylist([ROWS[0]]).drop_columns("max_stars_repo_licenses")
    path = save(tmp_path / "a.parquet", table.append_column("max_stars_repo_licenses", column))
    [candidate] = found(Stack(str(path), "Apache-2.0"))
    assert candidate.license.expression == expected  # never that of the source: each row has its own


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("list_of", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
def test_licences_in_any_kind_of_list(tmp_path: Path, list_of: Callable[[pa.DataType], pa.DataType], text: Any) -> None:
    column = pa.array([["MIT", "ISC"], None, []], list_of(text))
    table = pa.Table.from_pylist([ROWS[0]] * 3).drop_columns("max_stars_repo_licenses")
    path = save(tmp_path / "a.parquet", table.append_column("max_stars_repo_licenses", column))
    assert [c.license.expression for c in found(Stack(str(path)))] == ["MIT AND ISC", "", ""]


def test_a_file_that_polars_writes(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    first, second = found(Stack(str(tmp_path / "a.parquet")))
    assert first.license.expression == "MIT AND Apache-2.0"
    assert (second.document.name, second.read and second.read()) == ("owner/two/b.h", "é".encode())


def test_other_data_sets(tmp_path: Path) -> None:
    starcoderdata = {name: ROWS[0][name] for name in ("max_stars_repo_path", "max_stars_repo_name", "content")}
    candidate = one(tmp_path, {**starcoderdata, "max_stars_count": 3.0, "id": "5"}, "LicenseRef-StarCoderData")
    assert (candidate.document.language, candidate.document.stars) == ("python", 3)
    assert candidate.license.expression == "LicenseRef-StarCoderData"
    assert one(tmp_path, starcoderdata).license.expression == ""
    second = {
        "repo_name": "owner/x",
        "path": "/a.go",
        "content": "package x",
        "detected_licenses": ["MIT"],
        "star_events_count": 1,
        "revision_id": "c",
        "language": "Go",
        "extension": "go",
    }
    candidate = one(tmp_path, second)
    assert (candidate.document.name, candidate.document.language) == ("owner/x//a.go", "go")
    assert (candidate.document.commit, candidate.license.expression) == ("c", "MIT")
    github = {"code": "x", "repo_name": "owner/x", "path": "a.py", "language": "Python", "license": "mit", "size": 1}
    assert judge_license(one(tmp_path, github).license.expression) == ("MIT",)


@pytest.mark.parametrize("changed", [{"content": None}, {"max_stars_repo_name": None}, {"max_stars_repo_path": ""}])
def test_rows_without_what_is_needed(tmp_path: Path, changed: dict[str, Any]) -> None:
    rows = [{**ROWS[0], **changed}, ROWS[1]]
    bad, good = found(Stack(str(save(tmp_path / "a.parquet", rows))))
    assert bad.document.rejection == Rejection("row without content, path or repository")
    assert good.document.rejection is None


@pytest.mark.parametrize("stars", [float("nan"), None, float("inf")])
def test_unknown_stars(tmp_path: Path, stars: float | None) -> None:
    assert one(tmp_path, {**ROWS[0], "max_stars_count": stars}).document.stars is None


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    column = pa.array([b"caf\xe9", b"ok"]).view(pa.string())
    table = pa.Table.from_pylist(ROWS)
    for name in ("content", "max_stars_repo_path"):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    candidates = found(Stack(str(save(tmp_path / "a.parquet", table))))
    assert [candidate.document.path for candidate in candidates] == ["caf\\xe9", "ok"]
    assert [candidate.read and candidate.read() for candidate in candidates] == [b"caf\xe9", b"ok"]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_other_types_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.Table.from_pylist(ROWS)
    at = table.schema.get_field_index("content")
    table = table.set_column(at, "content", table["content"].cast(kind))
    assert [c.read and c.read() for c in found(Stack(str(save(tmp_path / "a.parquet", table))))] == [
        b"x = 1\n",
        "é".encode(),
    ]


def test_bad_files_are_one_rejected_candidate_each(tmp_path: Path) -> None:
    good = save(tmp_path / "z.parquet", ROWS)
    (tmp_path / "a-empty.parquet").touch()
    (tmp_path / "b-truncated.parquet").write_bytes(good.read_bytes()[:-20])
    (tmp_path / "c-text.parquet").write_text("no parquet " * 100)
    save(tmp_path / "d-columns.parquet", [{"content": "x", "blob_id": "1"}])
    save(tmp_path / "e-type.parquet", [{**ROWS[0], "content": {"a": 1}, "max_stars_repo_path": "e"}])
    save(tmp_path / "f-no-rows.parquet", pa.Table.from_pylist(ROWS).slice(0, 0))
    candidates = found(Stack(str(tmp_path)))
    reasons = {c.document.path: c.document.rejection and c.document.rejection.reason for c in candidates}
    assert reasons == {
        **dict.fromkeys(
            ["a-empty.parquet", "b-truncated.parquet", "c-text.parquet"],
            "parquet file cannot be read",
        ),
        "d-columns.parquet": "parquet columns missing",
        "e": "row without content, path or repository",
        "src/a.py": None,
        "b.h": None,
    }
    missing = next(c.document.rejection for c in candidates if c.document.path == "d-columns.parquet")
    assert missing == Rejection("parquet columns missing", "repository, path")


def test_a_damaged_page_loses_only_what_follows(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "content": os.urandom(5000).hex(), "max_stars_repo_path": f"{n}.py"} for n in range(300)]
    path = save(tmp_path / "a.parquet", rows, row_group_size=100, compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    at = data.index(rows[250]["content"].encode())
    data[at] ^= 1
    path.write_bytes(bytes(data))
    *sound, last = found(Stack(str(path)))
    assert [c.document.path for c in sound] == [f"{n}.py" for n in range(len(sound))]
    assert len(sound) >= 200
    assert last.document.rejection
    assert last.document.rejection.reason == "parquet file cannot be read"
    assert last.document.rejection.detail.startswith(f"after row {len(sound)}: ")


def test_memory_is_that_of_a_batch(tmp_path: Path) -> None:
    """One row group of 200 MB of text, read in a few MB."""
    text = os.urandom(50_000).hex()
    table = pa.table(
        {
            "content": [f"{number} {text}" for number in range(2000)],
            "max_stars_repo_name": ["owner/x"] * 2000,
            "max_stars_repo_path": [f"{number}.py" for number in range(2000)],
            "max_stars_repo_licenses": [["MIT"]] * 2000,
        }
    )
    path = save(tmp_path / "a.parquet", table, use_dictionary=False, write_batch_size=16)  # pages of a MB
    del table
    script = (
        "import sys, pyarrow; from starcoder.corpus.sources.stack import Stack\n"
        "stack = Stack(sys.argv[1])\n"
        "print(sum(len(c.read()) for unit in stack.units() for c in stack.candidates(unit)))\n"
        "print(pyarrow.default_memory_pool().max_memory())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    total, most = map(int, done.stdout.split())
    assert total > 200_000_000
    assert most < 60_000_000


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = open_store("hf://datasets/bigcode/the-stack-dedup/data/python/")
    assert store.type_name == "py::fsspec+hf"
    assert path == "datasets/bigcode/the-stack-dedup/data/python"
    store, path = open_store("s3://bucket/the-stack/data?region=eu-west-1")
    assert (store.type_name, path) == ("s3", "bucket/the-stack/data")
    save(tmp_path / "data/a.parquet", ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("data", "~/data", f"file://{tmp_path}/data/", str(tmp_path / "data/a.parquet")):
        assert [unit.name for unit in Stack(place).units()] == ["a.parquet"]
        assert len(found(Stack(place))) == 2


def test_revisions(tmp_path: Path) -> None:
    path = save(tmp_path / "a.parquet", ROWS)
    seen = [Stack(str(path)).units(), Stack(str(path), "MIT").units()]
    os.utime(path, (1, 1))
    seen.append(Stack(str(path)).units())
    assert len({unit.revision for [unit] in seen}) == 3


@pytest.mark.parametrize("place", ["missing", "empty", "s4://bucket/x"])
def test_wrong_places(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot be read|no parquet files"):
        Stack(place if "://" in place else str(tmp_path / place)).units()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3 server on this machine."""
    server = pytest.importorskip("moto.server", reason="moto[server], an S3 server for tests, is not installed")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    process = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    process.start()
    yield "http://{}:{}".format(*process.get_host_and_port())
    process.stop()


def test_an_object_store(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3", reason="boto3, which writes to the object store, is not installed")
    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="bucket")
    path = save(tmp_path / "a.parquet", ROWS)
    (tmp_path / "b.parquet").write_bytes(path.read_bytes()[:-20])
    for name in ("a.parquet", "b.parquet"):
        client.upload_file(str(tmp_path / name), "bucket", f"the-stack/data/{name}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    local, remote = Stack(str(tmp_path)), Stack("s3://bucket/the-stack/data")
    assert [(unit.name, unit.size) for unit in remote.units()] == [(unit.name, unit.size) for unit in local.units()]
    assert [c.document.path for c in found(remote)] == ["src/a.py", "b.h", "b.parquet"]
    assert [c.read and c.read() for c in found(remote)] == [c.read and c.read() for c in found(local)]
    with pytest.raises(UserError, match="cannot be read"):
        Stack("s3://no-such-bucket/x").units()
