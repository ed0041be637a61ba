"""What a release holds, and what must never leave the machine with it (§9): looked at before anything is sent."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open

from starcoder.errors import UserError
from starcoder.release.folder import read_config
from starcoder.storage import sha256

LEFT_OUT = (".git", ".cache", ".DS_Store", "__pycache__", ".ipynb_checkpoints", "*.partial")
"""Names of what no release is made of: it stays behind without a word."""
CREDENTIALS = (
    *(
        ".env",
        ".env.*",
        "*.env",
        ".netrc",
        "_netrc",
        ".npmrc",
        ".pypirc",
        ".git-credentials",
        ".htpasswd",
        ".gitconfig",
    ),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.kdbx", "*.ppk"),
    *("token", "token.*", "*.token", "tokens", "tokens.*", "*_token", "*_token.txt", "stored_tokens", "credentials*"),
    *("secret", "secrets", "secret.*", "secrets.*", "password*", "kubeconfig", ".ssh", ".aws", ".gnupg", ".kube"),
)
DATA = ("*.parquet", "*.arrow", "*.feather", "*.orc", "*.tar", "*.tar.*", "*.tgz", "*.zip", "*.7z", "chunk-*.bin")
"""Corpora, archives of them, and the token shards of this kit."""
LONG_DATA = ("*.jsonl", "*.jsonl.*", "*.ndjson", "*.csv", "*.tsv", "*.txt.gz")
"""Examples beside a model may have this form; a data set is longer."""
STATE = ("*.ckpt", "*.distcp", "*.pt", "*.pth", "*.pkl")
LONG = 1_000_000
READ = 5_000_000
"""Bytes: from which on a table counts as data; up to which a file is searched for secrets."""
DERIVED = ("*.safetensors", "*.safetensors.index.json", "*.gguf", "golden.json")
"""What an older release would leave beside the new one's, to be read with it."""

_SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|(?<![\w-])(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,}|glpat-[\w-]{20,}|AKIA[0-9A-Z]{16}"
    rb"|sk-[\w-]{32,}|xox[abprs]-[\w-]{20,})(?![\w-])"
)


@dataclass(frozen=True)
class File:
    """A file of a release; its hashes are computed once."""

    path: Path

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """What names it in the Hub's large storage."""
        return sha256(self.path)

    @cached_property
    def git_oid(self) -> str:
        """What names it in a git repository."""
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def release(folder: Path) -> dict[str, File]:
    """The files of the release in `folder`, by their path in the repository.

    Raises:
        UserError: when it is no model that loads: no config.json, or weights that are missing, damaged or incomplete.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name what `starcoder export` wrote")
    read_config(folder)
    files = {
        path.relative_to(folder).as_posix(): File(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _matches(path.relative_to(folder).parts, LEFT_OUT)
    }
    if problem := _weights_problem(folder, files):
        raise UserError(f"{folder} is no release: {problem}")
    return files


def refusals(files: Mapping[str, File], token: str | None = None) -> dict[str, str]:
    """Which of `files` must not be sent, and why; `token` is a secret that may be in none of them."""
    reasons = {name: _refusal(name, file, token) for name, file in files.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def is_derived(name: str) -> bool:
    """Whether a file in a repository belongs to one version of the weights."""
    return "/" not in name and _matches((name,), DERIVED)


def _weights_problem(folder: Path, files: Mapping[str, File]) -> str | None:
    weights = [file.path for name, file in files.items() if "/" not in name and name.endswith(".safetensors")]
    if not weights:
        return "there are no *.safetensors weights"
    for path in weights:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            return f"{path.name} is damaged ({error})"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{index.name} is no index of weights"
        if missing := sorted(named - files.keys()):
            return f"{', '.join(missing)} is missing, which {index.name} names"
    return None


def _refusal(name: str, file: File, token: str | None) -> str | None:
    names = (*Path(name).parts, file.path.resolve().name)  # a link is judged by what it leads to, too
    if _matches(names, CREDENTIALS):
        return "looks like credentials"
    if _matches(names, DATA) or (_matches(names, LONG_DATA) and file.size > LONG):
        return "is a data set"
    if _matches(names, STATE):
        return "is a training state"
    if file.size <= READ:
        content = file.path.read_bytes()
        if _SECRET.search(content) or (token and token.encode() in content):
            return "holds a secret"
    return None


def _matches(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatch(name.lower(), pattern) for name in names for pattern in patterns)
