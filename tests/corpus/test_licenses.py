import importlib.metadata
import json
import pickle
from collections import Counter
from email.message import Message
from pathlib import Path
from typing import Any

import license_expression
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from starcoder.corpus.document import Rejection
from starcoder.corpus.license_names import parse, resolve
from starcoder.corpus.licenses import (
    PERMISSIVE,
    Declaration,
    RepositoryLicenses,
    accepted_licenses,
    declared_license,
    file_license,
    is_license_file,
    is_vendored,
    judge_license,
    npm_license,
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
        ("MIT WITH LicenseRef-scancode-commons-clause", "licence not permissive"),
        ("MIT WITH LicenseRef-Ours OR ISC", ("ISC",)),
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


def _spelled(tree: Any) -> str:
    return tree if isinstance(tree, str) else "(" + f" {tree[0]} ".join(map(_spelled, tree[1])) + ")"


def _allowed(tree: Any, accepted: frozenset[str]) -> bool:
    if isinstance(tree, str):
        return tree in accepted
    operator, parts = tree
    return (all if operator == "AND" else any)(_allowed(part, accepted) for part in parts)


@given(_TREES, st.frozensets(_IDS))
def test_and_needs_all_or_needs_one(tree: Any, extra: frozenset[str]) -> None:
    accepted = PERMISSIVE | extra
    verdict = judge_license(_spelled(tree), accepted)
    assert isinstance(verdict, tuple) == _allowed(tree, accepted)
    if isinstance(verdict, tuple):
        assert verdict
        assert set(verdict) <= accepted
        assert judge_license(_spelled(tree), frozenset(verdict)) == verdict  # these ids alone satisfy the expression


@given(st.text())
@example("(" * 5000)
@example("MIT AND " * 5000)
@example("MIT WITH MIT")
@example("GPL-2.0+ OR")
@example("(MIT AND (ISC OR " * 90 + "MIT" + "))" * 90)
@example("(MIT AND (ISC OR " * 900 + "MIT" + "))" * 900)
def test_no_expression_crashes(text: str) -> None:
    """Whatever stands in metadata, it is judged; a name that is resolved is an expression."""
    assert judge_license(text)
    assert resolve(text) == "" or parse(resolve(text)) is not None


def _metadata(*fields: tuple[str, str]) -> Any:
    message = Message()
    for name, value in fields:
        message.add_header(name, value)
    return message


def _text(license_id: str) -> str:
    """The text of a licence, from the installed distributions that are under it."""
    distribution, path = {
        "MIT": ("pytest", "licenses/LICENSE"),
        "BSD-3-Clause": ("jinja2", "licenses/LICENSE.txt"),
        "BSD-2-Clause": ("pygments", "licenses/LICENSE"),
        "Apache-2.0": ("requests", "licenses/LICENSE"),
        "MPL-2.0": ("hypothesis", "licenses/LICENSE.txt"),
    }[license_id]
    text = importlib.metadata.distribution(distribution).read_text(path)
    assert text is not None
    return text


# The notice by which a program is put under the GNU licence.
_GPL = """\
This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
License as published by the Free Software Foundation, version 3 of the License.

This program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the implied
warranty of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more details.
"""
_CLAUSE = """\
"Commons Clause" License Condition v1.0

Without limiting other conditions in the License, the grant of rights under the License will not include, and the
License does not grant to you, the right to Sell the Software.

"""
_TERMS = """\
END USER LICENSE AGREEMENT

This software is confidential and proprietary. You may not copy, modify, distribute or use it in any manner, except with
the prior written consent of its owner. By installing it you accept these terms.
"""
_NONE = "Do what is right, and ask us when in doubt what that is."

_APACHE = ("Classifier", "License :: OSI Approved :: Apache Software License")
_BSD = ("Classifier", "License :: OSI Approved :: BSD License")
_GPL_CLASS = ("Classifier", "License :: OSI Approved :: GNU General Public License v3 (GPLv3)")

_PROPRIETARY = ("Classifier", "License :: Other/Proprietary License")


@pytest.mark.parametrize(
    ("fields", "expression", "evidence"),
    [
        ([("License-Expression", "MIT"), ("License", "GPL-3.0-only"), _BSD], "MIT", "License-Expression"),
        ([("License", "Apache 2.0 License")], "Apache-2.0", "License: Apache 2.0 License"),
        ([("License", "BSD-2-Clause"), _BSD], "BSD-2-Clause", "License: BSD-2-Clause"),
        ([("License", "BSD")], "BSD-3-Clause", "License: BSD"),
        ([("License", "Dual License"), _BSD, _APACHE], "Apache-2.0 AND BSD-3-Clause", None),
        ([("License", "UNKNOWN"), _APACHE], "Apache-2.0", "classifier: Apache Software License"),
        (  # a contradiction
            [("License", "MIT"), _GPL_CLASS],
            "MIT AND GPL-3.0-only",
            "License: MIT; classifier: GNU General Public License v3 (GPLv3)",
        ),
        ([("License", "MIT"), _PROPRIETARY], "MIT AND LicenseRef-Other-Proprietary-License", None),
        ([("License", "MIT OR GPL-3.0-or-later"), _GPL_CLASS], "MIT OR GPL-3.0-or-later", None),
        ([("License", "GPL"), _GPL_CLASS], "GPL-3.0-only", None),
        ([("License", "MIT"), _BSD, ("Classifier", "License :: OSI Approved")], "MIT AND BSD-3-Clause", None),
        ([("License-Expression", "MIT"), _GPL_CLASS], "MIT", "License-Expression"),
        ([("License", "UNKNOWN")], "", ""),
        ([_APACHE, _GPL_CLASS], "Apache-2.0 AND GPL-3.0-only", None),
        ([_BSD, ("Classifier", "License :: OSI Approved")], "BSD-3-Clause", "classifier: BSD License"),
        ([("Classifier", "License :: Other/Proprietary License")], "LicenseRef-Other-Proprietary-License", None),
        ([("Classifier", "Programming Language :: Python :: 3")], "", ""),
        ([("License", "Our own\n terms")], "Our own terms", "License"),
        ([("License", "https://opensource.org/licenses/MIT")], "MIT", "License: https://opensource.org/licenses/MIT"),
    ],
)
def test_declared_license(fields: list[tuple[str, str]], expression: str, evidence: str | None) -> None:
    declared = declared_license(_metadata(*fields))
    assert declared.expression == expression
    assert evidence is None or declared.evidence == evidence


@pytest.mark.parametrize("license_id", ["MIT", "BSD-3-Clause", "BSD-2-Clause", "Apache-2.0", "MPL-2.0"])
def test_metadata_that_holds_the_text(license_id: str) -> None:
    declared = declared_license(_metadata(("License", _text(license_id))))
    assert declared.expression == license_id
    assert declared.evidence.startswith(f"License: {license_id} ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MIT", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("MIT Licence", "MIT"),
        ("MIT, see LICENSE for details", "MIT"),
        ("MIT License, Copyright (c) 2019 The Authors", "MIT"),
        ("License :: OSI Approved :: MIT License", "MIT"),
        ("MIT/X11", "MIT"),
        ("MIT (https://opensource.org/licenses/MIT)", "MIT"),
        ("http://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
        ("https://www.gnu.org/licenses/gpl-3.0.en.html", "GPL-3.0-only"),
        ("https://opensource.org/licenses/bsd-license.php", "BSD-3-Clause"),
        ("https://github.com/x/mit/blob/main/LICENSE", ""),
        ("Apache 2", "Apache-2.0"),
        ("apache2", "Apache-2.0"),
        ("ASL 2", "Apache-2.0"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache License Version 2.0, January 2004", "Apache-2.0"),
        ("Apache Software License 2.0", "Apache-2.0"),
        ("Apache License v2.0 with LLVM Exceptions", "Apache-2.0 WITH LLVM-exception"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ("New BSD", "BSD-3-Clause"),
        ("Modified BSD License", "BSD-3-Clause"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("BSD (3-clause)", "BSD-3-Clause"),
        ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause"),
        ("Simplified BSD", "BSD-2-Clause"),
        ("BSD 2-Clause License", "BSD-2-Clause"),
        ("0BSD", "0BSD"),
        ("ISC License (ISCL)", "ISC"),
        ("PSF", "PSF-2.0"),
        ("Python Software Foundation License", "PSF-2.0"),
        ("Python License (CNRI Python License)", "CNRI-Python"),
        ("Historical Permission Notice and Disclaimer (HPND)", "HPND"),
        ("zlib/libpng License", "Zlib"),
        ("ZPL 2.1", "ZPL-2.1"),
        ("The Unlicense (Unlicense)", "Unlicense"),
        ("Boost Software License 1.0 (BSL-1.0)", "BSL-1.0"),
        ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
        ("MPL 2.0", "MPL-2.0"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("Eclipse Public License 2.0 (EPL-2.0)", "EPL-2.0"),
        ("GPL", "GPL-1.0-or-later"),
        ("GPLv3", "GPL-3.0-only"),
        ("GPL-2.0+", "GPL-2.0-or-later"),
        ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
        ("GNU GPL v2, or (at your option) any later version", "GPL-2.0-or-later"),
        ("GNU Library or Lesser General Public License (LGPL)", "LGPL-2.0-or-later"),
        ("GNU Affero General Public License v3 or later (AGPLv3+)", "AGPL-3.0-or-later"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("BSD or Apache License, Version 2.0", "BSD-3-Clause OR Apache-2.0"),
        ("MIT and GPLv3", "MIT AND GPL-3.0-only"),
        ("Public Domain", "LicenseRef-Public-Domain"),
        ("NVIDIA Proprietary Software", "LicenseRef-NVIDIA-Proprietary-Software"),
        ("Free for non-commercial use", "LicenseRef-Free-for-non-commercial-use"),
        ("MIT with Commons Clause", "LicenseRef-MIT-with-Commons-Clause"),
        # What is not certain stays unknown.
        ("MIT with additional terms", ""),
        ("Apache 2.0 (modified)", ""),
        ("BSD-like", ""),
        ("BSL 1.1", ""),  # the Business Source Licence, which is not Boost's
        ("MIT and GPL or BSD", ""),
        ("(MIT or GPL) and BSD", ""),
        ("MIT and Ours", ""),
        ("Dual License", ""),
        ("see LICENSE", ""),
        ("OSI Approved", ""),
        ("UNKNOWN", ""),
        ("", ""),
    ],
)
def test_names_as_they_stand_in_real_metadata(name: str, expected: str) -> None:
    assert resolve(name) == expected


@pytest.mark.parametrize(
    ("package", "expression", "evidence"),
    [
        ({"license": "MIT"}, "MIT", "package.json"),
        ({"license": "(MIT OR Apache-2.0)"}, "MIT OR Apache-2.0", "package.json"),
        ({"license": "Apache 2.0"}, "Apache-2.0", "package.json: Apache 2.0"),
        ({"license": {"type": "BSD", "url": "https://x"}}, "BSD-3-Clause", "package.json: BSD"),
        ({"licenses": [{"type": "MIT"}, {"type": "GPL-2.0"}]}, "MIT OR GPL-2.0-only", "package.json"),
        ({"license": ["MIT", "Apache 2"]}, "MIT OR Apache-2.0", "package.json: MIT OR Apache 2"),
        ({"license": "UNLICENSED"}, "LicenseRef-UNLICENSED", "package.json: UNLICENSED"),
        ({"license": "SEE LICENSE IN LICENSE.md"}, "SEE LICENSE IN LICENSE.md", "package.json"),
        ({"licenses": [{"type": "MIT"}, {"type": "Ours"}]}, "MIT OR Ours", "package.json"),
        ({"license": None}, "", ""),
        ({"license": 3, "licenses": "MIT"}, "", ""),
        ({"license": [{"url": "https://x"}, 7, {"type": ["MIT"]}]}, "", ""),
        ({}, "", ""),
    ],
)
def test_npm_license(package: dict[str, Any], expression: str, evidence: str) -> None:
    assert npm_license(package) == Declaration(expression, evidence)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("LICENSE", True),
        ("license.txt", True),
        ("LICENCE.md", True),
        ("pkg/COPYING.LESSER", True),
        ("COPYING3", True),
        ("LICENSE-MIT", True),
        ("MIT-LICENSE.txt", True),
        ("apache-2.0.LICENSE", True),
        ("UNLICENSE", True),
        ("LICENSE.rst", True),
        ("x-1.0.dist-info/licenses/some-terms.txt", True),
        ("x-1.0.dist-info/LICENSE", True),
        ("x-1.0.dist-info/licenses/AUTHORS.rst", False),
        ("x-1.0.dist-info/licenses/NOTICE", False),
        ("x-1.0.dist-info/METADATA", False),
        ("NOTICE", False),
        ("NOTICE.txt", False),
        ("LICENSE-3rdparty.txt", False),
        ("LICENSES_bundled.txt", False),
        ("ThirdPartyLicenses.txt", False),
        ("licenses.py", False),
        ("license-header.js", False),
        ("licenses.json", False),
        ("debug/ICON_LICENSE.md", False),
        ("docs/licensing.md", False),
        ("README.md", False),
        ("", False),
    ],
)
def test_license_files_by_their_names(path: str, expected: bool) -> None:
    assert is_license_file(path) == expected


def _of(declared: Declaration | None, path: str = "pkg/x.py", **texts: str) -> Declaration:
    return RepositoryLicenses(declared, {name: text.encode() for name, text in texts.items()}).of(path)


_EXPLICIT = "License-Expression"


@pytest.mark.parametrize(
    ("declared", "texts", "expression", "evidence"),
    [
        (Declaration("MIT", "License: MIT"), {}, "MIT", "License: MIT"),
        (None, {}, "", ""),
        (None, {"LICENSE": _text("MIT")}, "MIT", "LICENSE: MIT 0.98"),
        (None, {"LICENSE": _NONE}, "", "LICENSE: not understood 0.00"),
        (None, {"LICENSE": "Apache 2.0"}, "Apache-2.0", "LICENSE: Apache-2.0 1.00"),
        (Declaration("MIT", "License: MIT"), {"LICENSE": _text("MIT")}, "MIT", "License: MIT; LICENSE: MIT 0.98"),
        (
            Declaration("MIT", "License: MIT"),
            {"LICENSE": _NONE},
            "MIT",
            "License: MIT; LICENSE: not understood 0.00",
        ),
        (  # a contradiction, even of an explicit expression
            Declaration("MIT", _EXPLICIT),
            {"LICENSE": _GPL},
            "MIT AND GPL-3.0-only",
            "License-Expression; LICENSE: GPL-3.0-only 1.00",
        ),
        (  # the text cannot tell whether later versions are allowed
            Declaration("GPL-3.0-or-later", "License: GPLv3+"),
            {"LICENSE": _GPL},
            "GPL-3.0-or-later",
            None,
        ),
        (  # a vague name, which the text makes precise
            Declaration("BSD-3-Clause", "classifier: BSD License"),
            {"LICENSE": _text("BSD-2-Clause")},
            "BSD-2-Clause",
            "classifier: BSD License; LICENSE: BSD-2-Clause 1.00",
        ),
        (
            Declaration("BSD-3-Clause", "License: BSD-3-Clause"),
            {"LICENSE": _text("BSD-2-Clause")},
            "BSD-3-Clause AND BSD-2-Clause",
            None,
        ),
        (  # what the user states is not vague
            Declaration("BSD-3-Clause", "stated for the source"),
            {"LICENSE": _text("BSD-2-Clause")},
            "BSD-3-Clause AND BSD-2-Clause",
            None,
        ),
        (  # files of one name that are about one folder
            None,
            {
                "LICENSE": _text("MIT"),
                "x-1.dist-info/LICENSE": _GPL,
                "y-1.dist-info/licenses/LICENSE": _text("MPL-2.0"),
            },
            "MIT AND GPL-3.0-only AND MPL-2.0",
            None,
        ),
        (Declaration("GPL-1.0-or-later", "License: GPL"), {"LICENSE": _GPL}, "GPL-3.0-only", None),
        (Declaration("MIT", "License: MIT"), {"LICENSE": _text("BSD-2-Clause")}, "MIT AND BSD-2-Clause", None),
        (  # alternatives with the text of each
            Declaration("MIT OR Apache-2.0", "License: MIT OR Apache-2.0"),
            {"LICENSE-MIT": _text("MIT"), "LICENSE-APACHE": _text("Apache-2.0")},
            "MIT OR Apache-2.0",
            "License: MIT OR Apache-2.0; LICENSE-APACHE: Apache-2.0 1.00; LICENSE-MIT: MIT 0.98",
        ),
        (
            Declaration("MIT OR Apache-2.0", "License: MIT OR Apache-2.0"),
            {"LICENSE": _GPL},
            "(MIT OR Apache-2.0) AND GPL-3.0-only",
            None,
        ),
        (
            None,
            {"LICENSE-MIT": _text("MIT"), "LICENSE-GPL": _GPL},
            "GPL-3.0-only AND MIT",
            None,
        ),
        (  # an exception adds permissions: the text without it is no other licence
            Declaration("Apache-2.0 WITH LLVM-exception", _EXPLICIT),
            {"LICENSE": _text("Apache-2.0")},
            "Apache-2.0 WITH LLVM-exception",
            None,
        ),
        (  # what is not understood gives way to the text
            Declaration("see LICENSE", "License"),
            {"LICENSE": _text("MIT")},
            "MIT",
            "License; LICENSE: MIT 0.98",
        ),
        (Declaration("Our own", "License"), {"LICENSE": _NONE}, "Our own", "License; LICENSE: not understood 0.00"),
        (  # a collection, with a statement about the whole distribution and without
            Declaration("MIT", _EXPLICIT),
            {"LICENSE": _text("MIT") + _text("MPL-2.0")},
            "MIT",
            "License-Expression; LICENSE: MIT 0.98 (bundles MPL-2.0)",
        ),
        (
            Declaration("MIT", "License: MIT"),
            {"LICENSE": _text("MIT") + _text("MPL-2.0")},
            "MIT AND MPL-2.0",
            None,
        ),
        (
            Declaration("ISC", _EXPLICIT),
            {"LICENSE": _text("MIT") + _text("MPL-2.0")},
            "ISC AND MIT AND MPL-2.0",
            None,
        ),
        (  # as in the wheels of NumPy and SciPy
            Declaration("BSD-3-Clause", "classifier: BSD License"),
            {"LICENSE": f"{_text('BSD-3-Clause')}\nThis binary distribution of x also bundles a library:\n{_GPL}"},
            "BSD-3-Clause",
            "classifier: BSD License; LICENSE: BSD-3-Clause 0.99 (bundles GPL-3.0-only)",
        ),
    ],
)
def test_all_that_is_said_about_the_root_counts(
    declared: Declaration | None, texts: dict[str, str], expression: str, evidence: str | None
) -> None:
    found = _of(declared, **texts)
    assert found.expression == expression
    assert evidence is None or found.evidence == evidence


_MIT = Declaration("MIT", _EXPLICIT)


@pytest.mark.parametrize(
    ("path", "expression"),
    [
        ("x.py", "MIT"),
        ("pkg/x.py", "MIT"),
        ("pkg/own/x.py", "BSD-2-Clause"),
        ("pkg/own/deep/x.py", "GPL-3.0-only"),
        ("pkg/owner/x.py", "MIT"),
        ("pkg/copy/x.py", "MIT"),
        ("pkg/odd/x.py", ""),
        ("pkg/points/x.py", "MIT"),
        ("pkg/own/points/x.py", "BSD-2-Clause"),
        ("pkg/typeshed/x.py", "Apache-2.0"),
    ],
)
def test_the_nearest_license_file_wins(path: str, expression: str) -> None:
    found = _of(
        _MIT,
        path,
        **{
            "x-1.dist-info/licenses/LICENSE": _text("MIT"),
            "pkg/own/LICENSE": _text("BSD-2-Clause"),
            "pkg/own/deep/COPYING": _GPL,
            "pkg/copy/LICENSE": _text("MIT"),
            "pkg/odd/LICENSE": _NONE,
            "pkg/points/LICENSE": "../../LICENSE",
            "pkg/own/points/LICENSE": "See the LICENSE in the folder above.",
            "x-1.dist-info/licenses/pkg/typeshed/LICENSE": _text("Apache-2.0"),
        },
    )
    assert found.expression == expression


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (_NONE, ""),
        (_TERMS, "LicenseRef-restricted-END-USER-LICENSE-AGREEMENT"),
        ("", "MIT"),
        ("Copyright (c) 2020 A. Author\nAll rights reserved.\n", "MIT"),
        ("../LICENSE", "MIT"),
        ("Copyright 2020 A. Author\n\nSee the file LICENSE in the root of this repository.", "MIT"),
        ("The same licence as the rest of the project.", "MIT"),
        ("See https://example.org/license for the terms.", ""),
        ("See LICENSE. Copying it is strictly prohibited.", "LicenseRef-restricted-is-strictly-prohibited"),
        ("See LICENSE. " + "We care about what you do with our code. " * 10, ""),
        ("ISC", "ISC"),
    ],
)
@pytest.mark.parametrize("declared", [_MIT, Declaration("MIT", "License: MIT"), None])
def test_only_what_points_elsewhere_leaves_a_folder_to_the_root(
    declared: Declaration | None, text: str, expression: str
) -> None:
    found = _of(declared, "pkg/odd/x.py", **{"LICENSE": _text("MIT"), "pkg/odd/LICENSE": text})
    assert found.expression == expression
    assert "pkg/odd/LICENSE: " in found.evidence
    assert _of(declared, "pkg/x.py", **{"LICENSE": _text("MIT"), "pkg/odd/LICENSE": text}).expression == "MIT"


def test_a_folder_whose_text_is_understood_in_part() -> None:
    """As in numpy/random, whose text holds two licences, one of them in words of its own."""
    texts = {"LICENSE": _text("MIT"), "pkg/LICENSE": _text("MIT") + "More about what we think. " * 60}
    assert _of(_MIT, **texts).expression == "MIT"
    assert _of(Declaration("MIT", "License: MIT"), **texts).expression == ""
    assert _of(Declaration("ISC", _EXPLICIT), **texts).expression == ""


@pytest.mark.parametrize(
    "words",
    [
        _CLAUSE,
        "The Software may not be used for commercial purposes.",
        "Use for training of machine learning models is forbidden.",
        "For non-commercial use.",
        "You must not copy, sell or redistribute the Software.",
        "This does not permit redistribution.",
        "You shall not reverse engineer it.",
        "Granted solely for internal evaluation.",
        "For academic use only.",
        "This license does not apply to use by companies of more than 100 employees.",
    ],
)
@pytest.mark.parametrize("license_id", ["MIT", "Apache-2.0", "BSD-3-Clause"])
def test_a_licence_with_a_restriction_is_not_that_licence(license_id: str, words: str) -> None:
    for text in (f"{words}\n\n{_text(license_id)}", f"{_text(license_id)}\n{words}\n"):
        for declared in (None, Declaration(license_id, _EXPLICIT), Declaration(license_id, "License: it")):
            found = _of(declared, LICENSE=text)
            verdict = judge_license(found.expression)
            assert isinstance(verdict, Rejection)
            assert verdict.reason == "licence not permissive"
            assert "LicenseRef-restricted-" in verdict.detail
            assert "LICENSE: not understood " in found.evidence
            assert '(restricts: "' in found.evidence


@pytest.mark.parametrize(
    "words",
    [
        "It is free for commercial and non-commercial use.",
        "Non-commercial and commercial use are both welcome.",
        "The name of the author may not be used to endorse products.",
        "The name shall not be used in advertising or otherwise to promote the sale.",
        "You may not use this file except in compliance with the License.",
        "This file may not be copied, modified, or distributed except according to those terms.",
        "The origin must not be misrepresented; you must not claim that you wrote it.",
        "This notice may not be removed or altered from any source distribution.",
        "You may use it in proprietary and in free software. All rights reserved.",
        "You do not have to pay us, so long as you do not modify the copyright information.",
        "If you do not agree, do not download, install, copy, distribute or use the data files.",
    ],
)
def test_what_permissive_licences_say_is_no_restriction(words: str) -> None:
    assert _of(None, LICENSE=f"{_text('MIT')}\n{words}\n").expression == "MIT"


def test_restrictive_terms_in_the_root_are_told_and_count() -> None:
    found = _of(Declaration("MIT", "License: MIT"), LICENSE=_TERMS)
    assert found.expression == "MIT AND LicenseRef-restricted-END-USER-LICENSE-AGREEMENT"
    assert found.evidence == ('License: MIT; LICENSE: not understood 0.00 (restricts: "END USER LICENSE AGREEMENT")')


def test_one_of_two_texts_is_no_copy_of_the_root() -> None:
    both = {"LICENSE-MIT": _text("MIT"), "LICENSE-GPL": _GPL}
    choice = Declaration("MIT OR GPL-3.0-or-later", _EXPLICIT)
    assert _of(choice, "sub/x.py", **both, **{"sub/COPYING": _GPL}).expression == "GPL-3.0-only"
    copies = {f"sub/{name}": text for name, text in both.items()}
    assert _of(choice, "sub/x.py", **both, **copies).expression == choice.expression
    plus = Declaration("GPL-3.0-or-later", _EXPLICIT)
    assert _of(plus, "sub/x.py", COPYING=_GPL, **{"sub/COPYING": _GPL}).expression == plus.expression


@pytest.mark.parametrize(
    ("expression", "texts", "expected"),
    [
        ("GPL-3.0-only AND LicenseRef-unclear-SEE", {}, "GPL-3.0-only AND LicenseRef-unclear-SEE"),
        ("GPL-3.0-only AND LicenseRef-unclear-SEE", {"LICENSE": _NONE}, "GPL-3.0-only AND LicenseRef-unclear-SEE"),
        ("GPL-3.0-only AND LicenseRef-unclear-SEE", {"LICENSE": _text("MIT")}, "GPL-3.0-only AND MIT"),
        ("MIT AND LicenseRef-unclear-SEE", {"LICENSE": _text("MIT")}, "MIT"),
        ("MIT AND LicenseRef-unclear-SEE", {"LICENSE": _TERMS}, "licence not permissive"),
    ],
)
def test_a_text_explains_the_part_of_a_declaration_that_is_unclear(
    expression: str, texts: dict[str, str], expected: str
) -> None:
    found = _of(Declaration(expression, "two files"), **texts)
    verdict = judge_license(found.expression)
    assert expected in (found.expression, verdict.reason if isinstance(verdict, Rejection) else "")


@pytest.mark.parametrize(
    "text",
    [" \n" * 500_000, "may not " * 50_000, "(c)\n" * 50_000, "no x " * 50_000, "-" * 10**6, "see " * 50_000],
)
def test_no_text_takes_long(text: str) -> None:
    assert _of(None, LICENSE=text).expression == ""
    assert file_license(text) is None


def test_any_number_of_licenses_in_one_folder() -> None:
    names = sorted(PERMISSIVE)
    found = _of(Declaration("MIT OR ISC", "License: MIT OR ISC"), **{f"LICENSE-{name}": name for name in names})
    assert judge_license(found.expression) == tuple(name for name in names if name != "ISC")  # MIT is enough


def test_repository_licenses_travel() -> None:
    licenses = RepositoryLicenses(_MIT, {"LICENSE": _text("MIT").encode(), "a/LICENSE": b"\xff\xfe\0"})
    assert pickle.loads(pickle.dumps(licenses)).of("a/x.py") == licenses.of("a/x.py")


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
def test_metadata_of_what_we_depend_on(name: str, expected: tuple[str, ...] | str) -> None:
    verdict = judge_license(declared_license(importlib.metadata.metadata(name)).expression)
    assert (verdict.reason if isinstance(verdict, Rejection) else verdict) == expected


def test_all_installed_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    """Tells the share of megabytes whose licence is not understood; what we depend on is permissive."""
    sizes: Counter[str] = Counter()
    kept = set()
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata
        files = {file.as_posix(): file for file in distribution.files or [] if ".." not in file.parts}
        found = {path: file.read_binary() for path, file in files.items() if is_license_file(path)}
        licenses = RepositoryLicenses(declared_license(metadata), found)
        expressions = Counter[str]()
        for path, file in files.items():
            expressions[licenses.of(path).expression] += (file.size or 0) if path.endswith(".py") else 0
        for expression, size in expressions.items():
            verdict = judge_license(expression)
            sizes[verdict.reason if isinstance(verdict, Rejection) else "permissive"] += size
            kept |= set() if isinstance(verdict, Rejection) else {metadata["Name"].lower()}
    with capsys.disabled():
        shares = ", ".join(f"{reason} {size / sizes.total():.2%}" for reason, size in sizes.most_common())
        print(f"\nlicences of the installed Python files: {shares}")
    assert {"numpy", "torch", "pyarrow", "lightning", "tokenizers", "litdata", "license-expression"} <= kept
    assert not {"hypothesis", "tqdm"} & kept


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
        ("# SPDX-License-Identifier: MIT\n# below:\n# SPDX-License-Identifier: GPL-3.0-only\n", "GPL-3.0-only"),
        ("# SPDX-License-Identifier: MIT\n# SPDX-License-Identifier: ISC\n", ("ISC", "MIT")),
        ("# SPDX-License-Identifier: MIT\n# GNU General Public License v2 applies\n", "GNU General Public"),
        ("// SPDX-License-Identifier: GPL-2.0 OR MIT\n// GNU General Public License\n", ("MIT",)),
    ],
)
def test_file_license(head: str, expected: tuple[str, ...] | str | None) -> None:
    verdict = file_license(head)
    if isinstance(expected, str):
        assert verdict == Rejection("file under another licence", expected)
    else:
        assert verdict == expected


