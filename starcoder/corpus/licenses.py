"""Which licences are permissive, and what a repository or a file says about its own (paper §3).

Ids are SPDX's. A repository is judged by its licence expression: `AND` needs every part to be permissive, `OR` takes
the first part that is, and an exception of SPDX's list (`Apache-2.0 WITH LLVM-exception`) only ever adds
permissions to its licence; what `WITH LicenseRef-…` adds may restrict it, and is not permissive.
"""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from starcoder.corpus.document import Rejection
from starcoder.corpus.license_declarations import (
    Declaration,
    declared_license,
    describe,
    is_explicit,
    is_settled,
    npm_license,
    symbols,
    text_id,
    text_ids,
    without_exception,
)
from starcoder.corpus.license_names import UNCLEAR, join, parse, reference, spdx
from starcoder.corpus.license_notices import foreign_notice, spdx_tags
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

_foreign = partial(Rejection, "file under another licence")
_VENDORED = {
    *("_vendor", "_vendored", "vendor", "vendored", "vendors", "extern", "node_modules"),
    *("third_party", "third-party", "thirdparty"),
}


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


def file_license(
    content: str, repository: Collection[str] = (), accepted: Collection[str] = PERMISSIVE
) -> tuple[str, ...] | Rejection | None:
    """Return the licences that the head of a file states for itself by an SPDX tag, or None when it states none.

    A file inside a permissive repository may be somebody else's: a tag or a notice that shows so is a Rejection. All
    tags apply. Where the licences of the tags, or without tags those of the `repository`, are not all permissive,
    because the user accepted them or may choose another, such a notice is no contradiction.
    """
    tags = spdx_tags(content)
    stated: set[str] = set()
    for tag in tags:
        verdict = judge_license(tag, accepted)
        if isinstance(verdict, Rejection):
            return _foreign(verdict.detail[:80])
        stated.update(verdict)
    named = [name for tag in tags for name in symbols(tag)] or repository
    permissive = all(without_exception(license_id) in PERMISSIVE for license_id in named)
    notice = foreign_notice(content) if permissive else None
    return _foreign(notice) if notice else tuple(sorted(stated)) or None


def is_vendored(path: str) -> bool:
    """Whether the file is another project's, copied in: the licence of the repository says nothing about it."""
    return not _VENDORED.isdisjoint(path.lower().split("/")[:-1])


