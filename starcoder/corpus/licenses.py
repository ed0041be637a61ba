"""Which licences are permissive, and what a repository or a file says about its own (paper §3).

Ids are SPDX's. A repository is judged by its licence expression: `AND` needs every part to be permissive, `OR` takes
the first part that is, and an exception (`Apache-2.0 WITH LLVM-exception`) only ever adds permissions to its licence.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageMetadata
from pathlib import PurePosixPath
from typing import Any

from starcoder.corpus.document import Rejection
from starcoder.corpus.license_names import join, parse, reference, resolve, spdx
from starcoder.corpus.license_texts import LicenseText, covered_folder, is_license_file, read_license_text
from starcoder.errors import UserError

__all__ = [
    "PERMISSIVE",
    "Declaration",
    "RepositoryLicenses",
    "accepted_licenses",
    "declared_license",
    "file_license",
    "is_license_file",
    "is_vendored",
    "judge_license",
    "npm_license",
]

_PERMISSIVE = """
0BSD AFL-2.1 AFL-3.0 Apache-1.0 Apache-1.1 Apache-2.0 Beerware blessing BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause
BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause BSD-3-Clause-Attribution BSD-3-Clause-Clear BSD-3-Clause-LBNL
BSD-3-Clause-Modification BSD-3-Clause-Open-MPI BSD-4-Clause BSD-4-Clause-UC BSD-Source-Code BSL-1.0 bzip2-1.0.6
CC-BY-3.0 CC-BY-4.0 CC-PDDC CC0-1.0 CDLA-Permissive-2.0 CNRI-Python CNRI-Python-GPL-Compatible curl ECL-2.0 Fair FSFAP
FTL HPND HPND-Markus-Kuhn HPND-sell-variant ICU IJG Info-ZIP ISC libpng-1.6.35 libpng-2.0 Libpng libtiff MIT MIT-0
MIT-advertising MIT-CMU MIT-Festival MIT-Modern-Variant MIT-open-group MulanPSL-1.0 MulanPSL-2.0 NCSA NTP OLDAP-2.8
OpenSSL PHP-3.0 PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 SGI-B-2.0 Spencer-94 SSH-OpenSSH SunPro TCL
Unicode-3.0 Unicode-DFS-2015 Unicode-DFS-2016 Unlicense UPL-1.0 W3C W3C-20150513 WTFPL X11
X11-distribute-modifications-variant Xnet Zlib zlib-acknowledgement ZPL-2.0 ZPL-2.1
"""
PERMISSIVE = frozenset(_PERMISSIVE.split())
"""The ids accepted by default: licences that ask for attribution at most."""

# What the head of a file says when the licence of its repository does not cover it.
_HEAD = 3000
_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n*]+)")
_FOREIGN_NOTICE = re.compile(
    r"GNU\s+(?:\w+\s+)?General\s+Public|(?:Mozilla|Eclipse)\s+Public\s+License"
    r"|NOTICE\s+TO\s+(?:LICENSEE|USER)|proprietary\s+rights|strictly\s+prohibited",
    re.IGNORECASE,
)
_foreign = partial(Rejection, "file under another licence")
_VENDORED = {
    *("_vendor", "_vendored", "vendor", "vendored", "vendors", "extern", "node_modules"),
    *("third_party", "third-party", "thirdparty"),
}

# Where a project gives an SPDX expression for all that it distributes.
_EXPRESSION_FIELD = "License-Expression"
_PACKAGE_JSON = "package.json"
_EXPLICIT = (_EXPRESSION_FIELD, _PACKAGE_JSON)
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


def accepted_licenses(extra: Iterable[str] = ()) -> frozenset[str]:
    """Return the permissive ids and the `extra` ones.

    Raises:
        UserError: An id is neither SPDX's nor a `LicenseRef-…` of the user's own.
    """
    extra = frozenset(extra)
    unknown = sorted(name for name in extra if " " in name or parse(name) is None or str(parse(name)) != name)
    if unknown:
        raise UserError(f"no such SPDX licence id: {', '.join(unknown)}; see https://spdx.org/licenses for the list")
    return PERMISSIVE | extra


def judge_license(expression: str, accepted: Collection[str] = PERMISSIVE) -> tuple[str, ...] | Rejection:
    """Return the ids, all of which apply, under which code with this licence expression may be used, or why not."""
    tree = parse(expression)
    if tree is None:
        return Rejection("licence unknown", expression)
    licenses = _resolve(tree, accepted)
    return tuple(sorted(licenses)) if licenses else Rejection("licence not permissive", str(tree))


def declared_license(metadata: PackageMetadata) -> Declaration:
    """Return what the metadata of a Python distribution declares.

    License-Expression is SPDX by definition and wins (PEP 639). Then comes the older License field, if it is an
    expression, a name that we know, or the text of a licence; then the classifiers, all of which must be permissive
    because they do not say whether they add up or are alternatives. What is not understood is returned as it stands.
    """
    if _EXPRESSION_FIELD in metadata:
        return Declaration(str(metadata[_EXPRESSION_FIELD]).strip(), _EXPRESSION_FIELD)
    field = str((metadata.get_all("License") or [""])[0])
    declared = _from_field(field) or _from_classifiers(metadata.get_all("Classifier") or [])
    name = _shorten(field)
    return declared or Declaration(name, "License" if name else "")


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


def file_license(
    content: str, repository: Collection[str] = (), accepted: Collection[str] = PERMISSIVE
) -> tuple[str, ...] | Rejection | None:
    """Return the licences that the head of a file states for itself by an SPDX tag, or None when it states none.

    A file inside a permissive repository may be somebody else's: a tag or a notice that shows so is a Rejection. Where
    the licences of the `repository` are others, which the user accepted, such a notice is no contradiction.
    """
    head = content[:_HEAD]
    tag = _SPDX_TAG.search(head)
    if tag:
        verdict = judge_license(tag[1].strip(" \t\r\"'/->"), accepted)
        return _foreign(verdict.detail[:80]) if isinstance(verdict, Rejection) else verdict
    permissive = all(_without_exception(license_id) in PERMISSIVE for license_id in repository)
    notice = _FOREIGN_NOTICE.search(head) if permissive else None
    return _foreign(" ".join(notice[0].split())) if notice else None


def is_vendored(path: str) -> bool:
    """Whether the file is another project's, copied in: the licence of the repository says nothing about it."""
    return not _VENDORED.isdisjoint(path.lower().split("/")[:-1])


