"""The official clients of Elasticsearch and OpenSearch, and what goes wrong between them and a cluster in one line."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal
from urllib.parse import urlsplit

from starcoder.errors import UserError, one_line

Kind = Literal["elasticsearch", "opensearch"]
USER, PASSWORD, API_KEY = (f"STARCODER_CLUSTER_{name}" for name in ("USER", "PASSWORD", "API_KEY"))
"""The environment variables that credentials are in; no file of ours ever holds any."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")  # neither a pattern nor a list, which would mean several indexes
_KEY = re.compile(r"[!-~]*")
_RETRIES = 5
_CHUNK = 500
_CHUNK_BYTES = 10 * 2**20
_UNTRUSTED = "has a certificate that is not trusted ({detail}): name the file of who signed it with --cluster.ca_certs"
_FOREIGN = "is not {kind}: check --cluster.url and --cluster.kind"
_MESSAGES = {
    "TlsError": _UNTRUSTED,
    "SSLError": _UNTRUSTED,
    "ConnectionTimeout": "did not answer in {timeout:g} s: try again, or allow more with --cluster.timeout",
    "ConnectionError": "cannot be reached ({detail}): check the address, and that the cluster runs",
    "AuthenticationException": f"does not know these credentials: set {USER} and {PASSWORD}, or {API_KEY}",
    "AuthorizationException": "does not allow this user to do that with the index {index}: ask who runs it",
    "UnsupportedProductError": _FOREIGN,
    "SerializationError": _FOREIGN,
    "NotFoundError": "has no index {index}: make it with `starcoder trace index`",
}
"""What the errors of the clients mean, by the names of their classes: the first that fits, special ones first."""


class Missing(UserError):  # noqa: N818  # what is missing can be made
    """There is no such index, or not what is wanted."""


@dataclass(frozen=True)
class Cluster:
    """An index on a cluster.

    Attributes:
        url: Address with scheme and port, such as https://search.example.org:9200; empty for no cluster.
        kind: What the cluster runs.
        index: Name of the index there.
        ca_certs: File of the certificates that sign the cluster's, where the system does not know them.
        timeout: Seconds that one request may take.
    """

    url: str = ""
    kind: Kind = "elasticsearch"
    index: str = "starcoder"
    ca_certs: str = ""
    timeout: float = 30.0

    def __str__(self) -> str:
        """As messages name it."""
        return f"the index {self.index} of {self.url}"


NOWHERE = Cluster()


def connect(cluster: Cluster) -> Any:
    """The client of a cluster; nothing is sent yet.

    Raises:
        UserError: It is not installed, or an address, a setting or a credential is not one.
    """
    _check(cluster)
    login, api_key = _credentials(cluster.kind)
    options: dict[str, Any] = {"max_retries": _RETRIES, "retry_on_timeout": False}
    if cluster.ca_certs:
        options["ca_certs"] = cluster.ca_certs
    try:
        if cluster.kind == "opensearch":
            from opensearchpy import OpenSearch

            return OpenSearch(cluster.url, http_auth=login, timeout=cluster.timeout, **options)
        from elasticsearch import Elasticsearch

        options |= {"basic_auth": login, "api_key": api_key, "request_timeout": cluster.timeout}
        return Elasticsearch(cluster.url, **options)
    except ImportError:
        raise UserError(f"{cluster.kind} needs its client: pip install 'starcoder-kit[attribution-cluster]'") from None
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"the client of {cluster.url} cannot be made: {one_line(error)[:200]}") from None


def _check(cluster: Cluster) -> None:
    try:
        address = urlsplit(cluster.url)
    except ValueError as error:
        raise UserError(f"{cluster.url} is no address of a cluster: {error}") from None
    if address.username or address.password:
        raise UserError(f"the address of {address.hostname} holds a user or a password: set {USER} and {PASSWORD}")
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"{cluster.url} is no address of a cluster: give scheme, host and port")
    if not _NAME.fullmatch(cluster.index):
        raise UserError(f"{cluster.index!r} is no name of an index: use small letters and digits, later . _ - too")
    if not 0 < cluster.timeout < float("inf"):
        raise UserError(f"a request cannot take {cluster.timeout:g} seconds: allow more than 0")


def _credentials(kind: Kind) -> tuple[tuple[str, str] | None, str | None]:
    """User and password, or the API key, that the environment holds."""
    user, password, key = (os.environ.get(name, "").strip("\r\n") for name in (USER, PASSWORD, API_KEY))
    wrong = {
        f"OpenSearch knows no API keys: set {USER} and {PASSWORD} instead of {API_KEY}": key and kind == "opensearch",
        f"{API_KEY} is set besides {USER} or {PASSWORD}: leave one of them out": key and (user or password),
        f"{PASSWORD} is set without {USER}: say whose it is": password and not user,
        f"{API_KEY} holds characters that no key has: set it to the key in base64": not _KEY.fullmatch(key),
    }
    for problem, holds in wrong.items():
        if holds:
            raise UserError(problem)
    return (user, password) if user else None, key or None


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
        raise _explained(cluster, names, error) from error


def _explained(cluster: Cluster, names: set[str], error: Any) -> UserError:
    missing = "NotFoundError" in names and _is_missing(cluster.kind, error)
    if "NotFoundError" in names and not missing:
        message = _FOREIGN
    else:
        message = next((message for name, message in _MESSAGES.items() if name in names), "refused: {detail}")
    facts = {
        "kind": {"elasticsearch": "Elasticsearch", "opensearch": "OpenSearch"}[cluster.kind],
        "index": cluster.index,
        "timeout": cluster.timeout,
        "detail": _cause(error),
    }
    return (Missing if missing else UserError)(f"{cluster.url} {message.format(**facts)}")


def _cause(error: Any) -> str:
    """What went wrong, in a few words: the system's own where a client wraps them in several layers of its own."""
    text = one_line(error)
    found = re.search(r"\[Errno -?\d+\] [\w ]+", text)
    return found[0] if found else text[:200]


def _is_missing(kind: Kind, error: Any) -> bool:
    """Whether a cluster of this kind says that it has no such index; any other server answers with 404, too."""
    product = error.meta.headers.get("x-elastic-product") if kind == "elasticsearch" else "Elasticsearch"
    return bool(error.error == "index_not_found_exception" and product == "Elasticsearch")
