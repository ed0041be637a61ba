import importlib.metadata
import json
from email.message import Message
from pathlib import Path

import license_expression
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.corpus.document import Rejection
from starcoder.corpus.licenses import (
    PERMISSIVE,
    accepted_licenses,
    declared_license,
    file_license,
    is_vendored,
    judge_license,
)
from starcoder.errors import UserError


def test_permissive_ids_are_permissive_in_an_independent_list() -> None:
    """ScanCode's database, which license-expression carries, has a category for each licence."""
    index = Path(license_expression.__file__).parent / "data/scancode-licensedb-index.json"
    entries = json.loads(index.read_text())
    category = {entry["spdx_license_key"]: entry["category"] for entry in entries if entry.get("spdx_license_key")}
    assert {category[name] for name in PERMISSIVE} == {"Permissive", "Public Domain"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", ("MIT",)),
        ("mit", ("MIT",)),
        ("Apache-2.0 AND MIT", ("Apache-2.0", "MIT")),
        ("Apache-2.0 OR BSD-2-Clause", ("Apache-2.0",)),
        ("GPL-2.0-only OR BSD-3-Clause", ("BSD-3-Clause",)),
        ("Apache-2.0 WITH LLVM-exception", ("Apache-2.0 WITH LLVM-exception",)),
        ("(MIT OR GPL-3.0-only) AND Zlib", ("MIT", "Zlib")),
        ("MPL-2.0 AND MIT", Rejection("licence not permissive", "MPL-2.0 AND MIT")),
        ("GPL-2.0", Rejection("licence not permissive", "GPL-2.0-only")),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "licence not permissive"),
        ("LicenseRef-NVIDIA-Proprietary", "licence not permissive"),
        ("Apache-2.0 WITH no-such-exception", "licence unknown"),
        ("Dual License", "licence unknown"),
        ("BSD", "licence unknown"),
        ("MIT AND", "licence unknown"),
        ("", Rejection("licence unknown", "")),
    ],
)
def test_judge_license(expression: str, expected: tuple[str, ...] | Rejection | str) -> None:
    verdict = judge_license(expression)
    assert (verdict.reason if isinstance(verdict, Rejection) and isinstance(expected, str) else verdict) == expected


_IDS = st.sampled_from(["MIT", "Zlib", "ISC", "GPL-3.0-only", "MPL-2.0", "LicenseRef-Own"])
_TREES = st.recursive(
    _IDS, lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=3))
)


def _text(tree: object) -> str:
    return tree if isinstance(tree, str) else "(" + f" {tree[0]} ".join(map(_text, tree[1])) + ")"


def _allowed(tree: object, accepted: frozenset[str]) -> bool:
    if isinstance(tree, str):
        return tree in accepted
    operator, parts = tree
    return (all if operator == "AND" else any)(_allowed(part, accepted) for part in parts)


@settings(deadline=None)
@given(_TREES, st.frozensets(_IDS))
def test_and_needs_all_or_needs_one(tree: object, extra: frozenset[str]) -> None:
    accepted = PERMISSIVE | extra
    verdict = judge_license(_text(tree), accepted)
    assert isinstance(verdict, tuple) == _allowed(tree, accepted)
    if isinstance(verdict, tuple):
        assert verdict
        assert set(verdict) <= accepted
        assert judge_license(_text(tree), frozenset(verdict)) == verdict  # these ids alone satisfy the expression


def _metadata(*fields: tuple[str, str]) -> Message:
    message = Message()
    for name, value in fields:
        message.add_header(name, value)
    return message


_BSD3 = (
    "Redistribution and use in source and binary forms, with or without … Neither the name of the copyright holder …"
)
_APACHE = ("Classifier", "License :: OSI Approved :: Apache Software License")
_BSD = ("Classifier", "License :: OSI Approved :: BSD License")
_GPL = ("Classifier", "License :: OSI Approved :: GNU General Public License v3 (GPLv3)")


