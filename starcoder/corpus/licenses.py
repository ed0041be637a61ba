"""Which licences are permissive, and what a repository or a file says about its own (paper §3).

Ids are SPDX's. A repository is judged by its licence expression: `AND` needs every part to be permissive, `OR` takes
the first part that is, and an exception (`Apache-2.0 WITH LLVM-exception`) only ever adds permissions to its licence.
"""

import re
from collections.abc import Collection, Iterable
from functools import cache, partial
from importlib.metadata import PackageMetadata
from pathlib import PurePosixPath
from typing import Any

import license_expression  # type: ignore[import-untyped]  # it ships no annotations

from starcoder.corpus.document import Rejection
from starcoder.errors import UserError

_PERMISSIVE = """
0BSD AFL-2.1 AFL-3.0 Apache-1.1 Apache-2.0 BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause
BSD-3-Clause-Clear BSD-3-Clause-LBNL BSD-4-Clause BSD-4-Clause-UC BSD-Source-Code BSL-1.0 CC-BY-3.0 CC-BY-4.0
CC0-1.0 CNRI-Python curl ECL-2.0 FTL HPND ICU IJG ISC Libpng libtiff MIT MIT-0 MIT-CMU MIT-Modern-Variant
MulanPSL-2.0 NCSA NTP OLDAP-2.8 PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 TCL Unicode-3.0 Unicode-DFS-2016
Unlicense UPL-1.0 W3C WTFPL X11 Xnet Zlib ZPL-2.1
"""
PERMISSIVE = frozenset(_PERMISSIVE.split())
"""The ids accepted by default: licences that ask for attribution at most."""

# Free-text names as they stand in package metadata. A bare "BSD" does not say how many clauses it has: the three-clause
# licence asks for everything that the two-clause one does, so it is the safe reading.
_NAMES = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "modified bsd license": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "expat": "MIT",
    "historical permission notice and disclaimer (hpnd)": "HPND",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "psf license": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zlib/libpng license": "Zlib",
    "zope public license": "ZPL-2.1",
    "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
    "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}

# Sentences that only one licence (or a close variant) holds, for metadata that carries the text instead of the name. A
# longer text than these licences have is a collection of several, of which the first sentence found says little.
_TEXT_LENGTH = 2500
_TEXTS = {
    "neither the name": "BSD-3-Clause",
    "redistribution and use in source and binary forms": "BSD-2-Clause",
    "permission is hereby granted, free of charge": "MIT",
    "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee": "ISC",
}

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


@cache
def _spdx() -> Any:
    return license_expression.get_spdx_licensing()


def accepted_licenses(extra: Iterable[str] = ()) -> frozenset[str]:
    """Return the permissive ids and the `extra` ones.

    Raises:
        UserError: An id is neither SPDX's nor a `LicenseRef-…` of the user's own.
    """
    extra = frozenset(extra)
    unknown = sorted(name for name in extra if " " in name or _parse(name) is None or str(_parse(name)) != name)
    if unknown:
        raise UserError(f"no such SPDX licence id: {', '.join(unknown)}; see https://spdx.org/licenses for the list")
    return PERMISSIVE | extra


def judge_license(expression: str, accepted: Collection[str] = PERMISSIVE) -> tuple[str, ...] | Rejection:
    """Return the ids, all of which apply, under which code with this licence expression may be used, or why not."""
    tree = _parse(expression)
    if tree is None:
        return Rejection("licence unknown", expression)
    licenses = _resolve(tree, accepted)
    return tuple(sorted(licenses)) if licenses else Rejection("licence not permissive", str(tree))


def declared_license(metadata: PackageMetadata) -> str:
    """Return the licence expression that the metadata of a distribution declares.

    License-Expression is SPDX by definition and wins. Then comes the older License field, if it is an SPDX expression,
    a name that we know, or the text of a well-known licence; then the classifiers, all of which must be permissive
    because they do not say whether they add up or are alternatives. What is not understood is returned as it stands.
    """
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    field = (metadata.get_all("License") or [""])[0]
    classifiers = metadata.get_all("Classifier") or []
    names = [name.rpartition(" :: ")[2] for name in classifiers if name.startswith("License :: ")]
    from_classifiers = " AND ".join(sorted({_normalise(name) for name in names}))
    return _normalise_field(field) or from_classifiers or " ".join(field.split())[:80]


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
    permissive = all(_base(license_id) in PERMISSIVE for license_id in repository)
    notice = _FOREIGN_NOTICE.search(head) if permissive else None
    return _foreign(" ".join(notice[0].split())) if notice else None


def is_vendored(path: str) -> bool:
    """Whether the file is another project's, copied in: the licence of the repository says nothing about it."""
    return any(part.lower() in _VENDORED for part in PurePosixPath(path).parts[:-1])


def _resolve(tree: Any, accepted: Collection[str]) -> set[str] | None:
    """The accepted ids that satisfy an expression tree, or None when it asks for one that is not accepted."""
    if isinstance(tree, _spdx().AND):
        parts = [_resolve(part, accepted) for part in tree.args]
        return None if None in parts else set[str]().union(*filter(None, parts))
    if isinstance(tree, _spdx().OR):
        return next(filter(None, (_resolve(part, accepted) for part in tree.args)), None)
    return {str(tree)} if _base(str(tree)) in accepted else None


def _base(license_id: str) -> str:
    return license_id.partition(" WITH ")[0]


def _parse(expression: str) -> Any:
    """The tree of an expression whose ids are all SPDX's or `LicenseRef-…`, or None for anything else."""
    try:
        tree = _spdx().parse(expression)
    except license_expression.ExpressionError:
        return None
    unknown = () if tree is None else _spdx().unknown_license_keys(tree)
    return tree if all(key.startswith("LicenseRef-") for key in unknown) else None


def _normalise_field(field: str) -> str:
    """The expression that a License field means, or nothing."""
    name = " ".join(field.split())
    if name.lower() in _NAMES:
        return _NAMES[name.lower()]
    if _parse(name) is not None:
        return name
    text = name.lower() if len(name) <= _TEXT_LENGTH else ""
    return next((license_id for sentence, license_id in _TEXTS.items() if sentence in text), "")


def _normalise(name: str) -> str:
    return _normalise_field(name) or f"LicenseRef-{re.sub('[^A-Za-z0-9.]+', '-', name).strip('-')}"
