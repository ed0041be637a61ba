"""A model in memory on the Hugging Face Hub (§9), without a folder that anybody has to keep."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from starcoder.generation import check_vocabulary
from starcoder.model import StarCoder
from starcoder.release.client import client
from starcoder.release.contents import File
from starcoder.release.folder import save
from starcoder.release.push import check_name
from starcoder.release.repository import MAIN, Change, Repository
from starcoder.tokenizer import Tokenizer


def publish(
    model: StarCoder,
    repo: str,
    tokenizer: Tokenizer | None = None,
    branch: str = MAIN,
    visibility: Literal["private", "public"] | None = None,
    message: str = "Weights",
) -> None:
    """Put weights and configuration into a repository, and the tokenizer when it is given.

    A card, results and answers to compare with come from folders: `starcoder export`, `card` and `push`.

    Args:
        model: what `save_pretrained` would write; it lies in the folder for temporary files meanwhile.
        repo: `owner/name` on the Hub; it is created when it is missing.
        tokenizer: the one that the model was trained with; whatever tokenizer the repository has stays without it.
        branch: where it goes; it is created from main when it is missing.
        visibility: private when a new repository is to be, and nothing is said; an existing one stays as it is.
        message: title of the commit.

    Raises:
        UserError: for a tokenizer of another model, and for what the Hub refuses.
    """
    check_name(repo)
    if tokenizer is not None:
        check_vocabulary(model, tokenizer)
    with TemporaryDirectory() as place:
        folder, hub = Path(place, "model"), Repository(repo)
        save(model, folder, tokenizer)
        with client(repo):
            hub.open(visibility, gated=None)
            hub.put(Change({path.name: File(path) for path in sorted(folder.iterdir())}, branch, message))
