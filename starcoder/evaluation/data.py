"""Where the benchmarks' problems come from: a folder of the files that their authors publish, or the Hub.

The folder has one sub-folder for each benchmark, the same as for `starcoder corpus build --benchmarks`.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from starcoder.errors import UserError, one_line
from starcoder.rows import Row, read_rows


class HubFile(NamedTuple):
    """A file of a data set of the Hub.

    Args:
        repo: the data set, such as `openai/gsm8k`.
        path: the file in it, such as `main/test-00000-of-00001.parquet`.
        revision: the commit to read; None for the newest.
    """

    repo: str
    path: str
    revision: str | None = None


def load_rows(
    folder: Path | None,
    name: str,
    pattern: str,
    hub: HubFile | None = None,
    fields: Collection[str] = (),
    source: str = "",
) -> list[Row]:
    """The rows of a benchmark, from `folder/name/pattern`, or without a folder from a data set of the Hub.

    Args:
        folder: the folder of benchmark data, or None.
        name: the benchmark's sub-folder.
        pattern: glob of its files there, read in the order of their names; else the Hub's file will do, by its whole
            path in the data set, since the parts of one often have files of the same name.
        hub: the file that is downloaded.
        fields: what every row must have.
        source: where a user gets the data when it is not on the Hub.

    Raises:
        UserError: when there is nothing to read, or it cannot be read; it says where the data comes from.
    """
    files = find_files(folder, name, pattern, hub, source)
    return [row for file in files for row in checked(file, read_rows(file), fields)]


def find_files(
    folder: Path | None, name: str, pattern: str, hub: HubFile | None = None, source: str = ""
) -> list[Path]:
    """The files that `load_rows` reads, at least one; see there.

    Raises:
        UserError: when there is none; it says where the data comes from.
    """
    if folder is not None:
        names = [pattern] + ([f"**/{hub.path}"] if hub else [])
        files = next((found for place in names if (found := sorted((folder / name).glob(place)))), [])
        if not files:
            raise UserError(f"no {pattern} in {folder / name}{_published(hub, source)}")
        return files
    if hub is not None:
        return [_download(name, hub)]
    raise UserError(
        f"{name} needs data: name the folder that holds {name}/{pattern} with --data{_published(hub, source)}"
    )


def checked(file: Path, rows: list[Row], fields: Collection[str]) -> list[Row]:
    """The rows of `file` when there are any and each has all `fields`.

    Raises:
        UserError: otherwise; it says which row lacks what.
    """
    if not rows:
        raise UserError(f"{file} holds no rows: download it again")
    for number, row in enumerate(rows, start=1):
        if missing := [field for field in fields if row.get(field) is None]:
            raise UserError(f"{file}: row {number} has no {', '.join(missing)}: download it again")
    return rows


def _published(hub: HubFile | None, source: str) -> str:
    places = [source] if source else []
    if hub:
        places.append(f"https://huggingface.co/datasets/{hub.repo} has the data")
    return "".join(f"; {place}" for place in places)


def _download(name: str, hub: HubFile) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub.repo, hub.path, repo_type="dataset", revision=hub.revision))
    except Exception as error:
        raise UserError(
            f"{name} cannot be fetched from the Hub's {hub.repo} ({one_line(error)}): name a folder of data with --data"
        ) from error
