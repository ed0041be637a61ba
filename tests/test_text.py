from pathlib import Path

import pytest

from starcoder.text import shown


def test_a_path_is_shown_from_the_working_directory_if_it_lies_in_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "build" / "corpus") == Path("build/corpus")
    assert shown(Path("build/corpus")) == Path("build/corpus")
    assert shown(tmp_path.parent / "corpus") == tmp_path.parent / "corpus"
    assert shown(Path(f"{tmp_path}-other")) == Path(f"{tmp_path}-other")
