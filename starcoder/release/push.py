"""`starcoder push`: a release, or each checkpoint of a run, on the Hugging Face Hub (§9).

Every file is looked at before the first byte goes; what must not leave the machine stops everything.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from huggingface_hub import get_token

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.hub import is_repository
from starcoder.release.client import client, size_of
from starcoder.release.contents import CARD, Release, release
from starcoder.release.repository import MAIN, Change, Repository

"""What the Hub takes for an owner, and for a name."""


def push(
    folder: Path | None = None,
    *,
    repo: str,
    run: Path | None = None,
    tokenizer: Path | None = None,
    dtype: str | None = None,
    branch: str = MAIN,
    tag: str | None = None,
    pr: bool = False,
    visibility: Literal["private", "public"] | None = None,
    gated: Literal["auto", "manual"] | None = None,
    message: str | None = None,
    include: str = "",
    dry_run: bool = False,
) -> None:
    """Put a release on the Hugging Face Hub; run it again after a failure, and it sends only what is missing.

    What others have put there stays. New weights take the place of older ones: the files of these, their golden.json,
    and results that `starcoder card` wrote are removed, each of which is said.

    Args:
        folder: what `starcoder export` wrote.
        repo: `owner/name` on the Hub; it is created when it is missing.
        run: folder of a training run, or of its checkpoints: each of these becomes a branch of its name, `step-…`, with
            main's licence.
        tokenizer: folder of the tokenizer that the run was trained with; found as by `starcoder export` when not given.
        dtype: that of the run's checkpoints on the Hub: float32, bfloat16 or float16; as stored when not given.
        branch: where the folder goes; it is created from main when it is missing.
        tag: name for the commit.
        pr: open a pull request instead of committing, unless one of yours proposes the same.
        visibility: private when a new repository is to be, and nothing is said; an existing one stays as it is.
        gated: whether people have to ask for the files, and whether that is granted automatically or by you.
        message: title of the commit.
        include: patterns of more files to send than releases are made of, `*.csv,figures/*`; never credentials.
        dry_run: list the files, their sizes and what would be refused; with a token for the Hub also what would change
            there. Nothing is sent.

    Raises:
        UserError: for what is no release, for files that look like credentials or data, and for what the Hub refuses.
    """
    check_name(repo)
    _check_names(branch=branch, tag=tag)
    _refuse(
        {
            "name the folder of a release, or a run with --run": folder is None and run is None,
            "--tokenizer and --dtype are those of a --run": run is None and (tokenizer or dtype),
            "--branch and --tag are for a folder: checkpoints have branches of their names": folder is None
            and (branch != MAIN or tag),
            "a pull request goes to main: --pr has no --run, --branch, --tag, --visibility or --gated": pr
            and (branch != MAIN or tag or visibility or gated or run),
        }
    )
    checkpoints = _checkpoints(run)
    if tokenizer:
        tokenizers.load(tokenizer)
    change = None
    if folder:
        found = _screened(release(folder, [part.strip() for part in include.split(",")], get_token()), listed=True)
        change = Change(found.files, branch, message or f"Release {folder.resolve().name}", tag, pr)
    hub = Repository(repo)
    if dry_run:
        _preview(hub, change, checkpoints)
        return
    with client(repo):
        hub.open(visibility, gated, must_exist=pr)
        if change:
            hub.put(change)
    for checkpoint in checkpoints:
        with _exported(checkpoint, tokenizer, dtype) as exported, client(repo):
            hub.take_over(exported, checkpoint.name)
            found = _screened(release(exported, token=get_token()))
            hub.put(Change(found.files, checkpoint.name, message or checkpoint.name, checkpoint=True))


def check_name(repo: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        UserError: when it has not the form `owner/name`, or one that the Hub refuses.
    """
    if not is_repository(repo):
        raise UserError(
            f"{repo} is no repository: say whose it is and its name, OWNER/NAME, of letters, digits, and single - or ."
            " between them"
        )


def _check_names(**revisions: str | None) -> None:
    for option, name in revisions.items():
        if name is not None and (not re.fullmatch(r"\w[\w./+-]*(?<![./])", name) or ".." in name):
            raise UserError(f"--{option} {name!r} cannot be the name of a {option}")


def _refuse(reasons: Mapping[str, object]) -> None:
    for reason, holds in reasons.items():
        if holds:
            raise UserError(reason)


def _checkpoints(run: Path | None) -> list[Path]:
    if run is None:
        return []
    from starcoder.training.checkpoint import complete

    if not (found := complete(run) or complete(run / "checkpoints")):
        raise UserError(f"{run} holds no complete checkpoint, nor does its folder checkpoints")
    return found


def _screened(found: Release, listed: bool = False) -> Release:
    for name, file in found.files.items() if listed else ():
        reason = f"  REFUSED: {found.refused[name]}" if name in found.refused else ""
        print(f"{size_of(file.size):>9}  {name}{reason}")
    if listed:
        print(f"{size_of(sum(file.size for file in found.files.values())):>9}  in {len(found.files)} files", flush=True)
    if found.refused:
        told = ", ".join(f"{name} {reason}" for name, reason in found.refused.items())
        raise UserError(f"nothing was sent, as {told}: take it out of {found.folder}")
    if listed and CARD not in found.files:
        print(f"starcoder: {found.folder} has no model card (README.md): nobody will know what it may be used for",
              file=sys.stderr, flush=True)  # fmt: skip
    return found


def _preview(hub: Repository, change: Change | None, checkpoints: list[Path]) -> None:
    for checkpoint in checkpoints:
        print(f"{checkpoint} would be exported to the branch {checkpoint.name}")
    if change is None:
        return
    if get_token() is None:
        print("there is no token for the Hub, on which nothing was looked at")
        return
    try:
        with client(hub.name):
            hub.preview(change)
    except UserError as error:
        print(f"the Hub could not be looked at: {error}")


@contextmanager
def _exported(checkpoint: Path, tokenizer: Path | None, dtype: str | None) -> Iterator[Path]:
    """A checkpoint as a release, until the end of the block; beside it if possible, as it is large."""
    from starcoder.release.export import export

    beside = checkpoint.parent if os.access(checkpoint.parent, os.W_OK) else None
    with TemporaryDirectory(prefix=".push-", dir=beside) as place:
        output = Path(place, checkpoint.name)
        export(checkpoint=checkpoint, tokenizer=tokenizer, output=output, dtype=dtype)
        yield output
