import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from starcoder.attribution.index import Index
from starcoder.attribution.manifest import FILE, Manifest
from starcoder.attribution.search.clients import API_KEY, PASSWORD, USER
from starcoder.attribution.search.cluster import ClusterSearch
from starcoder.corpus.document import shards, write_shard
from starcoder.playground.tracing import IndexTraces
from tests.attribution.corpora import file, files, function, write_corpus
from tests.attribution.search.stand_in import StandIn, another_server, stand_in
from tests.conftest import Command, starcoder, start
from tests.test_cli import assert_one_line

TRAIN = [*files("ann", 2, 4), file("bob/tool", "main.py", license="Apache-2.0"), *files("cat", 2, 4)]
COPIED = function("bob/tool/main.py/1")
TRACE = Path("build") / "trace"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials in the environment."""
    for name in (USER, PASSWORD, API_KEY):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["elasticsearch", "opensearch"])
def server(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    with stand_in(request.param) as server:
        yield server


@pytest.fixture
def elastic() -> Iterator[StandIn]:
    """For what does not depend on the client."""
    with stand_in("elasticsearch") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a corpus and a copy of some of it."""
    write_corpus(tmp_path / "corpus", TRAIN)
    (tmp_path / "copied.py").write_text(COPIED)
    return tmp_path


def index(server: StandIn, *options: str) -> list[str]:
    """The arguments that index the corpus on a cluster."""
    kind = ["--cluster.kind", "opensearch"] if server.product == "opensearch" else []
    return ["trace", "index", "corpus", "--cluster.url", server.url, *kind, "--cluster.index", "code", *options]


QUERY = ["trace", "query", "copied.py"]


def indexed(in_process: Command, folder: Path, server: StandIn, *options: str) -> str:
    result = in_process(folder, *index(server, *options))
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def held(server: StandIn) -> set[str]:
    """The repositories of which the cluster has documents."""
    return {each["repository"] for each in server.indices["code"]["documents"].values()}


def meta(server: StandIn) -> dict[str, Any]:
    return server.indices["code"]["mappings"]["_meta"]  # type: ignore[no-any-return]


def writes(server: StandIn) -> int:
    """How many requests have sent documents."""
    return sum(path.startswith("/_bulk") for _, path, _, _ in server.requests)


