"""What the metadata of a package says about itself: the name, the version and the licence of a repository's root."""

import configparser
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_string
from email.message import Message
from importlib.metadata import PackageMetadata
from typing import Any, cast

from starcoder.corpus.license_names import join, parse, unclear
from starcoder.corpus.licenses import Declaration, declared_license, npm_license


@dataclass(frozen=True, slots=True)
class Package:
    """A package as its metadata describes it.

    Attributes:
        name: Empty when it is not stated.
        version: Empty when it is not stated.
        license: None when nothing is declared.
    """

    name: str = ""
    version: str = ""
    license: Declaration | None = None


def read_package(files: Mapping[str, bytes]) -> Package:
    """What the metadata files in the root of a repository say together; a file that cannot be parsed says nothing.

    What a built distribution declares (METADATA, PKG-INFO) stands alone if it is understood. Otherwise all licences
    that are declared apply: one repository may hold a Python package, a crate and an npm package side by side. What is
    not understood among them becomes a `LicenseRef-unclear-…`, which the text of a licence may explain.

    Args:
        files: Name → content; names that are not metadata are ignored.
    """
    packages = {name: _READERS[name](_text(files[name])) for name in _READERS if name in files}
    declared = {name: package.license for name, package in packages.items() if package.license}
    built = [name for name in ("METADATA", "PKG-INFO") if name in declared and _is_understood(declared[name])]
    return Package(
        name=next((package.name for package in packages.values() if package.name), ""),
        version=next((package.version for package in packages.values() if package.version), ""),
        license=_all_of({name: declared[name] for name in built[:1] or declared}),
    )


def normalise(name: str) -> str:
    """The one spelling of the name of a Python distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _all_of(declared: Mapping[str, Declaration]) -> Declaration | None:
    expressions = {declaration.expression for declaration in declared.values()}
    if len(expressions) <= 1:
        return next(iter(declared.values()), None)
    evidence = "; ".join(f"{name}: {each.evidence}" for name, each in declared.items())
    if not any(map(_is_understood, declared.values())):
        return Declaration("; ".join(sorted(expressions)), evidence)
    parts = (each.expression if _is_understood(each) else unclear(each.expression) for each in declared.values())
    return Declaration(join("AND", sorted(parts)), evidence)


def _is_understood(declared: Declaration) -> bool:
    return parse(declared.expression) is not None


def _core_metadata(text: str) -> Package:
    message = message_from_string(text)
    return Package(normalise(_string(message["Name"])), _string(message["Version"]), _python_license(message))


def _pyproject(text: str) -> Package:
    parsed = _toml(text)
    project = _table(parsed.get("project")) or _table(_table(parsed.get("tool")).get("poetry"))
    license = project.get("license")
    stated = _string(_table(license).get("text") if isinstance(license, dict) else license)
    # A string under [project] is an expression (PEP 639); the older table, and Poetry's, are like the License field.
    explicit = isinstance(license, str) and "project" in parsed and parse(stated) is not None
    message = Message()
    message["License-Expression" if explicit else "License"] = stated
    for classifier in _list(project.get("classifiers")):
        message["Classifier"] = classifier
    name, version = _string(project.get("name")), _string(project.get("version"))
    return Package(normalise(name), version, _python_license(message))


def _setup_cfg(text: str) -> Package:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
        fields = dict(parser["metadata"]) if "metadata" in parser else {}
    except configparser.Error:
        return Package()
    message = Message()
    message["License"] = fields.get("license", "")
    for classifier in fields.get("classifiers", fields.get("classifier", "")).splitlines():
        message["Classifier"] = classifier.strip()
    return Package(normalise(fields.get("name", "")), fields.get("version", ""), _python_license(message))


def _package_json(text: str) -> Package:
    try:
        parsed = _table(json.loads(text))
        json.dumps(parsed, ensure_ascii=False).encode()  # JSON can spell half a character
    except (ValueError, RecursionError):
        return Package()
    return Package(_string(parsed.get("name")), _string(parsed.get("version")), _stated(npm_license(parsed)))


def _cargo(text: str) -> Package:
    parsed = _toml(text)
    package = _table(parsed.get("package"))
    license = package.get("license")
    if not isinstance(license, str):  # a workspace states it for its members
        license = _table(_table(parsed.get("workspace")).get("package")).get("license")
    expression = _string(license).replace("/", " OR ")  # the spelling of before SPDX expressions
    return Package(
        _string(package.get("name")),
        _string(package.get("version")),
        _stated(Declaration(expression, f"Cargo.toml: {expression}")),
    )


_READERS = {
    "METADATA": _core_metadata,
    "PKG-INFO": _core_metadata,
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup_cfg,
    "package.json": _package_json,
    "Cargo.toml": _cargo,
}
METADATA_FILES = frozenset(_READERS)
"""Names of the files that `read_package` understands."""


def _python_license(message: Message) -> Declaration | None:
    # A message has all that is used of the protocol.
    return _stated(declared_license(cast(PackageMetadata, message)))


def _stated(declared: Declaration) -> Declaration | None:
    return declared if declared.expression.strip() else None


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", errors="replace")


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
