"""Where the benchmarks' problems come from: a folder of the files that their authors publish, or the Hub.

The folder has one sub-folder for each benchmark, the same as for `starcoder corpus build --benchmarks`.
"""

from pathlib import Path

from starcoder.errors import UserError, one_line
from starcoder.rows import Row, read_rows


def load_rows(folder: Path | None, name: str, pattern: str, hub: tuple[str, str] | None = None) -> list[Row]:
    """The rows of a benchmark, from `folder/name/pattern`, or without a folder from a data set of the Hub.

    Args:
        folder: the folder of benchmark data, or None.
        name: the benchmark's sub-folder.
        pattern: glob of its files there, read in the order of their names.
        hub: data set and file in it, such as `("openai/gsm8k", "main/test-00000-of-00001.parquet")`.

    Raises:
        UserError: when there is nothing to read, or it cannot be read; it says where the data comes from.
    """
    if folder is not None:
        files = sorted((folder / name).glob(pattern))
        if not files:
            raise UserError(f"no {pattern} in {folder / name}{_published(hub)}")
    elif hub is not None:
        files = [_download(name, *hub)]
    else:
        raise UserError(f"{name} needs data: name the folder that holds {name}/{pattern} with --data")
    return [row for file in files for row in read_rows(file)]


def _published(hub: tuple[str, str] | None) -> str:
    return f"; https://huggingface.co/datasets/{hub[0]} has the data" if hub else ""


def _download(name: str, repo: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, repo_type="dataset"))
    except Exception as error:
        raise UserError(
            f"{name} cannot be fetched from the Hub's {repo} ({one_line(error)}): name a folder of data with --data"
        ) from error
