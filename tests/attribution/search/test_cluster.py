import json
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from starcoder.attribution.corpus import Address
from starcoder.attribution.search.clients import Cluster, Kind
from starcoder.attribution.search.cluster import ClusterSearch
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError
from tests.attribution.search.documents import SHARDS, TEXTS, document
from tests.attribution.search.stand_in import COMPATIBLE, StandIn, stand_in

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


def test_credentials(server: StandIn, cluster: Cluster) -> None:
    server.login = ("ann", "secret")
    with ClusterSearch.create(replace(cluster, user="ann", password="secret")):
        pass
    for wrong in (cluster, replace(cluster, user="ann", password="hunter2")):
        with pytest.raises(UserError, match="does not know these credentials") as caught:
            ClusterSearch.open(wrong)
        assert "hunter2" not in f"{caught.value}{wrong!r}"


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
        ("http://127.0.0.1:1", "cannot be reached .*: check the address"),
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


def test_opensearch_is_not_elasticsearch() -> None:
    with stand_in("opensearch") as server:
        server.indices["starcoder"] = {"mappings": {}, "documents": {}}
        with pytest.raises(UserError, match="is not Elasticsearch: if it is OpenSearch, say so"):
            ClusterSearch.open(Cluster(server.url))
        with pytest.raises(UserError, match="OpenSearch knows no API keys"):
            ClusterSearch.open(Cluster(server.url, "opensearch", api_key="k"))


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