class RepositoryLicenses:
    """The licences of each file of a repository, from what is declared for it and from the licence files inside.

    The licence files of the nearest folder upwards win over those further up. A licence file that a .dist-info stores
    as `licenses/a/b/LICENSE` is the one of folder `a/b` (PEP 639), and a copy of the root's is the root's: of all files
    of the root, or of one where there is just one licence. In the root, where the metadata's declaration holds, and in
    each folder these rules apply:

    * Every licence that is found counts, so that a GPL text in a repository that is declared as MIT gives
      "MIT AND GPL-3.0-only". Ids that the declared expression names already add nothing: "MIT OR Apache-2.0" with the
      text of each stays an alternative.
    * A name without a number, such as "BSD" or "GPL", is vague: a text of the same family tells which one it is.
    * A declaration, or a part of it, that is not understood gives way to the texts.
    * A text with a restriction beside the licences, or that is nothing but restrictions, counts as a `LicenseRef-…`.
    * Any other text that is not understood never rejects what is declared for the root; without a declaration, the
      licence stays unknown. In a folder below it is unknown as well, unless the text only points elsewhere.
    * One file may hold the project's licence and then those of others' code that comes with it. What stands below a
      line such as "this binary distribution also bundles", as in NumPy's and PyTorch's, is about other works.
      License-Expression and package.json are the project's statement about all that it distributes: where one of them
      names one of the licences in a collection, the others do not count either, and it holds in a folder whose text is
      understood in part. All this is told in the evidence. Without such a statement a whole collection counts, and so
      does one that lacks the declared licence.
    """

    def __init__(self, declared: Declaration | None, texts: Mapping[str, bytes]) -> None:
        """Read the licence files.

        Args:
            declared: What the metadata of the repository declares.
            texts: The content of the licence files, by POSIX path inside the repository.
        """
        declared = declared or Declaration("", "")
        self._explicit = text_ids(declared.expression) if is_explicit(declared) else set[str]()
        by_folder: dict[str, dict[str, bytes]] = {"": {}}
        for path in sorted(texts):
            folder = covered_folder(path)
            inside = by_folder.setdefault(folder, {})
            label = f"{folder}/{PurePosixPath(path).name}".lstrip("/")
            inside[path if label in inside else label] = texts[path]
        root, upper = set(by_folder[""].values()), _combine(declared, by_folder[""])
        self._folders = {"": upper}
        one_license = len(symbols(upper.expression)) == 1
        for folder in sorted(by_folder)[1:]:
            own = set(by_folder[folder].values())
            is_copy = own == root or (one_license and own <= root)
            self._folders[folder] = upper if is_copy else self._nested(folder, by_folder[folder])

    def of(self, path: str) -> Declaration:
        """Return the declaration for the file at `path`, which is relative to the root of the repository."""
        folder = path
        while folder and folder not in self._folders:
            folder = folder.rpartition("/")[0]
        return self._folders[folder]

    def _nested(self, folder: str, texts: Mapping[str, bytes]) -> Declaration:
        own = _combine(Declaration("", ""), texts)
        if own.expression or not all(map(self._leaves_it, map(read_license_text, texts.values()))):
            return own
        upper = self.of(folder)
        return Declaration(upper.expression, f"{upper.evidence}; {own.evidence}")

    def _leaves_it(self, text: LicenseText) -> bool:
        """Whether a text that is not understood leaves the licence of its folder to what is declared above."""
        return text.is_pointer or not self._explicit.isdisjoint(map(text_id, text.seen))


def _combine(declared: Declaration, texts: Mapping[str, bytes]) -> Declaration:
    """What a declaration and the licence files of one folder say together, by the rules of RepositoryLicenses."""
    named = text_ids(declared.expression)
    explicit = is_explicit(declared)
    found: list[str] = []
    restrictions: list[str] = []
    notes = [declared.evidence] if declared.evidence else []
    for path, data in texts.items():
        text = read_license_text(data)
        own = [license_id for license_id in text.ids if text_id(license_id) in named]
        counting = own if explicit and own else text.ids
        found += counting
        restrictions += [reference(f"restricted {text.restriction}")] if text.restriction else []
        notes.append(f"{path}: {describe(text, counting)}")
    stated = _stated(declared.expression, explained=bool(found))
    if is_settled(declared, found):
        stated = ""
    more = [license_id for license_id in found if text_id(license_id) not in named or not stated]
    parts = [*filter(None, [stated]), *more, *restrictions]
    return Declaration(join("AND", parts) or declared.expression, "; ".join(notes))


def _stated(expression: str, explained: bool) -> str:
    """The expression, if it is one; the parts of it that are not understood give way where a text explains them."""
    tree = parse(expression)
    if tree is None:
        return ""
    parts = list(map(str, tree.args)) if isinstance(tree, spdx().AND) else [str(tree)]
    clear = [part for part in parts if not (explained and part.startswith(UNCLEAR))]
    return str(tree) if clear == parts else join("AND", clear)


def _resolve(tree: Any, accepted: Collection[str]) -> set[str] | None:
    """The accepted ids that satisfy an expression tree, or None when it asks for one that is not accepted."""
    if isinstance(tree, spdx().AND):
        parts = [_resolve(part, accepted) for part in tree.args]
        return None if None in parts else set[str]().union(*filter(None, parts))
    if isinstance(tree, spdx().OR):
        return next(filter(None, (_resolve(part, accepted) for part in tree.args)), None)
    license_id, _, exception = str(tree).partition(" WITH ")
    return {str(tree)} if license_id in accepted and not exception.startswith("LicenseRef-") else None