class RepositoryLicenses:
    """The licences of each file of a repository, from what is declared for it and from the licence files inside.

    The licence files of the nearest folder upwards win over those further up. A licence file that a .dist-info stores
    as `licenses/a/b/LICENSE` is the one of folder `a/b` (PEP 639), and a copy of the root's is the root's. In the root,
    where the metadata's declaration holds, and in each folder these rules apply:

    * Every licence that is found counts, so that a GPL text in a repository that is declared as MIT gives
      "MIT AND GPL-3.0-only". Ids that the declared expression names already add nothing: "MIT OR Apache-2.0" with the
      text of each stays an alternative.
    * A name without a number, such as "BSD" or "GPL", is vague: a text of the same family tells which one it is.
    * A declaration that is not understood gives way to the texts.
    * A text that is not understood never rejects what is declared; without a declaration, the licence stays unknown.
    * One file may hold the project's licence and then those of others' code that comes with it. What stands below a
      line such as "this binary distribution also bundles", as in NumPy's and PyTorch's, is about other works.
      License-Expression and package.json are the project's statement about all that it distributes: where one of them
      names one of the licences in a collection, the others do not count either. Both are told in the evidence. Without
      such a statement a whole collection counts, and so does one that lacks the declared licence.
    """

    def __init__(self, declared: Declaration | None, texts: Mapping[str, bytes]) -> None:
        """Read the licence files.

        Args:
            declared: What the metadata of the repository declares.
            texts: The content of the licence files, by POSIX path inside the repository.
        """
        self._has_metadata = declared is not None and parse(declared.expression) is not None
        by_folder: dict[str, dict[str, bytes]] = {"": {}}
        for path in sorted(texts):
            folder = covered_folder(path)
            inside = by_folder.setdefault(folder, {})
            label = f"{folder}/{PurePosixPath(path).name}".lstrip("/")
            inside[path if label in inside else label] = texts[path]
        self._folders = {"": _combine(declared or Declaration("", ""), by_folder[""])}
        for folder in sorted(by_folder)[1:]:
            is_copy = set(by_folder[folder].values()) <= set(by_folder[""].values())
            self._folders[folder] = self._folders[""] if is_copy else self._nested(folder, by_folder[folder])

    def of(self, path: str) -> Declaration:
        """Return the declaration for the file at `path`, which is relative to the root of the repository."""
        folder = path
        while folder and folder not in self._folders:
            folder = folder.rpartition("/")[0]
        return self._folders[folder]

    def _nested(self, folder: str, texts: Mapping[str, bytes]) -> Declaration:
        own = _combine(Declaration("", ""), texts)
        if own.expression or not self._has_metadata:
            return own
        upper = self.of(folder)
        return Declaration(upper.expression, f"{upper.evidence}; {own.evidence}")


