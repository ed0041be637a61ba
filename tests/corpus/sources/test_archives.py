import gzip
import io
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.licenses import judge_license
from starcoder.corpus.sources.archives import Archives
from starcoder.errors import UserError

SDIST = {
    "demo-1.0/PKG-INFO": b"Metadata-Version: 2.4\nName: Demo_Pkg\nVersion: 1.0\nLicense-Expression: MIT\n",
    "demo-1.0/src/demo/__init__.py": b"x = 1\n",
    "demo-1.0/src/demo/data.bin": b"\0\1",
    "demo-1.0/demo.egg-info/PKG-INFO": b"Name: other\n",
}
WHEEL = {
    "demo/__init__.py": b"x = 2\n",
    "demo-1.0.dist-info/METADATA": b"Name: demo\nVersion: 1.0\nLicense: Apache 2.0\n",
    "demo-1.0.dist-info/licenses/LICENSE": b"Apache-2.0",
}
NPM = {
    "package/index.js": b"module.exports = 1\n",
    "package/package.json": b'{"name": "@scope/demo", "version": "2.0.0", "license": "ISC"}',
}
CRATE = {
    "demo-0.1/Cargo.toml": b"[package]\nname = 'demo'\nversion = '0.1'\nlicense = 'MIT'\n",
    "demo-0.1/src/lib.rs": b"fn x() {}\n",
}