_HEADERS = [
    "This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0.",
    "made available under the terms of the Eclipse Public License v1.0, which accompanies it",
    "it under the terms of the GNU Lesser General Public License as published by the FSF",
    "it under the terms of the GNU Affero General Public License, version 3",
    "You should have received a copy of the GNU General Public License along with this program.",
    "of the Common Development and Distribution License (the License).",
    "Use of this software is governed by the Business Source License included in it",
    "it under the terms of the Server Side Public License, version 1",
    "Licensed under the Apache License with the Commons Clause added to it",
    "Licensed under the European Union Public Licence, version 1.2",
    "you may not use this file except in compliance with the Elastic License.",
    "Creative Commons Attribution-NonCommercial 4.0",
    "it is licensed under the GPLv3, see COPYING",
    "You may use it under the terms of the LGPL, version 2.1 or later",
    "License: AGPL-3.0-or-later",
    "it is licensed under CC BY-NC-SA 4.0",
    "this is covered by the MPL",
    "distributed under either the GPL or the LGPL",
    "released under the MS-RL",
]
_LEADERS = ["", " * ", "# ", "// ", "-- ", "; ", "% ", "! ", "dnl ", "REM ", "C  ", "\t", '.\\" ', "\r\n * "]


@pytest.mark.parametrize("leader", _LEADERS)
@pytest.mark.parametrize("header", _HEADERS)
def test_notices_wherever_their_lines_break(header: str, leader: str) -> None:
    words = header.split()
    for at in range(1, len(words)):
        head = f"{leader}{' '.join(words[:at])}\n{leader}{' '.join(words[at:])}\n"
        verdict = file_license(head, ["MIT"])
        assert isinstance(verdict, Rejection), head
        assert len(verdict.detail) >= len("by the MPL")
        assert verdict.detail in header