def _combine(declared: Declaration, texts: Mapping[str, bytes]) -> Declaration:
    """What a declaration and the licence files of one folder say together, by the rules of RepositoryLicenses."""
    tree = parse(declared.expression)
    named = set() if tree is None else {_text_id(str(symbol)) for symbol in tree.symbols}
    explicit = declared.evidence in _EXPLICIT
    found: list[str] = []
    notes = [declared.evidence] if declared.evidence else []
    for path, data in texts.items():
        text = read_license_text(data)
        own = [license_id for license_id in text.ids if _text_id(license_id) in named]
        counting = own if explicit and own else text.ids
        found += counting
        notes.append(f"{path}: {_note(text, counting)}")
    more = [license_id for license_id in dict.fromkeys(found) if _text_id(license_id) not in named]
    vague = len(named) == 1 and _VAGUE.search(declared.evidence)
    replaced = tree is None or (vague and _is_made_precise(min(named), found))
    parts = more if replaced else [str(tree), *more]
    return Declaration(join("AND", parts) or declared.expression, "; ".join(notes))


def _is_made_precise(named: str, found: Collection[str]) -> bool:
    texts = set(map(_text_id, found))
    return named not in texts and _family(named) in map(_family, texts)


def _family(license_id: str) -> str:
    family = license_id.partition("-")[0]
    return "PSF" if family in ("Python", "CNRI") else family


def _text_id(license_id: str) -> str:
    """What the text of a licence can tell of its id: neither the exception nor whether later versions are allowed."""
    return re.sub(r"(?:-only|-or-later|\+)$", "", _without_exception(license_id))


def _from_field(field: str) -> Declaration | None:
    name = resolve(field)
    if name:
        return Declaration(name, f"License: {_shorten(field)}")
    text = read_license_text(field.encode(errors="replace"))
    return Declaration(join("AND", text.ids), f"License: {_note(text, text.ids)}") if text.ids else None


def _note(text: LicenseText, counting: Collection[str]) -> str:
    bundled = [license_id for license_id in (*text.ids, *text.bundled) if license_id not in counting]
    said = f"{', '.join(counting) or 'not understood'} {text.share:.2f}"
    return f"{said} (bundles {', '.join(bundled)})" if bundled else said


def _from_classifiers(classifiers: Iterable[str]) -> Declaration | None:
    """All licences that classifiers name; "OSI Approved" alone only says that there is one."""
    leaves = {name.rpartition(" :: ")[2] for name in classifiers if name.startswith("License :: ")}
    names = sorted(leaves - {"OSI Approved", "DFSG approved"})
    evidence = "; ".join(f"classifier: {name}" for name in names)
    return Declaration(join("AND", [resolve(name) or reference(name) for name in names]), evidence) if names else None


def _shorten(text: str) -> str:
    return " ".join(text.split())[:80]


def _resolve(tree: Any, accepted: Collection[str]) -> set[str] | None:
    """The accepted ids that satisfy an expression tree, or None when it asks for one that is not accepted."""
    if isinstance(tree, spdx().AND):
        parts = [_resolve(part, accepted) for part in tree.args]
        return None if None in parts else set[str]().union(*filter(None, parts))
    if isinstance(tree, spdx().OR):
        return next(filter(None, (_resolve(part, accepted) for part in tree.args)), None)
    return {str(tree)} if _without_exception(str(tree)) in accepted else None


def _without_exception(license_id: str) -> str:
    return license_id.partition(" WITH ")[0]
