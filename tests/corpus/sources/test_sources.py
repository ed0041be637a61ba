import io
import pickle
import tarfile
from pathlib import Path

import pytest

from starcoder.corpus.sources import SourceSpec, fingerprint, open_sources
from starcoder.corpus.sources.archives import Archives
from starcoder.corpus.sources.base import Source
from starcoder.corpus.sources.folder import Checkout, Folder
from starcoder.corpus.sources.installed import Installed
from starcoder.corpus.sources.stack import Stack
from starcoder.errors import UserError


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / "code" / name).mkdir(parents=True)
        (tmp_path / "code" / name / "a.py").write_text(f"# {name}\n")
    return tmp_path / "code"


def opened(*specs: SourceSpec) -> list[Source]:
    return open_sources(specs)[0]


def test_each_kind(repositories: Path) -> None:
    path = str(repositories)
    with tarfile.open(repositories / "x.tgz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x/a.py"), io.BytesIO())
    sources, messages = open_sources(
        [
            SourceSpec("installed"),
            SourceSpec("folder", path, "MIT"),
            SourceSpec("repository", f"{path}/one/", name="mine"),
            SourceSpec("archives", f"{path}/x.tgz"),
            SourceSpec("stack", "hf://datasets/bigcode/the-stack/data"),
            SourceSpec("stack", "s3://bucket?region=eu-west-1", "LicenseRef-Own"),
            SourceSpec("issues", path, "MIT", "issues"),
            SourceSpec("commits", path, name="history"),
        ]
    )
    assert sources[:6] == [
        Installed("installed"),
        Folder(repositories, "MIT", "code"),
        Checkout(repositories / "one", None, "mine"),
        Archives(repositories / "x.tgz", "x.tgz"),
        Stack("hf://datasets/bigcode/the-stack/data", None, "data"),
        Stack("s3://bucket?region=eu-west-1", "LicenseRef-Own", "bucket"),
    ]
    assert [source.name for source in sources[6:]] == ["issues", "history"]
    assert messages == []
    for source in sources:
        assert pickle.loads(pickle.dumps(source)).name == source.name


def test_two_sources_of_one_name(repositories: Path) -> None:
    path = str(repositories)
    specs = [
        SourceSpec("folder", path),
        SourceSpec("folder", path),
        SourceSpec("archives", path),
        SourceSpec("folder", path, None, "code-2"),
    ]
    sources, messages = open_sources(specs)
    assert [source.name for source in sources] == ["code", "code-3", "code-4", "code-2"]
    assert messages == [
        f"there is another source of the name code: that of {path} is called code-{number}" for number in (3, 4)
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SourceSpec("installed", "somewhere"), "installed: it takes no path"),
        (SourceSpec("installed", None, "MIT"), "each package declares its own"),
        (SourceSpec("archives", ".", "MIT"), "each package declares its own"),
        (SourceSpec("folder"), "folder: the path is missing"),
        (SourceSpec("folder", "/no/such/place"), "/no/such/place does not exist"),
        (SourceSpec("stack", "/no/such/place"), "/no/such/place does not exist"),
        (SourceSpec("repository", "s3://bucket/x"), "must be a local path"),
        (SourceSpec("folder", ".", "something free"), "something free is no SPDX licence expression"),
    ],
)
def test_wrong_sources(spec: SourceSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_sources([SourceSpec("installed"), spec])


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(UserError, match=r"^folder: the path is missing; issues: /nowhere does not exist$"):
        open_sources([SourceSpec("folder"), SourceSpec("issues", "/nowhere")])
    with pytest.raises(UserError, match="there are no sources"):
        open_sources([])


def test_fingerprint_follows_what_the_sources_hold(repositories: Path) -> None:
    spec = SourceSpec("folder", str(repositories), "MIT")
    seen = [fingerprint(opened(spec))]
    assert fingerprint(opened(spec)) == seen[0]
    seen.append(fingerprint(opened(SourceSpec("folder", str(repositories), "ISC"))))
    seen.append(fingerprint(opened(SourceSpec("folder", str(repositories), "MIT", "other"))))
    seen.append(fingerprint(opened(spec, SourceSpec("repository", str(repositories / "one")))))
    (repositories / "one/a.py").write_text("# longer than it was\n")
    seen.append(fingerprint(opened(spec)))
    (repositories / "one/b.py").touch()
    seen.append(fingerprint(opened(spec)))
    assert len(set(seen)) == len(seen)
