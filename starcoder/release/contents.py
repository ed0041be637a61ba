"""What a release holds, and what must never leave the machine with it (§9): looked at before anything is sent.

A release is made of few kinds of files. All else stays behind unless the user names it, and what looks like
credentials always does.
"""

import hashlib
import mmap
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path, PurePosixPath

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.release.folder import read_config, read_weights
from starcoder.release.licences import front_matter
from starcoder.storage import sha256

CARD = "README.md"
LEFT_OUT = (".git", ".cache", ".DS_Store", "__pycache__", ".ipynb_checkpoints", "*.partial")
"""Names of what no release is made of: it stays behind without a word."""
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.gguf")
TERMS = ("LICENSE*", "NOTICE*")
PARTS = (
    *("config.json", "generation_config.json", "model*.safetensors.index.json", "pytorch_model*.bin.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "chat_template.jinja", "golden.json", CARD, ".eval_results/*.yaml", ".gitattributes"),
    *TERMS,
)
"""What a release is made of besides its weights, at just these places."""
MORE = ("*.md", "*.txt", "*.py", "*.jsonl", "*.png", "*.jpg", "*.jpeg", "*.svg", "*.gif", "*.webp")
"""Texts, code, examples and pictures beside a model; a data set may have such a name, but is longer."""
LONG = 1_000_000
"""Bytes from which on one of `MORE` counts as data."""

_CREDENTIALS = re.compile(
    r"\.(env|envrc|netrc|npmrc|pypirc|htpasswd|git-credentials|gitconfig|ssh|aws|azure|gnupg|kube|docker)(\..*)?"
    r"|_netrc|kubeconfig|.*\.(env|pem|key|p12|pfx|jks|kdbx|ppk)"
    r"|(.*[\W_])?(tokens?|secrets?|passwords?|passwd|credentials?|(api|private|access)[\W_]?keys?|service[\W_]account"
    r"|id_(rsa|dsa|ecdsa|ed25519))([\W_].*)?",
    re.IGNORECASE,
)
"""A name of a file or folder."""
_SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|(?<![\w-])(hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,}|glpat-[\w-]{20,}|AKIA[0-9A-Z]{16}"
    rb"|AIza[\w-]{35}|GOCSPX-[\w-]{28}|sk-[\w-]{32,}|xox[abprs]-[\w-]{20,})(?![\w-])"
    rb"|(?i:secret_?access_?key)\W{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])"
)
_REPLACED = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|golden\.json")


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


@dataclass(frozen=True)
class Release:
    """A folder that was looked at.

    Args:
        folder: the folder.
        files: its files, by their path in the repository.
        refused: which of them must not be sent, and why.
    """

    folder: Path
    files: Mapping[str, File]
    refused: Mapping[str, str]


def release(folder: Path, include: Sequence[str] = (), token: str | None = None) -> Release:
    """Look at the release in `folder`.

    Args:
        folder: what `starcoder export` wrote.
        include: patterns of names or paths of files that it holds besides what releases are made of.
        token: a secret that may be in none of its files.

    Raises:
        UserError: when it is no model that loads here, with its tokenizer, or its card cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name what `starcoder export` wrote")
    config = read_config(folder)
    read_weights(folder, config)
    if (size := tokenizers.load(folder).vocab_size) > config.vocab_size:
        raise UserError(f"{folder} is no release: its tokenizer has {size} tokens, the model only {config.vocab_size}")
    if (folder / CARD).is_file():
        front_matter(folder / CARD)
    files = {
        path.relative_to(folder).as_posix(): File(path)
        for path in sorted(folder.rglob("*"))
        if (path.is_file() or path.is_symlink()) and not _is_left_out(path.relative_to(folder))
    }
    if lost := [name for name, file in files.items() if not file.path.is_file()]:
        raise UserError(f"{folder / lost[0]} is a link, but to no file: remove it")
    reasons = {name: _refusal(folder, name, file, include, token) for name, file in files.items()}
    return Release(folder, files, {name: reason for name, reason in reasons.items() if reason})


def is_weights(name: str) -> bool:
    """Whether a file in a repository is a part of what `starcoder.release.folder` reads as weights."""
    return _is_one_of(name, WEIGHTS) and not name.endswith(".gguf")


def is_replaced(name: str) -> bool:
    """Whether a file in a repository is one that new weights leave no place for: what loads them would read it, too."""
    return _REPLACED.fullmatch(name) is not None


def is_about_weights(name: str) -> bool:
    """Whether a file in a repository is, or is likely to tell about, one version of the weights."""
    at_root = "/" not in name and name.endswith((".safetensors", ".bin", ".gguf", ".index.json", CARD))
    return at_root or is_result(name)


def is_result(name: str) -> bool:
    """Whether a file in a repository holds results of an evaluation."""
    return name.startswith(".eval_results/")


def is_terms(name: str) -> bool:
    """Whether a file in a repository says under which licence it is."""
    return _is_one_of(name, TERMS)


def _refusal(folder: Path, name: str, file: File, include: Sequence[str], token: str | None) -> str | None:
    target, home = file.path.resolve(), folder.resolve()
    leaves = not target.is_relative_to(home)
    names = [*PurePosixPath(name).parts, *([target.name] if leaves else [])]
    if any(_CREDENTIALS.fullmatch(part) for part in names if not _is_one_of(part, PARTS)):
        return "looks like credentials"
    if leaves and not _is_cached(target, home):
        return "is a link that leads out of the folder"
    if not leaves and _is_left_out(target.relative_to(home)):
        return "is a link to what stays behind"
    known = _is_one_of(name, (*WEIGHTS, *PARTS))
    asked = any(fnmatch(name, pattern) or fnmatch(PurePosixPath(name).name, pattern) for pattern in include)
    small = file.size <= LONG
    passes = known or asked or (small and _matches(PurePosixPath(name).name, MORE))
    if (passes or small) and not _is_one_of(name, WEIGHTS) and _holds_secret(file, token):
        return "holds a secret"
    if not passes:
        return "is no part of a release, but a data set or a training state for all one knows (--include sends it)"
    return None


def _is_cached(target: Path, folder: Path) -> bool:
    """Whether `folder` is what the Hub's client has fetched, in which each file is a link to its content."""
    return folder.parent.name == "snapshots" and target.parent == folder.parents[1] / "blobs"


def _holds_secret(file: File, token: str | None) -> bool:
    if not file.size:
        return False
    with file.path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _SECRET.search(content) is not None or (bool(token) and content.find(str(token).encode()) >= 0)


def _is_left_out(path: Path) -> bool:
    return any(_matches(part, LEFT_OUT) for part in path.parts)


def _is_one_of(name: str, patterns: Iterable[str]) -> bool:
    """Whether a path in a repository has one of these forms, at the same depth."""
    path = PurePosixPath(name)
    return any(len(path.parts) == pattern.count("/") + 1 and path.match(pattern) for pattern in patterns)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name.lower(), pattern.lower()) for pattern in patterns)
