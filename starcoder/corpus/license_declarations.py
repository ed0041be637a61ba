"""What metadata declares about a licence: the fields of a Python distribution, or of a package.json (paper §3)."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageMetadata
from typing import Any

from starcoder.corpus.license_names import join, parse, reference, resolve
from starcoder.corpus.license_texts import LicenseText, read_license_text

# Where a project gives an SPDX expression for all that it distributes.
_EXPRESSION_FIELD = "License-Expression"
_PACKAGE_JSON = "package.json"
_EXPLICIT = (_EXPRESSION_FIELD, _PACKAGE_JSON)
_NOTHING = ("", "UNKNOWN", "NONE")
# The evidence of a licence that is named without a number.
_VAGUE = re.compile(r"\b(?:License|classifier|package\.json): \D+$")


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is declared about the licence of a repository or a file.

    Attributes:
        expression: SPDX expression, or what stands there when it is not understood; empty when nothing does.
        evidence: Where it stands, such as "License-Expression" or "LICENSE.txt: MIT 0.99"; several are joined by "; ".
            The number is the share of the text that the licences found in it make up.
    """

    expression: str
    evidence: str


def declared_license(metadata: PackageMetadata) -> Declaration:
    """Return what the metadata of a Python distribution declares.

    License-Expression is SPDX by definition and replaces the others (PEP 639). Otherwise the older License field, if it
    is an expression, a name that we know, or the text of a licence, and all classifiers count, because these do not say
    whether they add up or are alternatives. A classifier adds nothing to a field that names its licence, or one of its
    family ("BSD License" to "BSD-2-Clause"). What is not understood is returned as it stands.
    """
    if _EXPRESSION_FIELD in metadata:
        return Declaration(str(metadata[_EXPRESSION_FIELD]).strip(), _EXPRESSION_FIELD)
    field = str((metadata.get_all("License") or [""])[0])
    classified = _classified(metadata.get_all("Classifier") or [])
    declared = _from_field(field)
    if declared:
        return _with_classifiers(declared, classified)
    if classified:
        return Declaration(join("AND", classified.values()), _evidence(classified))
    name = _shorten(field)
    return Declaration(name, "License") if name.upper() not in _NOTHING else Declaration("", "")


def npm_license(package: Mapping[str, Any]) -> Declaration:
    """Return what a package.json declares.

    `license` is an SPDX expression by npm's rules; older packages have an object with a `type`, or a list of such under
    `licenses`, of which the user may choose. "UNLICENSED" grants nothing, "SEE LICENSE IN …" leaves it to the text.
    """
    value = package.get("license") or package.get("licenses") or ""
    entries = value if isinstance(value, list) else [value]
    types = [entry.get("type") or entry.get("name") if isinstance(entry, Mapping) else entry for entry in entries]
    names = [_shorten(name) for name in types if isinstance(name, str) and name.strip()]
    said = " OR ".join(names)
    resolved = list(map(resolve, names))
    if not names or not all(resolved):
        return Declaration(said, _PACKAGE_JSON if said else "")
    return Declaration(join("OR", resolved), _PACKAGE_JSON if parse(said) is not None else f"{_PACKAGE_JSON}: {said}")


def symbols(expression: str) -> list[str]:
    """The ids in an expression, with their exceptions; none when it is not understood."""
    tree = parse(expression)
    return [] if tree is None else list(map(str, tree.symbols))


def text_ids(expression: str) -> set[str]:
    """The ids in an expression as far as texts can tell them."""
    return set(map(text_id, symbols(expression)))


def is_explicit(declared: Declaration) -> bool:
    """Whether it is the project's statement about all that it distributes."""
    return declared.evidence in _EXPLICIT


def is_settled(declared: Declaration, found: Iterable[str]) -> bool:
    """Whether a licence that is named without a number is one of the `found` ids, of the same family."""
    named, texts = text_ids(declared.expression), set(map(text_id, found))
    if len(named) != 1 or not named.isdisjoint(texts) or not _VAGUE.search(declared.evidence):
        return False
    return _family(min(named)) in map(_family, texts)


def _family(license_id: str) -> str:
    family = license_id.partition("-")[0]
    return "PSF" if family in ("Python", "CNRI") else family


def text_id(license_id: str) -> str:
    """What the text of a licence can tell of its id: neither the exception nor whether later versions are allowed."""
    return re.sub(r"(?:-only|-or-later|\+)$", "", without_exception(license_id))


def _from_field(field: str) -> Declaration | None:
    name = resolve(field)
    if name:
        return Declaration(name, f"License: {_shorten(field)}")
    text = read_license_text(field.encode(errors="replace"))
    return Declaration(join("AND", text.ids), f"License: {describe(text, text.ids)}") if text.ids else None


def describe(text: LicenseText, counting: Collection[str]) -> str:
    """The evidence that a text gives, of which the ids that are `counting` apply."""
    bundled = [license_id for license_id in (*text.ids, *text.bundled) if license_id not in counting]
    said = f"{', '.join(counting) or 'not understood'} {text.share:.2f}"
    said += f' (restricts: "{text.restriction}")' if text.restriction else ""
    return f"{said} (bundles {', '.join(bundled)})" if bundled else said


def _classified(classifiers: Iterable[str]) -> dict[str, str]:
    """The licences that classifiers name, each by its name; "OSI Approved" alone only says that there is one."""
    leaves = {name.rpartition(" :: ")[2] for name in classifiers if name.startswith("License :: ")}
    return {name: resolve(name) or reference(name) for name in sorted(leaves - {"OSI Approved", "DFSG approved"})}


def _with_classifiers(declared: Declaration, classified: Mapping[str, str]) -> Declaration:
    """The License field, and the classifiers that say more than it does."""
    named = text_ids(declared.expression)
    families = set(map(_family, named))
    more = {
        name: license_id
        for name, license_id in classified.items()
        if text_id(license_id) not in named and (re.search(r"\d", name) or _family(license_id) not in families)
    }
    stated = [] if is_settled(declared, more.values()) else [declared.expression]
    return Declaration(
        join("AND", [*stated, *more.values()]), "; ".join(filter(None, [declared.evidence, _evidence(more)]))
    )


def _evidence(classified: Iterable[str]) -> str:
    return "; ".join(f"classifier: {name}" for name in classified)


def _shorten(text: str) -> str:
    return " ".join(text.split())[:80]


def without_exception(license_id: str) -> str:
    """The id without what stands after WITH."""
    return license_id.partition(" WITH ")[0]
