"""The official clients of Elasticsearch and OpenSearch, and what goes wrong between them and a cluster in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal
from urllib.parse import urlsplit

from starcoder.errors import UserError, one_line

Kind = Literal["elasticsearch", "opensearch"]
_RETRIES = 5
_CHUNK = 500
_CHUNK_BYTES = 10 * 2**20
_UNTRUSTED = "has a certificate that is not trusted ({detail}): name the file of who signed it"
_MESSAGES = {
    "TlsError": _UNTRUSTED,
    "SSLError": _UNTRUSTED,
    "ConnectionTimeout": "did not answer in {timeout:g} s: try again, or allow more time",
    "ConnectionError": "cannot be reached ({detail}): check the address, and that the cluster runs",
    "AuthenticationException": "does not know these credentials: check user and password, or the API key",
    "AuthorizationException": "does not allow this user to do that with the index {index}: ask who runs it",
    "UnsupportedProductError": "is not Elasticsearch: if it is OpenSearch, say so",
    "NotFoundError": "has no index {index}: make it with `starcoder trace index`",
}
"""What the errors of the clients mean, by the names of their classes: the first that fits, special ones first."""


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is, and how to get in.

    Attributes:
        url: With scheme and port, such as https://search.example.org:9200.
        kind: What it runs.
        index: Name of the index there.
        user: Name to log in with; none for no name.
        password: Of that user.
        api_key: Instead of user and password, Elasticsearch only.
        ca_certs: File of the certificates that sign the cluster's, where the system does not know them.
        timeout: Seconds that one request may take.
    """

    url: str
    kind: Kind = "elasticsearch"
    index: str = "starcoder"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    timeout: float = 30.0


def connect(cluster: Cluster) -> Any:
    """The client of a cluster; nothing is sent yet.

    Raises:
        UserError: It is not installed, or an address or a setting is not one.
    """
    _check_address(cluster.url)
    if cluster.api_key and cluster.kind == "opensearch":
        raise UserError("OpenSearch knows no API keys: name a user and a password")
    login = (cluster.user, cluster.password or "") if cluster.user else None
    options: dict[str, Any] = {"max_retries": _RETRIES, "retry_on_timeout": False}
    if cluster.ca_certs:
        options["ca_certs"] = cluster.ca_certs
    try:
        if cluster.kind == "opensearch":
            from opensearchpy import OpenSearch

            return OpenSearch(cluster.url, http_auth=login, timeout=cluster.timeout, **options)
        from elasticsearch import Elasticsearch

        options |= {"basic_auth": login, "api_key": cluster.api_key, "request_timeout": cluster.timeout}
        return Elasticsearch(cluster.url, **options)
    except ImportError:
        raise UserError(f"{cluster.kind} needs its client: pip install 'starcoder-kit[attribution-cluster]'") from None
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"the client of {cluster.url} cannot be made: {one_line(error)[:200]}") from None


def _check_address(url: str) -> None:
    try:
        address = urlsplit(url)
    except ValueError as error:
        raise UserError(f"{url} is no address of a cluster: {error}") from None
    if address.username or address.password:
        raise UserError(f"the address of {address.hostname} holds a user or a password: name them apart from it")
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"{url} is no address of a cluster: give scheme, host and port")


def send(cluster: Cluster, client: Any, actions: Iterable[dict[str, Any]]) -> int:
    """Send documents in requests of at most 10 MiB; what the cluster is too busy for is sent again, later and later.

    Returns:
        How many were taken.

    Raises:
        UserError: One was refused.
    """
    helpers: Any = import_module(f"{'opensearchpy' if cluster.kind == 'opensearch' else 'elasticsearch'}.helpers")
    count = 0
    for taken, answer in helpers.streaming_bulk(
        client,
        actions,
        chunk_size=_CHUNK,
        max_chunk_bytes=_CHUNK_BYTES,
        max_retries=_RETRIES,
        initial_backoff=1,
        max_backoff=30,
        raise_on_error=False,
    ):
        if not taken:
            (result,) = answer.values()
            reason = result.get("error", result.get("status"))
            reason = reason.get("reason", reason) if isinstance(reason, dict) else reason
            raise UserError(
                f"{cluster.url} refused document {result.get('_id')}: {' '.join(str(reason).split())[:200]}"
            )
        count += 1
    return count


@contextmanager
def told(cluster: Cluster) -> Iterator[None]:
    """Turn what a client raises into one line.

    Raises:
        UserError: Says what is wrong with the cluster, the network or the credentials.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        if not names & {"ApiError", "TransportError", "OpenSearchException"}:
            raise
        raise UserError(_explain(cluster, names, error)) from error


def _explain(cluster: Cluster, names: set[str], error: Exception) -> str:
    message = next((message for name, message in _MESSAGES.items() if name in names), "refused: {detail}")
    facts = {"index": cluster.index, "timeout": cluster.timeout, "detail": one_line(error)[:200]}
    return f"{cluster.url} {message.format(**facts)}"