@pytest.mark.parametrize(
    "head",
    [
        "# This licence is approved by the OSI as GPL-compatible.",
        "# Originally released under LGPL. Graciously donated to us.",
        "# Licensed under the MIT or GPL Version 2 licenses.",
        "// Dual licensed under the MIT and GPL licenses",
        "/* dual-licensed: Apache License 2.0 or GNU General Public License v2 */",
        "# under the terms of the GPL or the MIT license",
        "# The parser of GPL texts; a GPL or an MPL file is told from others",
        "LICENSES = ['GPL-2.0', 'LGPL-2.1', 'MPL-2.0', 'CDDL-1.0', 'MIT']",
        "{'agpl-1.0': {'id': 'AGPL-1.0', 'deprecated': True}}",
        "import matplotlib as mpl\nlicense = mpl.license",
        "# Lexer for the concise data definition language (CDDL)",
        "# a public licence, and the general public",
        "x = 1\n" * 600 + "# Licensed under the GPL",
    ],
)
def test_a_file_that_mentions_a_licence_is_not_under_it(head: str) -> None:
    assert file_license(head, ["MIT"]) is None


@pytest.mark.parametrize(
    "head", ["# GPL-3.0-or-later", "// LGPL-2.1+", "/* GPLv2 */", "-- MPL-2.0 license", "license = 'LGPL',"]
)
def test_an_id_in_a_line_of_its_own_is_a_notice(head: str) -> None:
    assert isinstance(file_license(f"# Copyright 2020\n{head}\nx = 1\n", ["MIT"]), Rejection)


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
