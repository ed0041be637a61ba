import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from starcoder.attribution.corpus import Address
from starcoder.attribution.search.clients import API_KEY, PASSWORD, USER, Cluster, Kind, Missing
from starcoder.attribution.search.cluster import ClusterSearch
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError
from tests.attribution.search.documents import SHARDS, TEXTS, document
from tests.attribution.search.stand_in import COMPATIBLE, StandIn, another_server, stand_in

KINDS: tuple[Kind, ...] = ("elasticsearch", "opensearch")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def server(kind: Kind) -> Iterator[StandIn]:
    with stand_in(kind) as server:
        yield server


@pytest.fixture
def cluster(server: StandIn, kind: Kind) -> Cluster:
    return Cluster(server.url, kind, "code")


@pytest.fixture
def search(cluster: Cluster) -> Iterator[ClusterSearch]:
    with ClusterSearch.create(cluster) as search:
        for number, documents in enumerate(SHARDS):
            assert search.add(number, enumerate(documents)) == len(documents)
        search.commit()
        yield search


def paths(search: ClusterSearch, text: str = "return", **options: str) -> list[str]:
    return sorted(hit.path for hit in search.find(text, **options))  # type: ignore[arg-type]


def test_documents_are_found_filtered_and_read(search: ClusterSearch) -> None:
    assert search.count() == 4
    first = search.find(TEXTS["hash"][10:80], 1)[0]
    assert (first.address, first.repository, first.path) == (Address(0, 1), "bob/c", "hash.c")
    assert (first.language, first.licenses) == ("c", ("MIT", "Zlib"))
    assert paths(search, license="MIT") == ["hash.c", "sort.py"]
    assert paths(search, language="python", repository="group/sub/tool") == ["json.py"]
    assert search.texts([Address(1, 0), Address(0, 0)]) == [TEXTS["json"], TEXTS["sort"]]
    with pytest.raises(UserError, match=r"row 9 of shard 0 is not in the index code .* make it again"):
        search.texts([Address(0, 9)])


