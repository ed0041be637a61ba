import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from starcoder.attribution.corpus import Corpus
from starcoder.attribution.index import Index, index
from starcoder.attribution.manifest import FILE, Manifest
from starcoder.corpus.document import shards, write_shard
from starcoder.corpus.forget import forget
from starcoder.errors import UserError
from tests.attribution.corpora import file, files, function, write_corpus
from tests.conftest import start

TRAIN = [*files("ann", 2, 4), file("bob/tool", "main.py", license="Apache-2.0"), *files("cat", 2, 4)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and its index, which nobody changes."""
    folder = tmp_path_factory.mktemp("made")
    index(write_corpus(folder / "corpus", TRAIN), folder / "trace")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change; of the same corpus, in its new place."""
    shutil.copytree(made, tmp_path / "copy")
    index(tmp_path / "copy" / "corpus", tmp_path / "copy" / "trace")
    return tmp_path / "copy"


def repositories(folder: Path, text: str) -> set[str]:
    """Whom the search of an index names for a text."""
    return {hit.repository for hit in Index.open(folder).search.find(text, k=50)}


def test_an_index_tells_what_it_is_of(made: Path) -> None:
    opened = Index.open(made / "trace")
    manifest = json.loads((made / "trace" / FILE).read_text())
    corpus = Corpus.open(made / "corpus")
    assert manifest["corpus"] == str((made / "corpus").resolve())
    assert list(manifest["shards"]) == [path.name for path in corpus.shards]
    assert list(manifest["shards"].values()) == corpus.fingerprints
    assert manifest["complete"]
    assert manifest["made"] == len(corpus.shards)
    assert manifest["counts"]["documents"] == opened.search.count() == len(TRAIN)
    assert opened.membership.chains(function("bob/tool/main.py/1"))
    assert not opened.membership.chains(function("nobody"))


def test_a_second_run_has_nothing_to_do(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (made / "trace").rglob("*")}
    index(made / "corpus", made / "trace")
    assert "nothing has changed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (made / "trace").rglob("*")} == before


def remove_manifest(folder: Path) -> None:
    (folder / "trace" / FILE).unlink()


def cut_manifest(folder: Path) -> None:
    (folder / "trace" / FILE).write_text('{"kind": ')


def of_another_version(folder: Path) -> None:
    path = folder / "trace" / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def of_something_else(folder: Path) -> None:
    (folder / "trace" / FILE).write_text('{"name": "a web page", "icons": []}')


def unfinished(folder: Path) -> None:
    path = folder / "trace" / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"complete": False}))


def cut_a_file(folder: Path) -> None:
    path = max((folder / "trace" / "search").iterdir(), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


def remove_a_file(folder: Path) -> None:
    shutil.rmtree(folder / "trace" / "membership")


def change_a_shard(folder: Path) -> None:
    write_shard(shards(folder / "corpus", "train")[1], TRAIN[:3])


def remove_corpus(folder: Path) -> None:
    shutil.rmtree(folder / "corpus")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (remove_manifest, ["no index in", "starcoder trace index CORPUS"]),
        (cut_manifest, ["damaged"]),
        (of_another_version, ["another version", "starcoder trace index"]),
        (of_something_else, ["damaged"]),
        (unfinished, ["unfinished", "starcoder trace index"]),
        (cut_a_file, ["damaged", "search/", "starcoder trace index"]),
        (remove_a_file, ["damaged", "membership/", "is missing", "starcoder trace index"]),
        (change_a_shard, ["changed since it was indexed", "train-00001-of-00003.parquet", "starcoder trace index"]),
        (remove_corpus, ["the corpus of the index", "no corpus in"]),
    ],
)
def test_what_cannot_answer_says_so_in_a_line(copy: Path, harm: Callable[[Path], None], words: list[str]) -> None:
    harm(copy)
    with pytest.raises(UserError) as error:
        Index.open(copy / "trace")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def damaged_while_unfinished(folder: Path) -> None:
    cut_a_file(folder)
    unfinished(folder)


@pytest.mark.parametrize(
    "harm", [damaged_while_unfinished, remove_manifest, of_another_version, unfinished, cut_a_file, remove_a_file]
)
def test_the_same_command_mends_it(copy: Path, harm: Callable[[Path], None]) -> None:
    harm(copy)
    index(copy / "corpus", copy / "trace")
    assert repositories(copy / "trace", function("bob/tool/main.py/1")) >= {"bob/tool"}
    assert Index.open(copy / "trace").search.count() == len(TRAIN)


