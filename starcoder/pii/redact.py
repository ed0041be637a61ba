"""`starcoder pii redact`: a copy of a folder, or of a parquet file, in which personal data and secrets are redacted.

    SOURCE ─► contents in groups ─► worker processes: detect, replace, look again ─► TARGET, when it is whole

What is no text is copied as it is, and counted. Everything else about a file stays too: line ends, marks of the
encoding, permissions, links, empty folders. `.git` is not copied: the history holds what is redacted in the files.
"""

import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from starcoder.errors import UserError
from starcoder.pii.contents import (
    BINARY,
    CHANGED,
    CLEAN,
    ENCODING,
    NULL,
    TOO_LARGE,
    NoText,
    Tally,
    language_of,
    redact_contents,
)
from starcoder.pii.entity import split_labels
from starcoder.pii.redaction import REDACTED, SALT, Redactor, check_redacted, describe
from starcoder.processes import share_out
from starcoder.storage import atomic_file, atomic_folder

LINK, GIT, SPECIAL, UNREADABLE, LOCKED = "links", ".git", "no regular files", "unreadable", "not writable"
_AS_THEY_ARE, _LEFT_OUT = (BINARY, ENCODING, TOO_LARGE, NULL, LINK), (GIT, SPECIAL, UNREADABLE, LOCKED)
_GROUP_BYTES, _GROUP_FILES = 2**21, 256  # of one task
_NO_MARKER = ""  # a folder that is not empty is never an earlier copy
_PARQUET = ".parquet"


def redact(
    source: Path,
    output: Path | None = None,
    in_place: bool = False,
    model: str | None = None,
    labels: str = ",".join(REDACTED),
    column: str = "content",
    language: str = "language",
    workers: int | None = None,
    device: str = "auto",
    max_file_bytes: int = 10_000_000,
    salt: str = SALT,
) -> None:
    """Copy a folder or a parquet file with its personal data and secrets redacted by the paper's rules.

    E-mail addresses, keys, names and passwords become `<EMAIL>`, `<KEY>`, `<NAME>`, `<PASSWORD>`; a public IP address
    becomes one of ten private ones, the same wherever it stands. Nothing else changes, and Python code that parses
    still does. What is binary, not UTF-8 or too large is copied as it is, and counted. A run that is killed leaves no
    target; in place, it leaves every file whole.

    Args:
        source: A folder, or a parquet file.
        output: Where the copy goes: a new or an empty folder outside of the source, or a new file.
        in_place: Change the source itself; the history in its `.git` is not touched.
        model: Folder, or repository on the Hub, of a model that finds names, and more passwords; by default rules
            alone find e-mail addresses, IP addresses, keys, and passwords that have a form.
        labels: What to redact, separated by commas.
        column: The column of a parquet file that holds the texts.
        language: The column that names their programming language, if there is one: what is Python still parses.
        workers: Processes at a time; by default one a CPU core, or a single one with a model.
        device: Where the model computes: auto, cpu or cuda.
        max_file_bytes: Largest text to look at.
        salt: Decides, with an IP address, by which one it is replaced: who does not know it cannot test whether an
            address stood there.

    Raises:
        UserError: The source, the column or the model is missing, a label is unknown or never redacted, or the target
            is in the way.
    """
    from starcoder.pii.detectors import open_detector

    wanted = split_labels(labels)
    if (workers is not None and workers < 1) or max_file_bytes < 1:
        raise UserError("workers and max_file_bytes must be at least 1")
    target = _target(source, output, in_place)
    check_redacted(wanted)
    redactor = Redactor(partial(open_detector, model, device), wanted, salt)
    name = redactor.name  # opens the model: one that is missing is told before anything is written
    count = workers or (1 if model else os.cpu_count() or 1)
    if source.is_dir():
        tally = redact_folder(source, target, redactor, count, max_file_bytes)
    else:
        from starcoder.pii.redact_parquet import redact_parquet

        tally = redact_parquet(source, target, redactor, count, max_file_bytes, column, language)
    for line in report(tally, "files" if source.is_dir() else "rows", name):
        print(f"redact: {line}")
    print(f"redact: {target}")


def redact_folder(source: Path, target: Path, redactor: Redactor, workers: int = 1, limit: int = 10_000_000) -> Tally:
    """Copy the folder `source` to `target`, redacted; when they are the same, change its files.

    Args:
        source: The folder.
        target: A new or empty folder, or the same.
        redactor: What redacts.
        workers: Processes at a time.
        limit: Bytes of the largest file to look at.

    Raises:
        UserError: There is something in the target, or a process died.
    """
    if source == target:
        return _redact_into(source, source, redactor, workers, limit)
    with atomic_folder(target, _NO_MARKER) as unfinished:
        return _redact_into(source, unfinished, redactor, workers, limit)