def test_the_index_is_the_papers(server: StandIn, search: ClusterSearch) -> None:
    index = server.indices["code"]
    settings = index["settings"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == (30, 0)
    (analyzer,) = settings["analysis"]["analyzer"].values()
    assert analyzer["filter"] == ["lowercase", "asciifolding"]
    assert settings["analysis"]["tokenizer"][analyzer["tokenizer"]] == {"type": "ngram", "min_gram": 3, "max_gram": 3}
    fields = index["mappings"]["properties"]
    assert fields["content"] == {"type": "text", "analyzer": "trigrams"}
    assert {name: fields[name]["type"] for name in ("language", "username", "license")} == dict.fromkeys(
        ("language", "username", "license"), "keyword"
    )
    assert fields["repository"]["store"]
    assert fields["path"]["store"]
    assert index["documents"]["1-0"]["username"] == "group"


def test_what_the_real_clients_send(server: StandIn, search: ClusterSearch, kind: Kind) -> None:
    search.find('a AND (b OR "c") NOT content:x* \udcff\x00')
    media = {path.split("?")[0]: headers["content-type"] for _, path, headers, text in server.requests if text}
    if kind == "elasticsearch":
        assert media.pop("/_bulk") == COMPATIBLE.format("x-ndjson")
        assert set(media.values()) == {COMPATIBLE.format("json")}
        assert {headers["accept"] for _, _, headers, _ in server.requests} == {COMPATIBLE.format("json")}
    else:
        assert set(media.values()) == {"application/json"}
    sent = json.loads(server.requests[-1][3])["query"]["bool"]["must"][0]["more_like_this"]
    assert sent["like"] == 'a AND (b OR "c") NOT content:x* ?\x00'
    assert (sent["min_term_freq"], sent["min_doc_freq"]) == (1, 1)


def test_adding_again_and_removing(search: ClusterSearch) -> None:
    search.add(0, [(0, document("other.py", "x", "return h"))])
    search.commit()
    assert paths(search) == ["json.py", "other.py"]
    search.remove_shard(1)
    search.commit()
    assert paths(search) == ["other.py"]


def test_opted_out_repositories_are_deleted(server: StandIn, search: ClusterSearch) -> None:
    assert search.remove_repositories(OptOut(frozenset({"ann", "group/sub"}))) == ["Ann/Lib", "group/sub/tool"]
    search.commit()
    assert {each["repository"] for each in server.indices["code"]["documents"].values()} == {"bob/c", "wheel"}
    assert search.remove_repositories(OptOut(frozenset({"ann"}))) == []


def test_documents_that_cannot_be_deleted_are_told(server: StandIn, search: ClusterSearch) -> None:
    server.stuck = ["0-1"]
    with pytest.raises(UserError, match=r"1 documents .* could not be deleted"):
        search.remove_repositories(OptOut(frozenset({"ann"})))


def test_a_busy_cluster_gets_its_documents_again(server: StandIn, search: ClusterSearch) -> None:
    server.busy = 1
    assert search.add(5, enumerate(SHARDS[0])) == 2
    assert search.count() == 6


def test_a_refused_document_is_told(server: StandIn, search: ClusterSearch) -> None:
    del server.indices["code"]["mappings"]["properties"]["username"]
    with pytest.raises(UserError, match="refused document 7-0: a field that the mapping lacks"):
        search.add(7, enumerate(SHARDS[0]))


def test_empty_and_impossible_queries(server: StandIn, search: ClusterSearch) -> None:
    before = len(server.requests)
    assert search.find(" \n") == []
    assert search.texts([]) == []
    assert len(server.requests) == before
    with pytest.raises(UserError, match="use one of trigrams"):
        search.find("x", analyzer="tokens")


def test_an_index_that_is_missing_or_of_another_mapping(server: StandIn, cluster: Cluster) -> None:
    with pytest.raises(UserError, match="has no index code: make it"):
        ClusterSearch.open(cluster)
    server.indices["code"] = {"mappings": {"properties": {}}, "documents": {}}
    with pytest.raises(UserError, match=r"code of .* has another mapping"):
        ClusterSearch.open(cluster)
    with pytest.raises(UserError, match="has an index code already"):
        ClusterSearch.create(cluster)


def log_in(monkeypatch: pytest.MonkeyPatch, user: str = "", password: str = "", api_key: str = "") -> None:
    """Put credentials into the environment."""
    for name, value in ((USER, user), (PASSWORD, password), (API_KEY, api_key)):
        monkeypatch.setenv(name, value)


def test_credentials(server: StandIn, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    server.login = ("ann", "secret")
    log_in(monkeypatch, "ann", "secret\n")
    with ClusterSearch.create(cluster):
        pass
    for wrong in ({}, {"user": "ann", "password": "hunter2"}):
        log_in(monkeypatch, **wrong)
        with pytest.raises(
            UserError, match=f"does not know these credentials: set {USER} and {PASSWORD}, or"
        ) as caught:
            ClusterSearch.open(cluster)
        assert "hunter2" not in f"{caught.value}{cluster!r}"


def test_api_keys(server: StandIn, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "aWQ6a2V5"
    log_in(monkeypatch, api_key="aWQ6a2V5")
    if cluster.kind == "elasticsearch":
        with ClusterSearch.create(cluster) as search:
            assert search.count() == 0
    else:
        with pytest.raises(UserError, match="OpenSearch knows no API keys"):
            ClusterSearch.create(cluster)


@pytest.mark.parametrize(
    ("login", "message"),
    [
        ({"password": "hunter2"}, f"{PASSWORD} is set without {USER}"),
        ({"user": "ann", "password": "hunter2", "api_key": "aWQ6a2V5"}, f"{API_KEY} is set besides {USER}"),
        ({"api_key": "clé hunter2"}, f"{API_KEY} holds characters that no key has"),
    ],
)
def test_credentials_that_are_none(login: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch, **login)
    with pytest.raises(UserError, match=message) as caught:
        ClusterSearch.open(Cluster("http://127.0.0.1:1"))
    assert "hunter2" not in str(caught.value)


def test_what_a_user_may_not_do(server: StandIn, cluster: Cluster) -> None:
    server.forbidden = {"PUT"}
    with pytest.raises(UserError, match="does not allow this user to do that with the index code: ask who runs it"):
        ClusterSearch.create(cluster)


def test_what_is_noted_is_kept(server: StandIn, cluster: Cluster, search: ClusterSearch) -> None:
    assert search.notes() == {}
    search.note({"shards": {"0": "a", "1": "b"}})
    search.note({"shards": {"1": "b"}})
    with ClusterSearch.open(cluster) as other:
        assert other.notes() == search.notes() == {"shards": {"1": "b"}}
        assert other.count() == 4
        other.note({})
    assert server.indices["code"]["mappings"]["dynamic"] == "strict"
    for act in (lambda: search.note({}), lambda: search.texts([Address(0, 0)])):
        with pytest.raises(UserError, match="has changed since it was opened: start again"):
            act()


def test_what_is_removed_may_be_kept_until_the_index_is(server: StandIn, search: ClusterSearch) -> None:
    assert not search.holds_removed()
    search.remove_shard(0)
    search.commit()
    assert search.holds_removed()
    search.remove()
    assert server.indices == {}


def test_the_index_of_somebody_else_is_left_alone(cluster: Cluster) -> None:
    ClusterSearch.create(cluster, "ann").close()
    with pytest.raises(UserError, match=r"belongs to another folder: name another with --cluster\.index"):
        ClusterSearch.open(cluster, "bob")


@pytest.mark.parametrize("name", ["*", "_all", "a,b", "Code", "", "-a", "a" * 201])
def test_names_that_are_no_index(kind: Kind, name: str) -> None:
    with pytest.raises(UserError, match="is no name of an index"):
        ClusterSearch.open(Cluster("http://127.0.0.1:1", kind, name))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_times_that_are_none(timeout: float) -> None:
    with pytest.raises(UserError, match="a request cannot take"):
        ClusterSearch.open(Cluster("http://127.0.0.1:1", timeout=timeout))


def test_a_cluster_that_does_not_answer(server: StandIn, cluster: Cluster, search: ClusterSearch) -> None:
    server.delay = 1
    with pytest.raises(UserError, match=r"did not answer in 0\.1 s"):
        ClusterSearch.open(replace(cluster, timeout=0.1))
    server.delay = 0
    server.broken = 2
    assert paths(search, "json") == ["json.py"]
    server.broken = 99
    with pytest.raises(UserError, match=r"refused: .*503"):
        search.find("json")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1", r"cannot be reached \(\[Errno 111\] Connection refused\): check the address"),
        ("localhost:9200", "is no address of a cluster"),
        ("http://[::1", "is no address of a cluster"),
        ("http://ann:hunter2@localhost:9200", "holds a user or a password"),
    ],
)
def test_addresses_without_a_cluster(kind: Kind, url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ClusterSearch.open(Cluster(url, kind))
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["starcoder", "another"])
def test_opensearch_is_not_elasticsearch(name: str) -> None:
    with stand_in("opensearch") as server:
        server.indices["starcoder"] = {"mappings": {}, "documents": {}}
        with pytest.raises(UserError, match=r"is not Elasticsearch: check --cluster\.url and --cluster\.kind"):
            ClusterSearch.open(Cluster(server.url, index=name))


@pytest.mark.parametrize(
    ("status", "media", "message"),
    [
        (200, "text/html", "is not {kind}: check --cluster.url"),
        (200, "application/json", "is not Elasticsearch|has another mapping"),
        (404, "text/html", "is not {kind}: check --cluster.url"),
        (404, "application/json", "is not {kind}: check --cluster.url"),
        (405, "text/html", "refused: .*405.*It works!"),
    ],
)
def test_other_servers_are_no_cluster(kind: Kind, status: int, media: str, message: str) -> None:
    name = {"elasticsearch": "Elasticsearch", "opensearch": "OpenSearch"}[kind]
    with another_server(status, media) as url, pytest.raises(UserError, match=message.format(kind=name)) as caught:
        ClusterSearch.open(Cluster(url, kind))
    assert not isinstance(caught.value, Missing)


def test_certificates(tmp_path: Path, kind: Kind) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 "
        f"-keyout {key} -out {certificate}",
        shell=True,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with stand_in(kind, context) as server:
        cluster = Cluster(server.url.replace("http:", "https:"), kind)
        with pytest.raises(UserError, match="has a certificate that is not trusted"):
            ClusterSearch.open(cluster)
        with ClusterSearch.create(replace(cluster, ca_certs=str(certificate))) as search:
            assert search.count() == 0
        with pytest.raises(UserError, match=r"cannot be made|not trusted"):
            ClusterSearch.open(replace(cluster, ca_certs=str(tmp_path / "nowhere.pem")))
