"""A stand-in for the Hugging Face Hub on this machine: its HTTP API for model repositories, from the outside in.

It shares no line with the kit or with the Hub's client. Whatever it is sent it checks by itself: the sha256 and the
size of every large file, the samples before an upload, the lines of a commit, the rights of whoever asks. Large files
go by signed addresses of another host (`localhost`), as on the Hub, to which no token may be sent.

    with Hub(folder) as hub:
        hub.users["hf_…"] = User("ada")
        hub.fail("POST", "/commit/", 503)      # the next such request
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

BLOCK = 1 << 16
LARGE = (".safetensors", ".gguf", ".bin", ".h5")
DATE = "2026-01-01T00:00:00.000Z"
ALWAYS = -1  # times


class RefusalError(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class DroppedError(Exception):
    """The connection ends here."""


@dataclass
class User:
    name: str
    organizations: tuple[str, ...] = ()
    role: str = "write"
    access: set[str] = field(default_factory=set)  # gated repositories of others that it may read

    def owns(self, repo: str) -> bool:
        return repo.split("/", maxsplit=1)[0] in (self.name, *self.organizations)


@dataclass(frozen=True)
class Blob:
    oid: str  # of git
    size: int
    sha256: str | None = None  # of a large file


@dataclass
class Commit:
    oid: str
    parent: str | None
    title: str
    files: dict[str, Blob]
    author: str = ""


@dataclass
class Repo:
    private: bool
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # full name: commit

    def commit(self, ref: str, title: str, files: dict[str, Blob], parent: str | None) -> str:
        content = json.dumps([parent, title, len(self.commits), sorted((p, b.oid) for p, b in files.items())])
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, files)
        self.refs[ref] = oid
        return oid

    def find(self, revision: str) -> Commit:
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return self.commits[self.refs[name]]
        if revision in self.commits:
            return self.commits[revision]
        raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@dataclass
class Fault:
    method: str
    path: re.Pattern[str]
    status: int
    message: str
    code: str
    times: int
    drop_after: int | None  # bytes of the request
    drop_answer: int | None  # bytes of the answer
    do: Callable[[], None] | None


class Hub:
    """The server, its content and its log; `part_size` is what files above it are sent in."""

    def __init__(self, folder: Path, part_size: int = 1 << 40, quota: int = 1 << 40) -> None:
        self.folder, self.part_size, self.quota = folder, part_size, quota
        self.users: dict[str, User] = {}
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str, int]] = []
        self.leaks: list[str] = []  # requests to another host that carried a token
        self.ignored: set[str] = set()  # files that a .gitignore names
        self.received = 0  # bytes of large files
        self.pause_at: int | None = None
        self.paused, self.resumed, self.lock = threading.Event(), threading.Event(), threading.RLock()
        for name in ("objects", "incoming"):
            (folder / name).mkdir(parents=True)
        hub = self

        class Bound(Handler):
            def __init__(self, *args: Any) -> None:
                self.hub = hub
                super().__init__(*args)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.endpoint, self.elsewhere = (f"http://{host}:{self.port}" for host in ("127.0.0.1", "localhost"))

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.resumed.set()
        self.server.shutdown()
        self.server.server_close()

    def fail(
        self,
        method: str,
        path: str,
        status: int = 500,
        message: str = "",
        code: str = "",
        times: int = 1,
        drop_after: int | None = None,
        drop_answer: int | None = None,
        do: Callable[[], None] | None = None,
    ) -> None:
        """Refuse, drop, or do something before, the next `times` requests in whose path `path` is found."""
        self.faults.append(Fault(method, re.compile(path), status, message, code, times, drop_after, drop_answer, do))

    def fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path.search(path):
                    fault.times -= 1
                    return fault
        return None

    def somebody_commits(
        self, repo: str, path: str = "notes.md", content: bytes = b"by somebody else\n", branch: str = "main"
    ) -> None:
        """A commit of another user."""
        found, ref = self.repos[repo], f"refs/heads/{branch}"
        head = found.commits[found.refs[ref]]
        found.commit(ref, "somebody else's", {**head.files, path: self.store(content)}, head.oid)

    def store(self, content: bytes) -> Blob:
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        (self.folder / "objects" / oid).write_bytes(content)
        return Blob(oid, len(content))

    def object(self, oid: str) -> Path:
        return self.folder / "objects" / oid

    def large(self) -> list[Path]:
        """The large files that have arrived whole."""
        return [path for path in (self.folder / "objects").iterdir() if len(path.name) == 64]

    def content(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The bytes of all files of a revision."""
        files = self.repos[repo].find(revision).files
        return {path: self.object(blob.sha256 or blob.oid).read_bytes() for path, blob in files.items()}

    def count(self, method: str, path: str) -> int:
        """Requests so far."""
        return sum(done == method and re.search(path, where) is not None for done, where, _ in self.log)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        self.url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(self.url.query).items()}
        self.unread, self.fault = True, self.hub.fault(self.command, self.url.path)
        try:
            if self.fault and self.fault.do:
                self.fault.do()
            elif self.fault and self.fault.drop_after is None and self.fault.drop_answer is None:
                raise RefusalError(self.fault.status, self.fault.message or "injected", self.fault.code)
            self._route()
        except RefusalError as refusal:
            for _ in self._body():
                pass
            headers = {"X-Error-Message": refusal.message, "Content-Type": "application/json"}
            headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
            self._answer(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)
        except (DroppedError, ConnectionError):
            self.hub.log.append((self.command, self.url.path, 0))
            self.close_connection = True

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.hub.log.append((self.command, self.url.path, status))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.drop_answer is not None:
            self.wfile.write(body[: self.fault.drop_answer])
            raise DroppedError
        self.wfile.write(body)

    def _json(self, content: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _body(self) -> Iterator[bytes]:
        """The request's body in blocks, of a known length or in chunks."""
        if not self.unread:
            return
        self.unread = False
        chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
        left, seen = int(self.headers.get("Content-Length", 0)), 0
        while True:
            if chunked and not left:
                left = int(self.rfile.readline(), 16)
                if not left:
                    self.rfile.readline()
            if not left:
                return
            block = self.rfile.read(min(left, BLOCK))
            if not block:
                raise DroppedError
            left, seen = left - len(block), seen + len(block)
            if chunked and not left:
                self.rfile.readline()
            yield block
            if self.fault and self.fault.drop_after is not None and seen > self.fault.drop_after:
                raise DroppedError

    def _read(self) -> bytes:
        return b"".join(self._body())

    def _read_json(self) -> Any:
        try:
            return json.loads(self._read())
        except ValueError:
            raise RefusalError(400, "the body is not JSON") from None

    # Who asks, and for what

    def _user(self) -> User | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        user = self.hub.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return user

    def _repo(self, name: str, writes: bool = False, reads_files: bool = False) -> Repo:
        user, repo = self._user(), self.hub.repos.get(name)
        owner = user is not None and user.owns(name)
        if repo is None or (repo.private and not owner):
            raise RefusalError(404, "Repository not found", "RepoNotFound")
        if writes and not (owner and user is not None and user.role == "write"):
            raise RefusalError(403, "Forbidden: pass a token with write access to this repository")
        if reads_files and repo.gated and not (owner or (user is not None and name in user.access)):
            raise RefusalError(403, f"Access to model {name} is restricted and you are not in the list", "GatedRepo")
        return repo

    def _route(self) -> None:
        path = self.url.path
        routes: list[tuple[str, str, Callable[..., None]]] = [
            ("GET", r"/api/whoami-v2", self._whoami),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", self._validate_yaml),
            ("PUT", r"/api/models/([^/]+/[^/]+)/settings", self._settings),
            ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", self._preupload),
            ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", self._commit),
            ("POST", r"/api/models/([^/]+/[^/]+)/paths-info/([^/]+)", self._paths_info),
            ("POST", r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", self._branch),
            ("POST", r"/api/models/([^/]+/[^/]+)/tag/([^/]+)", self._tag),
            ("GET", r"/api/models/([^/]+/[^/]+)/refs", self._refs),
            ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            ("GET", r"/api/models/([^/]+/[^/]+)/commits/([^/]+)", self._commits),
            ("GET", r"/api/models/([^/]+/[^/]+)/discussions", self._discussions),
            ("GET", r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", self._info),
            ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/verify", self._verify),
            ("PUT", r"/upload/(\w+)", self._upload),
            ("PUT", r"/upload/(\w+)/(\d+)", self._upload_part),
            ("POST", r"/complete/(\w+)", self._complete),
            ("HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
            ("GET", r"/cdn/(\w+)", self._cdn),
        ]
        for method, pattern, handle in routes:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                handle(*(part and unquote(part) for part in found.groups()))
                return
        raise RefusalError(404, f"no {self.command} {path}")

    def _whoami(self) -> None:
        user = self._user()
        if user is None:
            raise RefusalError(401, "Invalid username or password.")
        organizations = [{"name": name} for name in user.organizations]
        token = {"displayName": "a token", "role": user.role}
        self._json({"name": user.name, "type": "user", "orgs": organizations, "auth": {"accessToken": token}})

    # Repositories

    def _create(self) -> None:
        wish, user = self._read_json(), self._user()
        if user is None:
            raise RefusalError(401, "Invalid username or password.")
        name = f"{wish['organization'] or user.name}/{wish['name']}"
        if not user.owns(name) or user.role != "write":
            raise RefusalError(403, "You don't have the rights to create a model under this namespace")
        with self.hub.lock:
            if name in self.hub.repos:
                raise RefusalError(409, "You already created this model repo")
            repo = self.hub.repos[name] = Repo(wish.get("visibility", "public") == "private")
            attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)
            repo.commit(
                "refs/heads/main", "initial commit", {".gitattributes": self.hub.store(attributes.encode())}, None
            )
        self._json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _settings(self, name: str) -> None:
        wish, repo = self._read_json(), self._repo(name, writes=True)
        if unknown := wish.keys() - {"gated", "visibility"}:
            raise RefusalError(400, f"unknown settings {unknown}")
        repo.gated = wish.get("gated", repo.gated)
        repo.private = wish.get("visibility", "private" if repo.private else "public") == "private"
        self._json(wish)

    def _validate_yaml(self) -> None:
        content = self._read_json()["content"]
        front = re.match(r"---\n(.*?\n)---\n", content, re.DOTALL)
        if front is None:
            self._json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
            return
        try:
            if not isinstance(yaml.safe_load(front[1]), dict):
                raise ValueError("metadata must be a mapping")
        except (yaml.YAMLError, ValueError) as error:
            self._json({"errors": [{"message": str(error)}], "warnings": []}, 400)
            return
        self._json({"errors": [], "warnings": []})

    def _branch(self, name: str, branch: str) -> None:
        wish, repo = self._read_json(), self._repo(name, writes=True)
        if f"refs/heads/{branch}" in repo.refs:
            raise RefusalError(409, f"Reference {branch} already exists")
        repo.refs[f"refs/heads/{branch}"] = repo.find(wish.get("startingPoint", "main")).oid
        self._json({})

    def _tag(self, name: str, revision: str) -> None:
        wish, repo = self._read_json(), self._repo(name, writes=True)
        if f"refs/tags/{wish['tag']}" in repo.refs:
            raise RefusalError(409, f"Tag reference {wish['tag']} exists already")
        repo.refs[f"refs/tags/{wish['tag']}"] = repo.find(revision).oid
        self._json({})

    def _refs(self, name: str) -> None:
        kinds = {"heads": "branches", "tags": "tags", "pr": "pullRequests", "convert": "converts"}
        found: dict[str, list[dict[str, str]]] = {kind: [] for kind in kinds.values()}
        for ref, commit in self._repo(name).refs.items():
            _, kind, short = ref.split("/", 2)
            found[kinds[kind]].append({"name": short, "ref": ref, "targetCommit": commit})
        self._json(found)

    def _info(self, name: str, revision: str | None) -> None:
        repo = self._repo(name)
        commit = repo.find(revision or "main")
        siblings = [{"rfilename": path} for path in commit.files]
        self._json({"id": name, "sha": commit.oid, "private": repo.private, "gated": repo.gated, "siblings": siblings})

    def _entry(self, path: str, blob: Blob) -> dict[str, Any]:
        large = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.sha256 else {}
        return {"type": "file", "path": path, "size": blob.size, "oid": blob.oid, **large}

    def _tree(self, name: str, revision: str) -> None:
        if self.query.get("recursive", "false").lower() != "true":
            raise RefusalError(501, "only whole trees")
        commit = self._repo(name, reads_files=True).find(revision)
        self._json([self._entry(path, blob) for path, blob in sorted(commit.files.items())])

    def _commits(self, name: str, revision: str) -> None:
        """The history of a revision, the newest first."""
        repo = self._repo(name)
        commit: Commit | None = repo.find(revision)
        found = []
        while commit:
            found.append({"id": commit.oid, "title": commit.title, "message": "", "authors": [], "date": DATE})
            commit = repo.commits[commit.parent] if commit.parent else None
        self._json(found)

    def _discussions(self, name: str) -> None:
        """Pull requests; one a page, as a client must ask for the next."""
        repo, wish = self._repo(name), self.query
        if wish.get("type") != "pull_request" or wish.get("status") != "open":
            raise RefusalError(501, "only open pull requests")
        found = [
            {
                "num": int(ref.rpartition("/")[2]),
                "title": repo.commits[oid].title,
                "author": {"name": repo.commits[oid].author},
                "createdAt": DATE,
                "status": "open",
                "isPullRequest": True,
                "repo": {"name": name, "type": "model"},
            }
            for ref, oid in repo.refs.items()
            if ref.startswith("refs/pr/") and repo.commits[oid].author == wish.get("author")
        ]
        page = int(wish["p"])
        self._json({"discussions": found[page : page + 1], "start": page, "count": len(found)})

    def _paths_info(self, name: str, revision: str) -> None:
        paths = parse_qs(self._read().decode())["paths"]
        files = self._repo(name, reads_files=True).find(revision).files
        self._json([self._entry(path, files[path]) for path in paths if path in files])

    # Up

    def _preupload(self, name: str, revision: str) -> None:
        wish = self._read_json()
        repo = self._repo(name, writes="create_pr" not in self.query)
        files, answers = repo.find(revision).files, []
        for file in wish["files"]:
            if len(base64.b64decode(file["sample"], validate=True)) != min(512, file["size"]):
                raise RefusalError(400, f"the sample of {file['path']} is not its first 512 bytes")
            large = file["path"].endswith(LARGE) or file["size"] > 10 << 20
            there = files.get(file["path"])
            known = {"oid": there.sha256 or there.oid} if there else {}
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": file["path"] in self.hub.ignored,
                    **known,
                }
            )
        self._json({"files": answers})

    def _batch(self, name: str) -> None:
        wish = self._read_json()
        self._repo(name, writes="ref" in wish)
        if wish["operation"] != "upload" or wish["hash_algo"] != "sha256" or "basic" not in wish["transfers"]:
            raise RefusalError(422, "not an upload of sha256 objects")
        if "application/vnd.git-lfs+json" not in self.headers["Accept"]:
            raise RefusalError(406, "not the LFS content type")
        self._json({"transfer": "basic", "objects": [self._instructions(name, item) for item in wish["objects"]]})

    def _instructions(self, name: str, item: dict[str, Any]) -> dict[str, Any]:
        oid, size = item["oid"], item["size"]
        if not re.fullmatch(r"[0-9a-f]{64}", oid) or size <= 0:
            raise RefusalError(422, f"{oid} is no sha256, or {size} no size")
        if self.hub.object(oid).exists():
            return {"oid": oid, "size": size}
        used = sum(file.stat().st_size for file in (self.hub.folder / "objects").iterdir())
        if used + size > self.hub.quota:
            return {
                "oid": oid,
                "size": size,
                "error": {"code": 403, "message": "Private repository storage limit reached"},
            }
        (self.hub.folder / "incoming" / f"{oid}.size").write_text(str(size))
        signature = "?X-Amz-Signature=never-show-this"
        upload: dict[str, Any] = {"href": f"{self.hub.elsewhere}/upload/{oid}{signature}"}
        if size > self.hub.part_size:
            parts = -(-size // self.hub.part_size)
            urls = {str(n): f"{self.hub.elsewhere}/upload/{oid}/{n}{signature}" for n in range(1, parts + 1)}
            upload = {
                "href": f"{self.hub.endpoint}/complete/{oid}{signature}",
                "header": {"chunk_size": str(self.hub.part_size), **urls},
            }
        verify = {"href": f"{self.hub.endpoint}/{name}.git/info/lfs/verify"}
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}}

    def _receive(self, oid: str, file: Path) -> None:
        self._signed()
        if not (self.hub.folder / "incoming" / f"{oid}.size").exists():
            raise RefusalError(403, "nobody has asked for this upload")
        with file.open("wb") as target:
            for block in self._body():
                target.write(block)
                with self.hub.lock:
                    self.hub.received += len(block)
                if self.hub.pause_at is not None and self.hub.received >= self.hub.pause_at:
                    self.hub.paused.set()
                    self.hub.resumed.wait()
                    raise DroppedError

    def _signed(self) -> None:
        if "Authorization" in self.headers:
            self.hub.leaks.append(f"{self.command} {self.path}")
        if self.query.get("X-Amz-Signature") != "never-show-this":
            raise RefusalError(403, "not signed")

    def _accept(self, oid: str, file: Path) -> None:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        size = int((self.hub.folder / "incoming" / f"{oid}.size").read_text())
        if digest != oid or file.stat().st_size != size:
            raise RefusalError(400, f"{oid} of {size} bytes was announced, {digest} of {file.stat().st_size} came")
        file.replace(self.hub.object(oid))

    def _upload(self, oid: str) -> None:
        file = self.hub.folder / "incoming" / f"{oid}.{threading.get_ident()}"
        self._receive(oid, file)
        self._accept(oid, file)
        self._answer(200)

    def _upload_part(self, oid: str, number: str) -> None:
        file = self.hub.folder / "incoming" / f"{oid}.part{number}"
        self._receive(oid, file)
        self._answer(200, headers={"ETag": hashlib.sha256(file.read_bytes()).hexdigest()})

    def _complete(self, oid: str) -> None:
        wish = self._read_json()
        whole = self.hub.folder / "incoming" / f"{oid}.whole"
        if wish["oid"] != oid or [part["partNumber"] for part in wish["parts"]] != [*range(1, len(wish["parts"]) + 1)]:
            raise RefusalError(400, "not the parts of this object, in order")
        with whole.open("wb") as target:
            for part in wish["parts"]:
                content = (self.hub.folder / "incoming" / f"{oid}.part{part['partNumber']}").read_bytes()
                if hashlib.sha256(content).hexdigest() != part["etag"]:
                    raise RefusalError(400, f"wrong etag of part {part['partNumber']}")
                target.write(content)
        self._accept(oid, whole)
        self._json({"success": True})

    def _verify(self, name: str) -> None:
        wish, file = self._read_json(), None
        self._user()
        file = self.hub.object(wish["oid"])
        if not file.exists() or file.stat().st_size != wish["size"]:
            raise RefusalError(422, f"{wish['oid']} of {wish['size']} bytes is not here")
        self._json({})

    def _commit(self, name: str, revision: str) -> None:
        if self.headers["Content-Type"] != "application/x-ndjson":
            raise RefusalError(415, "a commit is NDJSON")
        lines = [json.loads(line) for line in self._read().splitlines()]
        opens_pr = "create_pr" in self.query
        repo = self._repo(name, writes=not opens_pr)
        with self.hub.lock:
            head = repo.find(revision)
            if not lines or lines[0]["key"] != "header" or not lines[0]["value"].get("summary"):
                raise RefusalError(400, "the first line is no header with a summary")
            if lines[0]["value"].get("parentCommit", head.oid) != head.oid:
                raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            for line in lines[1:]:
                self._apply(line["key"], line["value"], files)
            if files == head.files:
                raise RefusalError(400, "nothing changes")
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
            ref = f"refs/pr/{number}" if opens_pr else revision if revision in repo.refs else f"refs/heads/{revision}"
            if ref not in repo.refs and not opens_pr:
                raise RefusalError(400, f"{revision} is no branch")
            oid = repo.commit(ref, lines[0]["value"]["summary"], files, head.oid)
            user = self._user()
            repo.commits[oid].author = user.name if user else ""
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}"}
        self._json(
            answer | ({"pullRequestUrl": f"{self.hub.endpoint}/{name}/discussions/{number}"} if opens_pr else {})
        )

    def _apply(self, key: str, value: dict[str, Any], files: dict[str, Blob]) -> None:
        path = value["path"]
        if not path or path.startswith("/") or {"..", ".git"} & set(path.split("/")):
            raise RefusalError(400, f"{path!r} is no path")
        if key == "file" and value["encoding"] == "base64":
            content = base64.b64decode(value["content"], validate=True)
            if path.endswith(LARGE) or len(content) > 10 << 20:
                raise RefusalError(400, f"{path} must be a large file")
            files[path] = self.hub.store(content)
        elif key == "lfsFile" and value["algo"] == "sha256":
            stored = self.hub.object(value["oid"])
            if not stored.exists() or stored.stat().st_size != value["size"]:
                raise RefusalError(400, f"the large file {path} was never uploaded")
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {value['size']}\n"
            git = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer.encode()).hexdigest()
            files[path] = Blob(git, value["size"], value["oid"])
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise RefusalError(404, f"{path} is not there to be deleted", "EntryNotFound")
        else:
            raise RefusalError(400, f"no operation {key}")

    # Down

    def _resolve(self, name: str, revision: str, path: str) -> None:
        commit = self._repo(name, reads_files=True).find(revision)
        blob = commit.files.get(path)
        if blob is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        if blob.sha256 is None:
            self._answer(200, self.hub.object(blob.oid).read_bytes(), headers)
            return
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        where = f"{self.hub.elsewhere}/cdn/{blob.sha256}?file={quote(path)}&X-Amz-Signature=never-show-this"
        self._answer(302, headers=headers | {"Location": where})

    def _cdn(self, oid: str) -> None:
        self._signed()
        content = self.hub.object(oid).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, content, {"ETag": f'"{oid}"'})
            return
        start = int(wanted[1])
        self._answer(206, content[start:], {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