def report(tally: Tally, things: str, redactor: str) -> Iterator[str]:
    """Yield what a tally of `things`, files or rows, says, as lines."""

    def listed(outcomes: Sequence[str]) -> str:
        return ", ".join(f"{tally.outcomes[name]:,} {name}" for name in outcomes if tally.outcomes[name])

    yield f"{tally.outcomes.total():,} {things}: {listed((CHANGED, CLEAN)) or 'no text'}"
    for what, outcomes in (("as they are", _AS_THEY_ARE), ("left out", _LEFT_OUT)):
        if names := listed(outcomes):
            yield f"{what}: {names}"
    yield describe(redactor, tally.redacted, tally.left)


def _target(source: Path, output: Path | None, in_place: bool) -> Path:
    """Where to write.

    Raises:
        UserError: The source is missing or of another kind, or what is written would touch it or something else.
    """
    if not source.is_dir() and not (source.is_file() and source.suffix == _PARQUET):
        raise UserError(f"{source} is neither a folder nor a {_PARQUET} file")
    if (output is None) is not in_place:
        raise UserError("say where the copy goes by --output, or --in_place to change the source: one of the two")
    if output is None:
        return source
    inner, outer = output.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(f"{output} overlaps with {source}: name another output, or --in_place without one")
    if output.is_file() or (output.exists() and (source.is_file() or any(output.iterdir()))):
        raise UserError(f"{output} is there already: name another output, or remove it yourself")
    return output


def _redact_into(source: Path, folder: Path, redactor: Redactor, workers: int, limit: int) -> Tally:
    from tqdm import tqdm

    folders, files, tally = _list(source, folder)
    work = partial(_redact_files, source, folder, limit)
    with tqdm(desc="redact", total=len(files), unit="file") as progress:
        for part in share_out(work, _groups(source, files), redactor, workers):
            tally.add(part)
            progress.update(part.outcomes.total())
    if folder != source:
        for place in reversed(folders):  # now that all is written: a folder may forbid it
            shutil.copymode(source / place, folder / place)
    return tally


def _list(source: Path, folder: Path) -> tuple[list[Path], list[Path], Tally]:
    """The folders and the files in `source`, outer ones first; folders and links are made in `folder` at once."""
    folders, files, tally = list[Path](), list[Path](), Tally()

    def unreadable(_: OSError) -> None:
        tally.outcomes[UNREADABLE] += 1

    for root, inner, names in os.walk(source, onerror=unreadable):
        place = Path(root).relative_to(source)
        folders.append(place)
        (folder / place).mkdir(exist_ok=True)
        for name in sorted([*inner, *names]):
            kind = _kind(source / place / name)
            if kind == LINK and folder != source:
                (folder / place / name).symlink_to((source / place / name).readlink())
            if kind is None and name in names:
                files.append(place / name)
            elif kind is not None:
                tally.outcomes[kind] += 1
        inner[:] = sorted(set(inner) - {".git"})
    return folders, files, tally


def _kind(path: Path) -> str | None:
    """What a path is that is neither a folder nor a file to look at."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return LINK
    if path.name == ".git":  # of a work tree or submodule it is a file
        return GIT
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else SPECIAL


def _groups(source: Path, files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files that each task looks at together."""
    group, size = list[Path](), 0
    for file in files:
        group.append(file)
        size += (source / file).lstat().st_size
        if size >= _GROUP_BYTES or len(group) == _GROUP_FILES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _redact_files(source: Path, folder: Path, limit: int, redactor: Redactor, files: Sequence[Path]) -> Tally:
    contents = [_read(source / file, limit) for file in files]
    languages = [language_of(file.name, content) for file, content in zip(files, contents, strict=True)]
    changes, tally = redact_contents(redactor, contents, languages, limit)
    for file, content, changed in zip(files, contents, changes, strict=True):
        if folder == source:
            tally.outcomes.update(_change(source / file, changed))
        elif content != NoText(UNREADABLE):
            _copy(source / file, folder / file, changed)
    tally.outcomes = +tally.outcomes
    return tally


def _read(path: Path, limit: int) -> bytes | NoText:
    try:
        with path.open("rb") as file:
            return NoText(TOO_LARGE) if os.fstat(file.fileno()).st_size > limit else file.read()
    except OSError:
        return NoText(UNREADABLE)


def _copy(source: Path, target: Path, changed: bytes | None) -> None:
    if changed is None:
        shutil.copy2(source, target, follow_symlinks=False)
    else:
        target.write_bytes(changed)
        shutil.copymode(source, target)


def _change(path: Path, changed: bytes | None) -> Counter[str]:
    """Write what has changed over a file; how that changes the outcomes."""
    if changed is None:
        return Counter()
    try:
        with atomic_file(path) as partial_file:
            partial_file.write_bytes(changed)
            shutil.copymode(path, partial_file)
    except PermissionError:
        return Counter({CHANGED: -1, LOCKED: 1})
    return Counter()