def test_a_text_is_traced_over_a_cluster(
    in_process: Command, server: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.login = ("ann", "hunter2")
    monkeypatch.setenv(USER, "ann")
    monkeypatch.setenv(PASSWORD, "hunter2")
    assert f"{len(TRAIN)} documents" in indexed(in_process, folder, server)
    assert len(server.indices["code"]["documents"]) == len(TRAIN)
    result = in_process(folder, *QUERY)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("VERBATIM AND RARE")
    assert "bob/tool at c0ffee (Apache-2.0): main.py" in result.stdout
    traces = IndexTraces(folder / TRACE)
    assert traces.trace(COPIED)["verdict"]["level"] == "verbatim"
    assert isinstance(Index.open(folder / TRACE).search, ClusterSearch)
    assert not (folder / TRACE / "search").exists()
    assert not any(b"hunter2" in path.read_bytes() for path in (folder / TRACE).rglob("*") if path.is_file())
    cluster = json.loads((folder / TRACE / FILE).read_text())["parameters"]["cluster"]
    assert (cluster["url"], cluster["kind"], cluster["index"]) == (server.url, server.product, "code")


def test_a_second_run_has_nothing_to_do(in_process: Command, elastic: StandIn, folder: Path) -> None:
    indexed(in_process, folder, elastic)
    before = writes(elastic)
    assert "nothing has changed" in indexed(in_process, folder, elastic)
    assert writes(elastic) == before


def test_only_what_changed_is_sent_again(in_process: Command, server: StandIn, folder: Path) -> None:
    indexed(in_process, folder, server)
    before = writes(server)
    write_shard(shards(folder / "corpus", "train")[1], [file("dan/new", f"{n}.py") for n in range(2)])
    assert_one_line(in_process(folder, *QUERY), "changed since it was indexed", f"--cluster.url {server.url}")
    indexed(in_process, folder, server)
    assert writes(server) == before + 1
    assert Manifest.read(folder / TRACE).made == 1
    assert held(server) == {"ann/lib0", "ann/lib1", "cat/lib0", "cat/lib1", "dan/new"}
    shutil.rmtree(folder / "corpus")
    write_corpus(folder / "corpus", TRAIN[:2], count=1)
    indexed(in_process, folder, server)
    assert held(server) == {"ann/lib0"}


def test_after_an_opt_out_the_cluster_holds_nothing_of_it(in_process: Command, server: StandIn, folder: Path) -> None:
    indexed(in_process, folder, server)
    (folder / "list.txt").write_text("bob\n")
    assert in_process(folder, "corpus", "opt-out", "list.txt", "--corpus", "corpus").returncode == 0
    assert_one_line(in_process(folder, *QUERY), "changed since it was indexed")
    indexed(in_process, folder, server)
    assert held(server) == {"ann/lib0", "ann/lib1", "cat/lib0", "cat/lib1"}
    assert server.indices["code"]["deleted"] == 0  # nor do its files
    result = in_process(folder, *QUERY)
    assert result.returncode == 0
    assert "bob" not in result.stdout
    assert "nothing has changed" in indexed(in_process, folder, server)


def test_a_run_that_was_killed_goes_on_where_it_was(in_process: Command, server: StandIn, tmp_path: Path) -> None:
    train = files("ann", 6, 5)
    write_corpus(tmp_path / "corpus", train, count=6)
    server.delay = 0.02
    with start(tmp_path, *index(server)) as process:
        deadline = time.monotonic() + 120
        while "code" not in server.indices or len(meta(server)["notes"].get("shards", ())) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    server.delay = 0
    left = 6 - len(meta(server)["notes"]["shards"])
    assert 0 < left <= 4
    (tmp_path / "copied.py").write_text(train[29].content)
    assert_one_line(in_process(tmp_path, *QUERY), "unfinished", f"--cluster.url {server.url}", "goes on where it was")
    before = writes(server)
    indexed(in_process, tmp_path, server)
    assert writes(server) == before + left
    assert len(server.indices["code"]["documents"]) == len(train)
    assert "ann/lib5" in in_process(tmp_path, *QUERY).stdout


def gone(server: StandIn) -> None:
    server.indices.clear()


def of_another_version(server: StandIn) -> None:
    meta(server)["notes"]["shards"]["1"] = "another"


@pytest.mark.parametrize(
    ("harm", "words"),
    [(gone, ["the index code of", "is not there"]), (of_another_version, ["of another version of the corpus"])],
)
def test_an_index_that_is_not_what_the_folder_says(
    in_process: Command, elastic: StandIn, folder: Path, harm: Any, words: list[str]
) -> None:
    indexed(in_process, folder, elastic)
    harm(elastic)
    told = in_process(folder, *QUERY)
    command = f"starcoder trace index corpus --output build/trace --cluster.url {elastic.url} --cluster.index code"
    assert_one_line(told, *words, f"run `{command}`")
    assert in_process(folder, *command.split()[1:]).returncode == 0
    assert "bob/tool" in in_process(folder, *QUERY).stdout


def test_an_index_that_changes_while_it_is_open(in_process: Command, elastic: StandIn, folder: Path) -> None:
    indexed(in_process, folder, elastic)
    traces = IndexTraces(folder / TRACE)
    assert traces.trace(COPIED)
    of_another_version(elastic)
    with pytest.raises(Exception, match="has changed since it was opened: start again"):
        traces.trace(COPIED)


def test_the_index_of_another_folder_is_left_alone(in_process: Command, elastic: StandIn, folder: Path) -> None:
    indexed(in_process, folder, elastic)
    documents = dict(elastic.indices["code"]["documents"])
    for options in ([], ["--fresh"]):
        told = in_process(folder, *index(elastic, "--output", "other", *options))
        assert_one_line(told, "the index code", "belongs to another folder", "--cluster.index")
    assert not (folder / "other" / FILE).exists()
    assert elastic.indices["code"]["documents"] == documents


def test_fresh_starts_over_on_the_cluster_too(in_process: Command, elastic: StandIn, folder: Path) -> None:
    indexed(in_process, folder, elastic)
    before = meta(elastic)["owner"]
    indexed(in_process, folder, elastic, "--fresh")
    assert meta(elastic)["owner"] != before
    assert len(elastic.indices["code"]["documents"]) == len(TRAIN)


def test_damaged_files_are_mended_without_sending_anything(in_process: Command, elastic: StandIn, folder: Path) -> None:
    indexed(in_process, folder, elastic)
    before = writes(elastic)
    shutil.rmtree(folder / TRACE / "membership")
    assert_one_line(in_process(folder, *QUERY), "membership", "is missing", "--cluster.index code")
    indexed(in_process, folder, elastic)
    assert writes(elastic) == before
    assert "bob/tool" in in_process(folder, *QUERY).stdout


def test_from_the_folder_to_a_cluster_and_back(in_process: Command, elastic: StandIn, folder: Path) -> None:
    assert in_process(folder, "trace", "index", "corpus").returncode == 0
    indexed(in_process, folder, elastic)
    assert not (folder / TRACE / "search").exists()
    back = in_process(folder, "trace", "index", "corpus")
    assert f"the index code of {elastic.url}, too, unless that is the same: remove it" in back.stdout
    before = len(elastic.requests)
    assert "bob/tool" in in_process(folder, *QUERY).stdout
    assert len(elastic.requests) == before


def refuses_credentials(server: StandIn) -> None:
    server.login = ("ann", "secret")


def forbids_all(server: StandIn) -> None:
    server.forbidden = {"GET", "POST", "PUT", "HEAD"}


CLUSTERS = [
    (refuses_credentials, ["does not know these credentials", USER, PASSWORD, API_KEY]),
    (forbids_all, ["does not allow this user", "index code"]),
]


@pytest.mark.parametrize(("harm", "words"), CLUSTERS)
def test_a_cluster_that_lets_nobody_in(
    in_process: Command, server: StandIn, folder: Path, harm: Any, words: list[str]
) -> None:
    harm(server)
    assert_one_line(in_process(folder, *index(server)), server.url, *words)
    assert not (folder / TRACE / FILE).exists()
    server.login, server.forbidden = None, set()
    indexed(in_process, folder, server)
    harm(server)
    for args in (QUERY, index(server)):
        assert_one_line(in_process(folder, *args), server.url, *words)
    server.login, server.forbidden = None, set()
    assert in_process(folder, *QUERY).returncode == 0


def test_a_user_who_may_only_read(in_process: Command, elastic: StandIn, folder: Path) -> None:
    elastic.forbidden = {"PUT"}
    assert_one_line(in_process(folder, *index(elastic)), "does not allow this user to do that with the index code")
    assert_one_line(in_process(folder, *QUERY), "unfinished")
    elastic.forbidden = set()
    indexed(in_process, folder, elastic)
    elastic.forbidden = {"PUT", "DELETE"}
    assert in_process(folder, *QUERY).returncode == 0


@pytest.mark.parametrize("kind", ["elasticsearch", "opensearch"])
def test_a_cluster_that_is_none(in_process: Command, folder: Path, kind: str) -> None:
    assert in_process(folder, "trace", "index", "corpus").returncode == 0
    command = ["trace", "index", "corpus", "--cluster.kind", kind, "--cluster.url"]
    with another_server(404, "text/html") as url:
        assert_one_line(in_process(folder, *command, url), url, "is not ", "check --cluster.url and --cluster.kind")
    assert_one_line(in_process(folder, *command, url), url, "cannot be reached", "check the address")
    assert_one_line(in_process(folder, *command, "localhost"), "localhost is no address of a cluster")
    assert "bob/tool" in in_process(folder, *QUERY).stdout  # the index that was there is still of use


def test_the_client_says_nothing_besides(folder: Path) -> None:
    """It logs what fails, with tracebacks, and pytest would keep them from the terminal."""
    command = ["trace", "index", "corpus", "--cluster.kind", "opensearch", "--cluster.url", "http://127.0.0.1:1"]
    assert_one_line(starcoder(folder, *command), "http://127.0.0.1:1 cannot be reached", "check the address")


def test_opensearch_is_not_taken_for_elasticsearch(in_process: Command, folder: Path) -> None:
    with stand_in("opensearch") as server:
        told = in_process(folder, "trace", "index", "corpus", "--cluster.url", server.url)
        assert_one_line(told, "is not Elasticsearch: check --cluster.url and --cluster.kind")
        assert server.indices == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cluster.kind", "opensearch"], ["no cluster", "--cluster.url"]),
        (["--cluster.kind", "solr"], ["cluster.kind", "'elasticsearch', 'opensearch'"]),
        (["--cluster.url", "http://127.0.0.1:1", "--cluster.index", "*"], ["'*' is no name of an index"]),
        (["--cluster.url", "http://127.0.0.1:1", "--cluster.timeout", "0"], ["cannot take 0 seconds"]),
        (["--cluster.url", "http://ann:hunter2@127.0.0.1:1"], ["holds a user or a password"]),
        (["--cluster.url", "https://127.0.0.1:1", "--cluster.ca_certs", "nowhere.pem"], ["127.0.0.1:1"]),
    ],
)
def test_options_that_are_none(in_process: Command, folder: Path, options: list[str], words: list[str]) -> None:
    told = in_process(folder, "trace", "index", "corpus", *options)
    assert_one_line(told, *words)
    assert "hunter2" not in told.stderr
    assert not (folder / TRACE / FILE).exists()


def test_the_help_names_where_credentials_come_from(in_process: Command, folder: Path) -> None:
    told = in_process(folder, "trace", "index", "--help")
    assert told.returncode == 0
    for name in (USER, PASSWORD, API_KEY, "--cluster.url", "--cluster.kind", "--cluster.ca_certs"):
        assert name in told.stdout