@pytest.mark.parametrize(
    ("fields", "expression"),
    [
        ([("License-Expression", "MIT"), ("License", "GPL-3.0-only"), _BSD], "MIT"),
        ([("License", "Apache 2.0 License")], "Apache-2.0"),
        ([("License", "BSD-2-Clause"), _BSD], "BSD-2-Clause"),
        ([("License", "BSD")], "BSD-3-Clause"),
        ([("License", _BSD3)], "BSD-3-Clause"),
        ([("License", _BSD3.partition("Neither")[0])], "BSD-2-Clause"),
        ([("License", "MIT License Copyright … Permission is hereby granted, free of charge, to …")], "MIT"),
        ([("License", f"{'Own terms. ' * 300} Permission is hereby granted, free of charge"), _GPL], "LicenseRef-"),
        ([("License", "Dual License"), _BSD, _APACHE], "Apache-2.0 AND BSD-3-Clause"),
        ([("License", "UNKNOWN"), _APACHE], "Apache-2.0"),
        ([_APACHE, _GPL], "Apache-2.0 AND LicenseRef-"),
        ([("Classifier", "License :: Other/Proprietary License")], "LicenseRef-Other-Proprietary-License"),
        ([("Classifier", "Programming Language :: Python :: 3")], ""),
        ([("License", "Our own terms")], "Our own terms"),
    ],
)
def test_declared_license(fields: list[tuple[str, str]], expression: str) -> None:
    declared = declared_license(_metadata(*fields))
    assert declared.startswith(expression) if expression.endswith("LicenseRef-") else declared == expression


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lightning", ("Apache-2.0",)),
        ("transformers", ("Apache-2.0",)),
        ("numpy", ("0BSD", "BSD-3-Clause", "CC0-1.0", "MIT", "Zlib")),
        ("hypothesis", "licence not permissive"),
        ("tqdm", "licence not permissive"),
    ],
)
def test_installed_distributions(name: str, expected: tuple[str, ...] | str) -> None:
    verdict = judge_license(declared_license(importlib.metadata.metadata(name)))
    assert (verdict.reason if isinstance(verdict, Rejection) else verdict) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("import os\n", None),
        ("// SPDX-License-Identifier: MIT\n", ("MIT",)),
        ("/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */\n", ("BSD-3-Clause",)),
        ("<!-- SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception -->", ("Apache-2.0 WITH LLVM-exception",)),
        ("# SPDX-License-Identifier: GPL-3.0-or-later\r\n", "GPL-3.0-or-later"),
        (" * under the terms of the GNU\n Lesser General Public License", "GNU Lesser General Public"),
        ("/* NOTICE TO LICENSEE: this source code is …", "NOTICE TO LICENSEE"),
        ("x = 1\n" * 1000 + "# NOTICE TO LICENSEE", None),
    ],
)
def test_file_license(head: str, expected: tuple[str, ...] | str | None) -> None:
    verdict = file_license(head)
    if isinstance(verdict, Rejection):
        assert verdict == Rejection("file under another licence", expected)
    else:
        assert verdict == expected


def test_notices_contradict_permissive_repositories_only() -> None:
    notice = "This is proprietary; copying it is strictly prohibited."
    assert isinstance(file_license(notice, ["MIT", "Apache-2.0 WITH LLVM-exception"]), Rejection)
    assert file_license(notice, ["LicenseRef-Ours"], accepted_licenses(["LicenseRef-Ours"])) is None


def test_accepted_licenses() -> None:
    assert accepted_licenses() == PERMISSIVE
    assert accepted_licenses(["MPL-2.0", "LicenseRef-Ours"]) - PERMISSIVE == {"MPL-2.0", "LicenseRef-Ours"}
    assert judge_license("MPL-2.0 AND MIT", accepted_licenses(["MPL-2.0"])) == ("MIT", "MPL-2.0")


@pytest.mark.parametrize("name", ["FOO", "", "GPL", "None", "MIT OR GPL-3.0-only"])
def test_unknown_id_is_the_users_error(name: str) -> None:
    with pytest.raises(UserError, match="no such SPDX licence id"):
        accepted_licenses(["MIT", name])


def test_vendored_code() -> None:
    assert is_vendored("pip/_vendor/rich/text.py")
    assert is_vendored("include/arrow/vendored/date.h")
    assert not is_vendored("pkg/_vendor.py")
    assert not is_vendored("pkg/vendor_list/x.py")
