"""Under which licence weights go out (paper §9), and the terms that go with StarCoder's.

Who trains from scratch on permissive code is free to choose; Apache-2.0 is the default because it is permissive, like
the code that the model learned from, and grants patents, too. What grows out of StarCoder's weights keeps BigCode's
OpenRAIL-M: the licence itself demands that its restrictions of use are passed on. So does whatever grows out of weights
under any other licence that asks for more than attribution.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from starcoder.errors import UserError, one_line

OPENRAIL = "bigcode-openrail-m"
OPENRAIL_TEXT = "https://huggingface.co/spaces/bigcode/bigcode-model-license-agreement"
DEFAULT = "apache-2.0"
_IDS = """
afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m
bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0
cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 gfdl gpl gpl-2.0 gpl-3.0 isc
lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl openrail openrail++ osl-3.0 pddl postgresql unlicense wtfpl zlib
"""
HUB_IDS = frozenset(_IDS.split())
"""Identifiers that the Hub knows; another licence is a file `LICENSE` in the folder."""
RESTRICTIONS = (
    "to break the law, or to help others to",
    "to write or spread malware",
    "to make or spread what is verifiably false, with the intent to harm",
    "to pass off what a machine wrote as the work of a person, or to pose as somebody else",
    "to decide automatically over somebody's rights or duties without telling them",
    "to give medical advice",
)
"""Some of what Attachment A forbids, in short; the text of the licence is what holds."""
_PERMISSIVE = """
afl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
cc0-1.0 ecl-2.0 isc mit ncsa pddl postgresql unlicense wtfpl zlib
"""
_FREE = frozenset(_PERMISSIVE.split())
"""What derives from weights under one of these may have another licence; any other one stays."""
_RELEASED = {
    re.compile(r"bigcode/(?:tiny_)?starcoder[\w.-]*|HuggingFaceH4/starchat[\w.-]*", re.IGNORECASE): OPENRAIL,
    re.compile(r"bigcode/(?:gpt_bigcode-)?santacoder[\w.-]*", re.IGNORECASE): "codeml-openrail-m-0.1",
}
"""Licences of BigCode's weights, and of assistants made of them, by the repository's name on the Hub."""
_CACHED = re.compile(r".*[/\\]models--([\w.-]+?)--([\w.-]+)[/\\]snapshots[/\\][^/\\]+[/\\]?")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---", re.DOTALL)


@dataclass(frozen=True)
class Licence:
    """The licence of weights.

    Args:
        id: the Hub's identifier, or a name of one's own.
        inherited: whether the weights that training started from leave no other choice.
        complete: whether the licence of those weights, if there are any, is known.
    """

    id: str
    inherited: bool = False
    complete: bool = True

    @property
    def metadata(self) -> dict[str, Any]:
        """The keys of a model card that tell the Hub about it; whoever downloads from a gated repository must agree."""
        if self.id not in HUB_IDS:
            return {"license": "other", "license_name": self.id, "license_link": "LICENSE"}
        if self.id != OPENRAIL:
            return {"license": self.id}
        prompt = (
            "These weights are under the BigCode OpenRAIL-M v1 licence. It is free of charge and allows commercial use,"
            " but forbids the uses in its Attachment A, and you must bind whoever gets the weights, or a model made of"
            f" them, to the same restrictions. Please read it before you agree: {OPENRAIL_TEXT}"
        )
        return {
            "license": self.id,
            "extra_gated_heading": "Model licence agreement",
            "extra_gated_prompt": prompt,
            "extra_gated_fields": {"I have read the licence and agree to its terms": "checkbox"},
        }


def choose(
    wanted: str | None, trained: bool, bases: Sequence[str], corpus_licences: Iterable[str], folder: Path
) -> Licence:
    """The licence of the weights in `folder`.

    Args:
        wanted: what the user says; None leaves it to what is known.
        trained: whether it is known how the weights were trained.
        bases: names, repositories or folders, of the weights that training started from; none when from scratch.
        corpus_licences: identifiers in the corpus.
        folder: the release; a licence that the Hub has no identifier for is its file `LICENSE`.

    Raises:
        UserError: when the choice is not free, nothing decides it, or the text of the licence is missing.
    """
    inherited = [(base, license) for base in bases for license in _licences_of(base)]
    kept = [(base, license) for base, license in inherited if license not in _FREE]
    for base, license in kept:
        if wanted not in (None, license):
            raise UserError(f"the licence cannot be {wanted}: what derives from {base} stays under {license}")
        wanted = license
    if wanted is not None:
        return replace(_named(wanted, folder), inherited=bool(kept), complete=bool(inherited) or not bases)
    if not trained:
        raise UserError("name --run, the training run that made the weights, or their licence with --license")
    if bases:
        if not inherited:
            raise UserError(f"the licence of {bases[0]}, from which training started, is not known: name --license")
        return _named(inherited[0][1], folder)
    if private := sorted({part for name in corpus_licences for part in re.findall(r"LicenseRef-[\w.-]+", name)}):
        raise UserError(f"the corpus holds code under {', '.join(private)}: name the weights' licence with --license")
    return Licence(DEFAULT)


def front_matter(readme: Path) -> dict[str, Any]:
    """The metadata at the top of a model card, empty when it has none.

    Raises:
        UserError: when it cannot be read.
    """
    try:
        found = _FRONT_MATTER.match(readme.read_text(encoding="utf-8"))
        metadata = yaml.safe_load(found[1]) if found else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{readme} cannot be read as a model card: {one_line(error)}") from None
    return metadata if isinstance(metadata, dict) else {}


def on_hub(base: str) -> str | None:
    """The repository that a name is without doubt: one that BigCode released, or one in the cache of the Hub's client.

    Any other OWNER/NAME may be a folder, too.
    """
    if cached := _CACHED.fullmatch(base):
        return "/".join(cached.groups())
    return base if _released(base) else None


def _released(name: str) -> str | None:
    return next((license for pattern, license in _RELEASED.items() if pattern.fullmatch(name)), None)


def _licences_of(base: str) -> list[str]:
    """Those of the weights in a repository or folder, as its name or its card tells; none when nothing does."""
    name = on_hub(base) or "/".join(Path(base).parts[-2:])  # a folder may be called like what it was downloaded from
    if known := _released(name):
        return [known]
    metadata = _card_of(base)
    if passed_on := [license for each in _texts(metadata.get("base_model")) if (license := _released(each))]:
        return passed_on
    licences = _texts(metadata.get("license"))
    if licences == ["other"]:
        licences = _texts(metadata.get("license_name")) or licences
    return [each.lower() for each in licences if each != "unknown"]


def _card_of(base: str) -> dict[str, Any]:
    """The metadata of the card in a folder, or of a repository in the cache of the Hub's client."""
    readme = Path(base) / "README.md"
    with suppress(HFValidationError):  # of the path of a folder
        if not readme.is_file() and isinstance(cached := try_to_load_from_cache(base, readme.name), str):
            readme = Path(cached)
    return front_matter(readme) if readme.is_file() else {}


def _texts(value: Any) -> list[str]:
    """The texts in a list, or the one that stands for a list."""
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _named(name: str, folder: Path) -> Licence:
    if name not in HUB_IDS:
        if not _NAME.fullmatch(name):
            raise UserError(f"{name} is no licence's name: write it in lower case, such as {DEFAULT}")
        if not (folder / "LICENSE").is_file():
            raise UserError(f"the licence {name} is unknown to the Hub: put its text into {folder / 'LICENSE'}")
    return Licence(name)