@pytest.mark.parametrize("harm", [cut_manifest, of_something_else])
def test_a_folder_that_is_not_known_for_an_index_is_spared(copy: Path, harm: Callable[[Path], None]) -> None:
    harm(copy)
    before = sorted((copy / "trace").rglob("*"))
    with pytest.raises(UserError, match="damaged"):
        index(copy / "corpus", copy / "trace", fresh=True)
    assert sorted((copy / "trace").rglob("*")) == before


def test_a_folder_of_something_else_is_spared(made: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds something else"):
        index(made / "corpus", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_only_what_changed_is_done_again(copy: Path) -> None:
    def parts() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (copy / "trace" / "parts").iterdir()}

    before = parts()
    gone, new = TRAIN[6:12], [file("dan/new", f"{n}.py") for n in range(2)]
    write_shard(shards(copy / "corpus", "train")[1], new)
    index(copy / "corpus", copy / "trace")
    after = parts()
    assert len(after) == 3
    assert len(before.items() & after.items()) == 2
    manifest = Manifest.read(copy / "trace")
    assert manifest.made == 1
    assert Index.open(copy / "trace").search.count() == len(TRAIN) - len(gone) + len(new)
    assert repositories(copy / "trace", new[0].content) >= {"dan/new"}
    assert Index.open(copy / "trace").membership.chains(new[0].content)
    assert "bob/tool" not in repositories(copy / "trace", function("bob/tool/main.py/1"))
    assert not Index.open(copy / "trace").membership.chains(function("bob/tool/main.py/1"))


def test_a_corpus_of_fewer_shards(copy: Path) -> None:
    shutil.rmtree(copy / "corpus")
    write_corpus(copy / "corpus", TRAIN[:4], count=1)
    with pytest.raises(UserError, match=r"changed since .*train-00000-of-00001\.parquet, .* and 2 more"):
        Index.open(copy / "trace")
    index(copy / "corpus", copy / "trace")
    assert Index.open(copy / "trace").search.count() == 4
    assert len(list((copy / "trace" / "parts").iterdir())) == 1


def test_after_an_opt_out_nothing_shows_the_repository(copy: Path, tmp_path: Path) -> None:
    text = function("bob/tool/main.py/1")
    held_open = Index.open(copy / "trace")
    held_open.check()
    (tmp_path / "opt-out.txt").write_text("bob/tool\n")
    forget(tmp_path / "opt-out.txt", copy / "corpus")
    with pytest.raises(UserError, match="changed since it was indexed"):
        Index.open(copy / "trace")
    with pytest.raises(UserError, match="changed since it was indexed"):
        held_open.check()
    index(copy / "corpus", copy / "trace")
    with pytest.raises(UserError, match="start again"):
        held_open.check()
    opened = Index.open(copy / "trace")
    assert opened.manifest.opt_out
    assert "bob/tool" not in repositories(copy / "trace", text)
    assert not opened.membership.chains(text)
    assert opened.search.count() == len(TRAIN) - 1
    segments = json.loads((copy / "trace" / "search" / "meta.json").read_text())["segments"]
    assert not any(segment["deletes"] for segment in segments)  # nor is it left in the files


def test_an_index_of_other_parameters_keeps_the_parts(copy: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (copy / "trace" / "parts").iterdir()}
    index(copy / "corpus", copy / "trace", rate=1e-3)
    assert {path.name: path.stat().st_mtime_ns for path in (copy / "trace" / "parts").iterdir()} == before
    assert Index.open(copy / "trace").membership.rate == 1e-3


def parts_of(folder: Path) -> dict[str, int]:
    """The finished parts of an index, and when they were."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("parts/*") if path.suffix == ""}


def shards_of(folder: Path) -> set[str]:
    """The shards that its search engine has committed."""
    noted = folder / "search" / "search.json"
    return set(json.loads(noted.read_text())["notes"].get("shards", ())) if noted.is_file() else set()


def killed(corpus: Path, folder: Path, reached: Callable[[Path], bool]) -> None:
    """Index a corpus in another process, and kill that at some point."""
    with start(folder.parent, "trace", "index", str(corpus), "--output", str(folder)) as process:
        deadline = time.monotonic() + 120
        while not reached(folder):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_build_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    train = files("ann", 40, 15)
    corpus = write_corpus(tmp_path / "corpus", train, count=6)
    folder = tmp_path / "trace"
    killed(corpus, folder, lambda folder: len(parts_of(folder)) >= 2)
    with pytest.raises(UserError, match="unfinished"):
        Index.open(folder)
    parts = parts_of(folder)
    assert 2 <= len(parts) < 6
    killed(corpus, folder, lambda folder: len(shards_of(folder)) >= 2)
    with pytest.raises(UserError, match="unfinished"):
        Index.open(folder)
    assert parts.items() <= parts_of(folder).items()
    parts = parts_of(folder)
    assert len(parts) == 6
    left = 6 - len(shards_of(folder))
    assert 0 < left <= 4
    index(corpus, folder)
    opened = Index.open(folder)
    assert parts_of(folder) == parts
    assert opened.manifest.made == left
    assert opened.search.count() == len(train)
    for number in (0, 5, 311, 599):
        assert opened.search.find(train[number].content[100:700], k=1)[0].path == train[number].path
        assert opened.membership.chains(train[number].content)


def flipped(path: Path) -> None:
    """Change a byte in the middle of a file, and not its size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["windows.npz", "frequencies.npz", "counts.json"])
