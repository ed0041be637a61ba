"""The engine on a cluster: Elasticsearch or OpenSearch, with the mapping of the paper's index (§8).

That had 30 shards without replicas and BM25 over character 3-grams in lower case and ASCII, of the text as it is: white
space counts. Ours adds what its pages lack, keywords to delete a repository and to trace a document to its place.

The queries are `more_like_this`: the cluster itself chooses the terms, by frequency here and rarity there, so that a
snippet of any length is one short query. Nothing of it goes through a query parser.

A cluster knows no transactions: what is added is seen bit by bit, at the latest after `commit`. When adding a shard
fails, add it again; that leaves no document twice.

Tested against a stand-in that speaks the REST protocol with the real clients; no cluster has been seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

from starcoder.attribution.corpus import Address
from starcoder.attribution.search.base import Analyzer, Hit, Search
from starcoder.attribution.search.clients import Cluster, connect, send, told
from starcoder.corpus.document import Document
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError

FORMAT = 1
_TERMS = 128
_PAGE = 1000
_META = {"starcoder_search": FORMAT}
_KEYWORD = {"type": "keyword"}
MAPPINGS: dict[str, Any] = {
    "dynamic": "strict",
    "_meta": _META,
    "properties": {
        "content": {"type": "text", "analyzer": "trigrams"},
        "language": _KEYWORD,
        "username": _KEYWORD,
        "license": _KEYWORD,
        "repository": {"type": "keyword", "store": True},
        "path": {"type": "keyword", "store": True, "index": False, "doc_values": False},
        "shard": {"type": "integer"},
        "row": {"type": "integer", "index": False},
    },
}
_ANALYSIS = {
    "tokenizer": {"trigrams": {"type": "ngram", "min_gram": 3, "max_gram": 3}},
    "analyzer": {"trigrams": {"type": "custom", "tokenizer": "trigrams", "filter": ["lowercase", "asciifolding"]}},
}
_SHOWN = ["shard", "row", "repository", "path", "language", "license"]


class ClusterSearch(Search):
    """Search on a cluster.

    Args:
        cluster: Where it is.

    Raises:
        UserError: It cannot be reached or used, or has no such index, or one of another mapping.
    """

    analyzers = ("trigrams",)

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._client = connect(cluster)
        with told(cluster):
            found = self._client.indices.get_mapping(index=cluster.index).values()
        if [index.get("mappings", {}).get("_meta") for index in found] != [_META]:
            raise UserError(
                f"the index {cluster.index} of {cluster.url} has another mapping: name another, or remove it"
            )

    @classmethod
    def create(cls, cluster: Cluster, shards: int = 30, replicas: int = 0) -> Self:
        """Make an empty index, of as many shards and copies of them as the paper's.

        Raises:
            UserError: There is one of this name, or see above.
        """
        client = connect(cluster)
        settings = {"number_of_shards": shards, "number_of_replicas": replicas, "analysis": _ANALYSIS}
        with told(cluster):
            if client.indices.exists(index=cluster.index):
                raise UserError(f"{cluster.url} has an index {cluster.index} already: name another, or remove it")
            client.indices.create(index=cluster.index, body={"settings": settings, "mappings": MAPPINGS})
        client.close()
        return cls(cluster)

    @classmethod
    def open(cls, cluster: Cluster) -> Self:
        """Open an index, see above."""
        return cls(cluster)

    def add(self, shard: int, documents: Iterable[tuple[int, Document]]) -> int:
        """See `Search`."""
        self.remove_shard(shard)
        with told(self.cluster):
            return send(self.cluster, self._client, self._actions(shard, documents))

    def remove_shard(self, shard: int) -> None:
        """See `Search`; at once."""
        self._delete({"term": {"shard": shard}})

    def remove_repositories(self, opt_out: OptOut) -> list[str]:
        """See `Search`; at once."""
        self.commit()
        gone = sorted(name for name in self._repositories() if name in opt_out)
        for start in range(0, len(gone), _PAGE):
            self._delete({"terms": {"repository": gone[start : start + _PAGE]}})
        return gone

    def commit(self) -> None:
        """See `Search`: what was added and removed before is seen from here on."""
        with told(self.cluster):
            self._client.indices.refresh(index=self.cluster.index)

    def count(self) -> int:
        """See `Search`."""
        with told(self.cluster):
            return int(self._client.count(index=self.cluster.index)["count"])

    def texts(self, addresses: Sequence[Address]) -> list[str]:
        """See `Search`."""
        if not addresses:
            return []
        ids = [_id(*address) for address in addresses]
        with told(self.cluster):
            answer = self._client.mget(index=self.cluster.index, body={"ids": ids}, _source_includes=["content"])
        for address, entry in zip(addresses, answer["docs"], strict=True):
            if not entry.get("found"):
                where = f"the index {self.cluster.index} of {self.cluster.url}"
                raise UserError(f"row {address.row} of shard {address.shard} is not in {where}: make it again")
        return [str(entry["_source"]["content"]) for entry in answer["docs"]]

    def find(
        self,
        text: str,
        k: int = 10,
        language: str | None = None,
        license: str | None = None,
        repository: str | None = None,
        analyzer: Analyzer | None = None,
    ) -> list[Hit]:
        """See `Search`."""
        self.checked(analyzer, k)
        if not text.strip():
            return []
        like = {
            "fields": ["content"],
            "like": text.encode(errors="replace").decode(),
            "min_term_freq": 1,
            "min_doc_freq": 1,
            "max_query_terms": _TERMS,
            "minimum_should_match": "1",
        }
        wanted = {"language": language, "license": license, "repository": repository}
        filters = [{"term": {name: value}} for name, value in wanted.items() if value]
        body = {
            "size": k,
            "query": {"bool": {"must": [{"more_like_this": like}], "filter": filters}},
            "_source": _SHOWN,
        }
        with told(self.cluster):
            answer = self._search(body)
        return [_hit(entry) for entry in answer["hits"]["hits"]]

    def close(self) -> None:
        """See `Search`; everything sent is kept."""
        self._client.close()

    def _actions(self, shard: int, documents: Iterable[tuple[int, Document]]) -> Iterator[dict[str, Any]]:
        for row, document in documents:
            yield {
                "_op_type": "index",
                "_index": self.cluster.index,
                "_id": _id(shard, row),
                "content": document.content,
                "language": document.language,
                "username": document.repository.split("/")[0],
                "license": list(document.licenses),
                "repository": document.repository,
                "path": document.path,
                "shard": shard,
                "row": row,
            }

    def _search(self, body: dict[str, Any]) -> Any:
        """What all shards answer; the answer of some would be a wrong one."""
        return self._client.search(index=self.cluster.index, body=body, allow_partial_search_results=False)

    def _delete(self, query: dict[str, Any]) -> None:
        self.commit()
        with told(self.cluster):
            answer = self._client.delete_by_query(index=self.cluster.index, body={"query": query}, refresh=True)
        if failed := len(answer.get("failures", ())):
            where = f"the index {self.cluster.index} of {self.cluster.url}"
            raise UserError(f"{failed} documents in {where} could not be deleted: try again")

    def _repositories(self) -> Iterator[str]:
        """The names of all repositories, a page of them at a time."""
        source: dict[str, Any] = {"size": _PAGE, "sources": [{"name": {"terms": {"field": "repository"}}}]}
        while True:
            body = {"size": 0, "aggs": {"names": {"composite": source}}}
            with told(self.cluster):
                found = self._search(body)["aggregations"]["names"]
            yield from (bucket["key"]["name"] for bucket in found["buckets"])
            if "after_key" not in found:
                return
            source["after"] = found["after_key"]


def _id(shard: int, row: int) -> str:
    return f"{shard}-{row}"


def _hit(entry: dict[str, Any]) -> Hit:
    source = entry["_source"]
    address = Address(source["shard"], source["row"])
    return Hit(
        address, entry["_score"], source["repository"], source["path"], source["language"], tuple(source["license"])
    )