def tar(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in others:
            archive.addfile(member)
    return path


def archive_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def read(path: Path, largest: int = 10**7) -> list[tuple[Document, bytes | None, str]]:
    """What a reader gets who takes one candidate after the other, and no large ones."""
    source = Archives(path)
    return [
        (
            candidate.document,
            candidate.read() if candidate.read and candidate.document.size <= largest else None,
            candidate.license.expression,
        )
        for unit in source.units()
        for candidate in source.candidates(unit)
    ]


def contents(path: Path) -> dict[str, bytes | None]:
    return {document.name: content for document, content, _ in read(path)}


def rejections(path: Path) -> dict[str, str | None]:
    return {document.path: document.rejection and document.rejection.reason for document, _, _ in read(path)}


def test_what_registries_hand_out(tmp_path: Path) -> None:
    tar(tmp_path / "demo-1.0.tar.gz", SDIST)
    archive_zip(tmp_path / "demo-1.0-py3-none-any.whl", WHEEL)
    tar(tmp_path / "demo-2.0.0.tgz", NPM)
    (tmp_path / "rust").mkdir()
    tar(tmp_path / "rust/demo-0.1.crate", CRATE)
    archive_zip(tmp_path / "old-1.0.ZIP", {name.replace("demo-1.0", "old-1.0"): text for name, text in SDIST.items()})
    (tmp_path / "notes.txt").write_text("beside the archives")
    assert [unit.name for unit in Archives(tmp_path).units()] == [
        "demo-1.0-py3-none-any.whl",
        "demo-1.0.tar.gz",
        "demo-2.0.0.tgz",
        "old-1.0.ZIP",
        "rust/demo-0.1.crate",
    ]
    found = [(d.repository, d.commit, d.path, content, license) for d, content, license in read(tmp_path)]
    sdist = [
        ("demo-pkg", "1.0", "PKG-INFO", SDIST["demo-1.0/PKG-INFO"], "MIT"),
        ("demo-pkg", "1.0", "src/demo/__init__.py", b"x = 1\n", "MIT"),
        ("demo-pkg", "1.0", "src/demo/data.bin", b"\0\1", "MIT"),
    ]
    assert found == [
        ("demo", "1.0", "demo/__init__.py", b"x = 2\n", "Apache-2.0"),
        *sdist,
        ("@scope/demo", "2.0.0", "index.js", b"module.exports = 1\n", "ISC"),
        ("@scope/demo", "2.0.0", "package.json", NPM["package/package.json"], "ISC"),
        *sdist,
        ("demo", "0.1", "Cargo.toml", CRATE["demo-0.1/Cargo.toml"], "MIT"),
        ("demo", "0.1", "src/lib.rs", b"fn x() {}\n", "MIT"),
    ]
    assert {d.source for d, _, _ in read(tmp_path)} == {"archives"}
    assert {d.language for d, _, _ in read(tmp_path)} == {"python", "javascript", "json", "rust", ""}


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_equals_unpacking(tmp_path: Path, ending: str) -> None:
    """The standard library's own JSON and e-mail packages, packed and unpacked by other code."""
    tree = tmp_path / "tree" / "pkg"
    for package in ("json", "email"):
        source = Path(sys.modules["json"].__file__ or "").parents[1] / package
        shutil.copytree(source, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    packed = shutil.make_archive(str(tmp_path / "packed"), "gztar" if ending == "tar.gz" else "zip", tmp_path / "tree")
    shutil.unpack_archive(packed, tmp_path / "unpacked", filter="data" if ending == "tar.gz" else None)
    unpacked = {
        f"packed/{path.relative_to(tmp_path / 'unpacked/pkg').as_posix()}": path.read_bytes()
        for path in (tmp_path / "unpacked").rglob("*")
        if path.is_file()
    }
    assert contents(Path(packed)) == unpacked
    assert len(unpacked) > 20


def test_licence_files_count(tmp_path: Path) -> None:
    files = {
        "x-1/package.json": b'{"license": "MIT"}',
        "x-1/a.py": b"a",
        "x-1/nested/b.py": b"b",
        "x-1/nested/LICENSE": b"GPL-3.0-only",
    }
    verdicts = {d.path: judge_license(license) for d, _, license in read(tar(tmp_path / "x-1.tgz", files))}
    assert verdicts["a.py"] == ("MIT",)
    assert isinstance(verdicts["nested/b.py"], Rejection)


def test_names_that_leave_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "x/a.py": b"a",
        "../b.py": b"b",
        "/etc/c.py": b"c",
        "x/../../d.py": b"d",
        "x/./e.py": b"e",
        "x//f..py": b"f",
    }
    expected = {
        "../b.py": "path leaves the archive",
        "a.py": None,
        "e.py": None,
        "f..py": None,
        "etc/c.py": "path leaves the archive",
        "../../d.py": "path leaves the archive",
    }
    monkeypatch.chdir(tmp_path)
    for path in (tar(tmp_path / "x.tgz", files), archive_zip(tmp_path / "x.zip", files)):
        assert rejections(path) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tgz", "x.zip"]  # nothing is unpacked


def test_links_and_devices(tmp_path: Path) -> None:
    others = []
    for name, kind in (
        ("s.py", tarfile.SYMTYPE),
        ("h.py", tarfile.LNKTYPE),
        ("d.py", tarfile.CHRTYPE),
        ("p", tarfile.FIFOTYPE),
    ):
        member = tarfile.TarInfo(f"x/{name}")
        member.type, member.linkname = kind, "/etc/passwd"
        others.append(member)
    assert rejections(tar(tmp_path / "x.tgz", {"x/a.py": b"a"}, *others)) == {
        "a.py": None,
        "s.py": "link",
        "h.py": "link",
        "d.py": "not a file",
        "p": "not a file",
    }
    link = zipfile.ZipInfo("x/s.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x/a.py", b"a")
        archive.writestr(link, "/etc/passwd")
    assert rejections(tmp_path / "x.zip") == {"a.py": None, "s.py": "link"}


def test_the_last_of_several_members_of_one_name_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as archive:
        for content in (b"first", b"last!"):
            member = tarfile.TarInfo("x/a.py")
            member.size = 5
            archive.addfile(member, io.BytesIO(content))
    assert contents(tmp_path / "x.tgz") == {"x/a.py": b"last!"}


def test_a_large_member_is_listed_and_not_read(tmp_path: Path) -> None:
    files = {"x/bomb.py": bytes(200_000_000), "x/LICENSE": bytes(2_000_000), "x/a.py": b"a"}
    path = archive_zip(tmp_path / "x.zip", files)
    script = (
        "import resource, sys; from pathlib import Path; from starcoder.corpus.sources.archives import Archives\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    s = Archives(path)\n"
        "    print({c.document.path: c.document.size for u in s.units() for c in s.candidates(u)})\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000\n"
    )
    packed = tar(tmp_path / "x.tgz", files)
    del files
    done = subprocess.run([sys.executable, "-c", script, path, packed], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str({"bomb.py": 200_000_000, "LICENSE": 2_000_000, "a.py": 1})] * 2


def test_headers_that_ask_for_too_much(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("PaxHeaders/x").tobuf())
    header[156:157] = b"x"
    header[124:136] = b"%011o\0" % 2**32
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "pax.tgz").write_bytes(gzip.compress(bytes(header) + bytes(10_000)))
    huge = tarfile.TarInfo("x/a.py")
    huge.size = 2**40
    (tmp_path / "huge.tgz").write_bytes(gzip.compress(huge.tobuf() + bytes(10_000)))
    assert [d.rejection and d.rejection.reason for d, _, _ in read(tmp_path)] == ["corrupt archive"] * 2
    assert [d.repository for d, _, _ in read(tmp_path)] == ["huge", "pax"]