def test_a_damaged_part_is_not_built_upon(copy: Path, name: str) -> None:
    part = next((copy / "trace" / "parts").iterdir())
    flipped(part / name) if name != "counts.json" else (part / name).write_text("{" * (part / name).stat().st_size)
    with pytest.raises(UserError, match=f"{part.name} is damaged: run the same command again with --fresh"):
        index(copy / "corpus", copy / "trace", rate=1e-3)
    index(copy / "corpus", copy / "trace", rate=1e-3, fresh=True)
    assert Index.open(copy / "trace").membership.chains(function("bob/tool/main.py/1"))


def test_a_search_index_whose_bytes_are_damaged_is_made_anew(copy: Path) -> None:
    flipped(max((copy / "trace" / "search").iterdir(), key=lambda path: path.stat().st_size))
    with pytest.raises(UserError, match=r"the search index in .* is damaged"):
        _ = Index.open(copy / "trace").search
    index(copy / "corpus", copy / "trace")
    assert Manifest.read(copy / "trace").made == 3
    assert repositories(copy / "trace", function("bob/tool/main.py/1")) >= {"bob/tool"}


def test_a_note_of_the_search_index_that_is_damaged_makes_it_anew(copy: Path) -> None:
    noted = copy / "trace" / "search" / "search.json"
    noted.write_text("?" * noted.stat().st_size)
    index(copy / "corpus", copy / "trace", rate=1e-3)
    assert Manifest.read(copy / "trace").made == 3
    assert Index.open(copy / "trace").search.count() == len(TRAIN)


def test_what_the_membership_test_guarantees_is_measured_and_told(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(made / "corpus", tmp_path / "trace", rate=0.01)
    told = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"membership test: 0\.\d MB, took a share of 0\.\d+ of 200,000 random windows for known, made for 0\.01; "
        "finds every copy of at least 99 characters, white space squeezed",
        told,
    )
    assert 0.005 < Manifest.read(tmp_path / "trace").false_positives < 0.015


def test_one_run_at_a_time(copy: Path) -> None:
    import fcntl

    with (copy / "trace" / "trace.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run is at work"):
            index(copy / "corpus", copy / "trace")


def test_trigrams_are_an_option_that_remakes_search_alone(copy: Path) -> None:
    assert Index.open(copy / "trace").search.analyzers == ("tokens",)
    before = {path.name: path.stat().st_mtime_ns for path in (copy / "trace" / "parts").iterdir()}
    index(copy / "corpus", copy / "trace", trigrams=True)
    opened = Index.open(copy / "trace")
    assert opened.search.analyzers == ("tokens", "trigrams")
    assert opened.search.count() == len(TRAIN)
    assert {path.name: path.stat().st_mtime_ns for path in (copy / "trace" / "parts").iterdir()} == before
    unfinished(copy)
    with pytest.raises(UserError, match="--trigrams"):
        Index.open(copy / "trace")


@pytest.mark.parametrize("rate", [0.0, 2.0, float("nan")])
def test_a_rate_that_is_none_is_refused_before_anything_is_made(made: Path, tmp_path: Path, rate: float) -> None:
    with pytest.raises(UserError, match=f"--rate is {rate:g}: it is a share"):
        index(made / "corpus", tmp_path / "trace", rate=rate)
    assert not (tmp_path / "trace").exists()


def test_the_corpus_of_an_index_that_has_moved_is_asked_for(copy: Path) -> None:
    (copy / "corpus").rename(copy / "elsewhere")
    with pytest.raises(UserError, match="if it has moved, run `starcoder trace index CORPUS --output"):
        Index.open(copy / "trace")
    index(copy / "elsewhere", copy / "trace")
    assert Index.open(copy / "trace").manifest.made == 0
