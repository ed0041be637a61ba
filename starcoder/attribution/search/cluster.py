"""The engine on a cluster: Elasticsearch or OpenSearch, with the mapping of the paper's index (§8).

That had 30 shards without replicas and BM25 over character 3-grams in lower case and ASCII, of the text as it is: white
space counts. Ours adds what its pages lack, keywords to delete a repository and to trace a document to its place.

The queries are `more_like_this`: the cluster itself chooses the terms, by frequency here and rarity there, so that a
snippet of any length is one short query. Nothing of it goes through a query parser.

A cluster knows no transactions: what is added is seen bit by bit, at the latest after `commit`. When adding a shard
fails, add it again; that leaves no document twice. Whose an index is, and what is noted about it, is in `_meta` of its
mapping: the index of somebody else is neither read nor written nor removed.

Tested against a stand-in that speaks the REST protocol with the real clients; no cluster has been seen.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from starcoder.attribution.corpus import Address
from starcoder.attribution.search.base import Analyzer, Hit, Search
from starcoder.attribution.search.clients import Cluster, connect, send, told
from starcoder.corpus.document import Document
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError

FORMAT = 2
_TERMS = 128
_PAGE = 1000
_KEYWORD = {"type": "keyword"}
MAPPINGS: dict[str, Any] = {
    "dynamic": "strict",
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
        owner: Whose it is: a name that nobody else has.

    Raises:
        Missing: It has no such index.
        UserError: It cannot be reached or used, or its index is of another mapping or of somebody else.
    """

    analyzers = ("trigrams",)

    def __init__(self, cluster: Cluster, owner: str = "") -> None:
        self.cluster = cluster
        self._client = connect(cluster)
        self._meta = self._read_meta()
        if self._meta.get("starcoder_search") != FORMAT:
            raise UserError(f"{cluster} has another mapping: name another, or remove it")
        if self._meta.get("owner") != owner:
            raise UserError(f"{cluster} belongs to another folder: name another with --cluster.index, or remove it")

    @classmethod
    def create(cls, cluster: Cluster, owner: str = "", shards: int = 30, replicas: int = 0) -> Self:
        """Make an empty index, of as many shards and copies of them as the paper's.

        Raises:
            UserError: There is one of this name, or see above.
        """
        client = connect(cluster)
        settings = {"number_of_shards": shards, "number_of_replicas": replicas, "analysis": _ANALYSIS}
        with told(cluster):
            if client.indices.exists(index=cluster.index):
                raise UserError(f"{cluster.url} has an index {cluster.index} already: name another, or remove it")
            mappings = MAPPINGS | {"_meta": {"starcoder_search": FORMAT, "owner": owner, "notes": {}}}
            client.indices.create(index=cluster.index, body={"settings": settings, "mappings": mappings})
        client.close()
        return cls(cluster, owner)

    @classmethod
    def open(cls, cluster: Cluster, owner: str = "") -> Self:
        """Open an index, see above."""
        return cls(cluster, owner)

    def remove(self) -> None:
        """Remove the index from the cluster, and let go of it."""
        with told(self.cluster):
            self._client.indices.delete(index=self.cluster.index)
        self.close()

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

    def notes(self) -> dict[str, Any]:
        """See `Search`."""
        return dict(self._meta["notes"])

    def note(self, notes: Mapping[str, Any]) -> None:
        """See `Search`."""
        self._check_current()
        meta = self._meta | {"notes": dict(notes)}
        with told(self.cluster):
            self._client.indices.put_mapping(index=self.cluster.index, body={"_meta": meta})
        self._meta = meta

    def holds_removed(self) -> bool:
        """See `Search`."""
        with told(self.cluster):
            answer = self._client.indices.stats(index=self.cluster.index, metric="docs")
        return bool(answer["_all"]["primaries"]["docs"]["deleted"])

    def count(self) -> int:
        """See `Search`."""
        with told(self.cluster):
            return int(self._client.count(index=self.cluster.index)["count"])

    def texts(self, addresses: Sequence[Address]) -> list[str]:
        """See `Search`; not those of an index that another program has changed since it was opened."""
        if not addresses:
            return []
        self._check_current()
        ids = [_id(*address) for address in addresses]
        with told(self.cluster):
            answer = self._client.mget(index=self.cluster.index, body={"ids": ids}, _source_includes=["content"])
        for address, entry in zip(addresses, answer["docs"], strict=True):
            if not entry.get("found"):
                raise UserError(f"row {address.row} of shard {address.shard} is not in {self.cluster}: make it again")
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

    def _read_meta(self) -> dict[str, Any]:
        with told(self.cluster):
            found = list(self._client.indices.get_mapping(index=self.cluster.index).values())
        return dict(found[0].get("mappings", {}).get("_meta", {})) if len(found) == 1 else {}

    def _check_current(self) -> None:
        if self._read_meta() != self._meta:
            raise UserError(f"{self.cluster} has changed since it was opened: start again")

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
            raise UserError(f"{failed} documents in {self.cluster} could not be deleted: try again")

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
