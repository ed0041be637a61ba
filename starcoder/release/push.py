"""`starcoder push`: a release, or each checkpoint of a run, on the Hugging Face Hub (§9).

Every file is looked at before the first byte goes; what must not leave the machine stops everything.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import get_token

from starcoder.errors import UserError
from starcoder.release.contents import File, refusals, release
from starcoder.release.repository import Repository, client, size_of


def push(
    folder: Path | None = None,
    *,
    repo: str,
    run: Path | None = None,
    tokenizer: Path | None = None,
    branch: str = "main",
    tag: str | None = None,
    pr: bool = False,
    visibility: Literal["private", "public"] | None = None,
    gated: Literal["auto", "manual"] | None = None,
    message: str | None = None,
    dry_run: bool = False,
) -> None:
    """Put a release on the Hugging Face Hub; run it again after a failure, and it sends only what is missing.

    Args:
        folder: what `starcoder export` wrote.
        repo: `owner/name` on the Hub; it is created when it is missing.
        run: folder of checkpoints of a training run: each becomes a branch of its name, `step-…`.
        tokenizer: folder of the tokenizer that the run was trained with; only with `run`.
        branch: where the folder goes; it is created from main when it is missing.
        tag: name for the commit.
        pr: open a pull request instead of committing.
        visibility: private when a new repository is to be, and nothing is said; an existing one stays as it is.
        gated: whether people have to ask for the files, and whether that is granted automatically or by you.
        message: title of the commit.
        dry_run: list the files, their sizes and what would be refused; nothing is sent.

    Raises:
        UserError: for what is no release, for files that look like credentials or data, and for what the Hub refuses.
    """
    _check(folder, repo, run, tokenizer, pr and (branch != "main" or tag or visibility or gated or run))
    checkpoints = _checkpoints(run)
    files = _listed(folder) if folder else {}
    if dry_run:
        for checkpoint in checkpoints:
            print(f"{checkpoint} would be exported to the branch {checkpoint.name}")
        return
    if folder:
        _screen(folder, files)
    hub = Repository(repo)
    with client(repo):
        hub.open(visibility, gated, must_exist=pr)
        if folder:
            hub.put(files, branch, message or f"Release {folder.resolve().name}", tag, pr)
    for checkpoint in checkpoints:
        with _exported(checkpoint, tokenizer) as exported:
            found = release(exported)
            _screen(exported, found)
            with client(repo):
                hub.put(found, checkpoint.name, message or checkpoint.name, mirror=True)


def check_name(repo: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        UserError: when it has not the form `owner/name`.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
        raise UserError(f"{repo} is no repository: say whose it is and its name, OWNER/NAME")


def _check(folder: Path | None, repo: str, run: Path | None, tokenizer: Path | None, pr_and_more: object) -> None:
    check_name(repo)
    if folder is None and run is None:
        raise UserError("name the folder of a release, or a run's checkpoints with --run")
    if (run is None) != (tokenizer is None):
        raise UserError("--run needs the --tokenizer of that run, and nothing else does")
    if pr_and_more:
        raise UserError("a pull request goes to main: --pr has no --run, --branch, --tag, --visibility or --gated")


def _checkpoints(run: Path | None) -> list[Path]:
    if run is None:
        return []
    from starcoder.training.checkpoint import complete

    if not (found := complete(run)):
        raise UserError(f"{run} holds no complete checkpoint")
    return found


def _listed(folder: Path) -> dict[str, File]:
    files = release(folder)
    refused = refusals(files, get_token())
    for name, file in files.items():
        reason = f"  REFUSED: {refused[name]}" if name in refused else ""
        print(f"{size_of(file.size):>9}  {name}{reason}")
    print(f"{size_of(sum(file.size for file in files.values())):>9}  in {len(files)} files")
    return files


def _screen(folder: Path, files: Mapping[str, File]) -> None:
    if refused := refusals(files, get_token()):
        told = ", ".join(f"{name} {reason}" for name, reason in refused.items())
        raise UserError(f"nothing was sent, as {told}: take it out of {folder}")
    if "README.md" not in files:
        print(f"starcoder: {folder} has no model card (README.md): nobody will know what it may be used for",
              file=sys.stderr, flush=True)  # fmt: skip


@contextmanager
def _exported(checkpoint: Path, tokenizer: Path | None) -> Iterator[Path]:
    """A checkpoint as a release beside it, until the end of the block."""
    from starcoder.release.export import export

    assert tokenizer is not None
    place = checkpoint.parent / ".push"
    try:
        export(checkpoint=checkpoint, tokenizer=tokenizer, output=place / checkpoint.name)
        yield place / checkpoint.name
    finally:
        shutil.rmtree(place, ignore_errors=True)