def test_a_size_that_a_zip_understates_is_the_size_that_is_read(tmp_path: Path) -> None:
    path = archive_zip(tmp_path / "x.zip", {"x/a.py": bytes(10**6), "x/b.py": b"b"})
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<I", 10**6), struct.pack("<I", 10)))
    found = Archives(path)
    [unit] = found.units()
    candidate = next(found.candidates(unit))
    assert candidate.document.size == 10
    assert candidate.read
    with pytest.raises((OSError, ValueError)):
        candidate.read()


def test_an_encrypted_member_is_unreadable(tmp_path: Path) -> None:
    path = archive_zip(tmp_path / "x.zip", {"x/a.py": b"a"})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    path.write_bytes(bytes(data))
    source = Archives(path)
    everything = source.candidates(source.units()[0])
    candidate = next(everything)
    assert candidate.read
    with pytest.raises(OSError, match="encrypted"):
        candidate.read()
    assert list(everything) == []
    with pytest.raises(OSError, match="closed"):  # it is too late now
        candidate.read()


def test_undecodable_names(tmp_path: Path) -> None:
    path = tmp_path / "x.tgz"
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x/caf\udce9.py"))
        archive.addfile(tarfile.TarInfo("x/é.py"))
    assert rejections(path) == {"caf\\udce9.py": "undecodable name", "é.py": None}


@pytest.mark.parametrize("ending", ["tar.gz", "whl"])
def test_corrupt_archives_are_one_rejected_candidate(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"Demo-1.0.{ending}"
    whole = (tar(path, SDIST) if ending == "tar.gz" else archive_zip(path, WHEEL)).read_bytes()
    broken = [b"", b"no archive at all", whole[: len(whole) // 2], whole[:-9]]
    for data in broken:
        path.write_bytes(data)
        [(document, content, _)] = read(path)
        assert document.rejection
        assert (document.repository, document.path, document.rejection.reason) == ("Demo-1.0", "", "corrupt archive")
        assert content is None


@settings(max_examples=150)
@given(st.data(), st.sampled_from(["tgz", "whl"]))
def test_no_damage_is_fatal(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz.{ending}"
    raw = bytearray((tar(path, SDIST) if ending == "tgz" else archive_zip(path, WHEEL)).read_bytes())
    damaged_tar = ending == "tgz" and data.draw(st.booleans())
    if damaged_tar:  # below the checksum of gzip
        raw = bytearray(gzip.decompress(bytes(raw)))[:6000]
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(gzip.compress(bytes(raw), 1) if damaged_tar else bytes(raw))
    source = Archives(path)
    for unit in source.units():
        for candidate in source.candidates(unit):
            assert candidate.document.name.encode()
            if candidate.read:
                with suppress(OSError):
                    candidate.read()


def test_a_single_archive_and_wrong_paths(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tgz", NPM)
    source = pickle.loads(pickle.dumps(Archives(path, "mine")))
    assert [unit.name for unit in source.units()] == ["x.tgz"]
    assert {c.document.source for c in source.candidates(source.units()[0])} == {"mine"}
    before = source.units()
    os.utime(path, (1, 1))
    assert source.units() != before
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").touch()
    for wrong in (tmp_path / "missing", tmp_path / "empty", tmp_path / "x.txt"):
        with pytest.raises(UserError, match="archive"):
            Archives(wrong).units()
