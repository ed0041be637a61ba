import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.licenses import Declaration
from starcoder.corpus.sources.metadata import METADATA_FILES, Package, read_package


def read(**files: str | bytes) -> Package:
    names = {
        name.replace("_json", ".json").replace("_toml", ".toml").replace("_cfg", ".cfg"): text
        for name, text in files.items()
    }
    return read_package({name: text.encode() if isinstance(text, str) else text for name, text in names.items()})


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("METADATA", "Name: Ruamel.yaml_x\nVersion: 1.2\nLicense-Expression: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("METADATA", "Name: é\nLicense: MIT\n\nLicense: GPL in the description\n", "MIT"),
        ("PKG-INFO", "Classifier: License :: OSI Approved :: MIT License\nClassifier: Typing :: Typed\n", "MIT"),
        ("pyproject.toml", "[project]\nlicense = 'MIT OR Apache-2.0'", "MIT OR Apache-2.0"),
        ("pyproject.toml", "[project]\nlicense = {text = 'Apache 2.0'}", "Apache-2.0"),
        ("pyproject.toml", "[project]\nlicense = {file = 'LICENSE'}", None),
        ("pyproject.toml", "[project]\nclassifiers = ['License :: OSI Approved :: MIT License']", "MIT"),
        ("pyproject.toml", "[tool.poetry]\nlicense = 'BSD-2-Clause'", "BSD-2-Clause"),
        ("pyproject.toml", "[project]\nname = 'x'", None),
        ("setup.cfg", "[metadata]\nlicense = MIT", "MIT"),
        (
            "setup.cfg",
            "[metadata]\nclassifiers =\n    Typing :: Typed\n    License :: OSI Approved :: MIT License",
            "MIT",
        ),
        ("setup.cfg", "[flake8]\nmax-line-length = 100", None),
        ("package.json", '{"license": "(MIT OR GPL-2.0)"}', "MIT OR GPL-2.0-only"),
        ("package.json", '{"license": {"type": "MIT"}}', "MIT"),
        ("package.json", "{}", None),
        ("Cargo.toml", "[package]\nlicense = 'MIT/Apache-2.0'", "MIT OR Apache-2.0"),
        ("Cargo.toml", "[package]\nlicense.workspace = true\n[workspace.package]\nlicense = 'ISC'", "ISC"),
        ("Cargo.toml", "[workspace]\nmembers = []", None),
    ],
)
def test_what_each_file_declares(name: str, text: str, expected: str | None) -> None:
    declared = read_package({name: text.encode()}).license
    assert (declared and declared.expression) == expected


def test_name_and_version() -> None:
    assert read(METADATA="Name: Ruamel.yaml_x\nVersion: 1.2\n") == Package("ruamel-yaml-x", "1.2")
    assert read(package_json='{"name": "@scope/x", "version": "2.0.0"}') == Package("@scope/x", "2.0.0")
    assert read(Cargo_toml="[package]\nname = 'x'\nversion = '3'") == Package("x", "3")
    assert read() == Package()


def test_all_that_is_declared_for_a_repository_applies() -> None:
    python, npm = "[project]\nlicense = 'MIT'", '{"license": "GPL-3.0-only"}'
    assert read(pyproject_toml=python, package_json='{"license": "MIT"}').license == Declaration(
        "MIT", "License-Expression"
    )
    assert read(pyproject_toml=python, package_json=npm).license == Declaration(
        "GPL-3.0-only AND MIT", "pyproject.toml: License-Expression; package.json: package.json"
    )


def test_what_is_not_understood_does_not_take_the_rest_with_it() -> None:
    gpl = "[project]\nlicense = 'GPL-3.0-or-later'"
    mixed = read(pyproject_toml=gpl, package_json='{"license": "SEE LICENSE IN LICENSE"}').license
    assert mixed
    assert mixed.expression == "GPL-3.0-or-later AND LicenseRef-unclear-SEE-LICENSE-IN-LICENSE"
    assert mixed.evidence == "pyproject.toml: License-Expression; package.json: package.json"
    for unknown in ("UNKNOWN", "unknown", ""):
        built = {"PKG-INFO": f"Name: x\nLicense: {unknown}\n"}
        assert read(pyproject_toml=gpl, **built).license == Declaration("GPL-3.0-or-later", "License-Expression")
    own = read(pyproject_toml=gpl, **{"PKG-INFO": "Name: x\nLicense: Our own\n"}).license
    assert own
    assert own.expression == "GPL-3.0-or-later AND LicenseRef-unclear-Our-own"
    neither = read(pyproject_toml="[project]\nlicense = 'Ours'", package_json='{"license": "SEE LICENSE"}').license
    assert neither
    assert neither.expression == "Ours; SEE LICENSE"


def test_only_an_expression_replaces_the_classifiers() -> None:
    classifiers = "classifiers = ['License :: OSI Approved :: GNU General Public License v3 (GPLv3)']"
    for start, expected in {
        "[project]\nlicense = 'MIT'": "MIT",
        "[project]\nlicense = {text = 'MIT'}": "MIT AND GPL-3.0-only",
        "[tool.poetry]\nlicense = 'MIT'": "MIT AND GPL-3.0-only",
    }.items():
        declared = read(pyproject_toml=f"{start}\n{classifiers}").license
        assert declared
        assert declared.expression == expected


def test_a_built_distribution_speaks_for_itself() -> None:
    built = "Name: x\nLicense-Expression: MIT\n"
    assert read(METADATA=built, package_json='{"license": "GPL-3.0-only"}').license == Declaration(
        "MIT", "License-Expression"
    )
    silent = read(**{"PKG-INFO": "Name: x\n"}, pyproject_toml="[project]\nlicense = 'ISC'")
    assert silent.license == Declaration("ISC", "License-Expression")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["MIT", "\ud800"]),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["license", "licenses", "type", "name", "version"]), inner)
    ),
)


@given(_VALUES)
def test_any_json_is_understood_or_says_nothing(value: Any) -> None:
    package = read(package_json=json.dumps(value))
    assert isinstance(package.name + package.version, str)
    assert (package.name + package.version).encode() is not None


@given(st.binary(), st.sampled_from(sorted(METADATA_FILES)))
def test_any_bytes_are_understood_or_say_nothing(data: bytes, name: str) -> None:
    assert read_package({name: data}).name.encode() is not None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("package.json", "[" * 10**5),
        ("pyproject.toml", "a = " + "[" * 10**5),
        ("Cargo.toml", "[package]\nlicense = 5"),
        ("pyproject.toml", "project = 1"),
        ("setup.cfg", "no section"),
    ],
)
def test_hostile_metadata_says_nothing(name: str, text: str) -> None:
    assert read_package({name: text.encode()}).license is None
