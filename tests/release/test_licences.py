"""Which licence weights go out under: chosen where that is free, otherwise that of the weights they derive from."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from starcoder.errors import UserError
from starcoder.release.licences import OPENRAIL, Licence, choose


def test_licences_pass_from_folder_to_folder(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    with pytest.raises(UserError, match=r"not known: name --license"):
        choose(None, True, [str(base)], (), tmp_path)
    for metadata, expected in (
        ("license: mit", "mit"),
        (f"license: {OPENRAIL}", OPENRAIL),
        ("license: mit\nbase_model: bigcode/starcoder", OPENRAIL),
        ("license: mit\nbase_model: [bigcode/starcoder]", OPENRAIL),
    ):
        (base / "README.md").write_text(f"---\n{metadata}\n---\n# base\n")
        assert choose(None, True, [str(base)], (), tmp_path).id == expected
        assert choose(None, True, [str(base), "bigcode/starcoder"], (), tmp_path).id == OPENRAIL
    with pytest.raises(UserError, match="LicenseRef-Own"):
        choose(None, True, [], ["MIT", "LicenseRef-Own AND MIT"], tmp_path)
    with pytest.raises(UserError, match="LICENSE"):
        choose("our-terms", True, [], (), tmp_path)
    (tmp_path / "LICENSE").write_text("Our terms.\n")
    assert choose("our-terms", True, [], (), tmp_path).metadata["license_name"] == "our-terms"
    with pytest.raises(UserError, match="no licence's name"):
        choose("Our Terms", True, [], (), tmp_path)


@pytest.mark.parametrize("license", ["gpl-3.0", "cc-by-nc-4.0", "openrail", "CC-BY-SA-4.0", "[mit, gpl-3.0]"])
def test_a_licence_that_asks_for_more_than_attribution_stays(tmp_path: Path, license: str) -> None:
    (tmp_path / "README.md").write_text(f"---\nlicense: {license}\n---\n# base\n")
    kept = choose(None, True, [str(tmp_path)], (), tmp_path)
    assert kept.inherited
    assert kept.id == license.strip("[]").split()[-1].lower()
    assert choose(kept.id, True, [str(tmp_path)], (), tmp_path) == kept
    with pytest.raises(UserError, match=f"cannot be mit: what derives from {tmp_path} stays under {kept.id}"):
        choose("mit", True, ["foo/bar", str(tmp_path)], (), tmp_path)
    with pytest.raises(UserError, match=f"cannot be {kept.id}: what derives from bigcode/starcoder stays"):
        choose(None, True, [str(tmp_path), "bigcode/starcoder"], (), tmp_path)


@pytest.mark.parametrize("license", ["mit", "apache-2.0", "bsd-3-clause"])
def test_a_permissive_licence_may_be_replaced(tmp_path: Path, license: str) -> None:
    (tmp_path / "README.md").write_text(f"---\nlicense: {license}\n---\n# base\n")
    assert choose("gpl-3.0", True, [str(tmp_path)], (), tmp_path) == Licence("gpl-3.0")


@pytest.mark.parametrize(
    "base",
    [
        "{}/hub/models--bigcode--starcoderbase-1b/snapshots/abc",
        "{}/hub/models--bigcode--starcoder2-15b/snapshots/abc/",
        "{}/downloads/bigcode/starcoderplus",
        "HuggingFaceH4/starchat-beta",
    ],
)
def test_weights_of_bigcode_are_known_wherever_they_lie(tmp_path: Path, base: str) -> None:
    with pytest.raises(UserError, match=f"cannot be mit: .* stays under {OPENRAIL}"):
        choose("mit", True, [base.format(tmp_path)], (), tmp_path)
    assert choose(None, True, [base.format(tmp_path)], (), tmp_path) == Licence(OPENRAIL, inherited=True)


@pytest.mark.parametrize("base", ["bigcode/santacoder", "bigcode/gpt_bigcode-santacoder"])
def test_what_derives_from_santacoder_keeps_another_openrail(tmp_path: Path, base: str) -> None:
    with pytest.raises(UserError, match=r"cannot be mit: .* stays under codeml-openrail-m-0\.1"):
        choose("mit", True, [base], (), tmp_path)
    with pytest.raises(UserError, match=r"put its text into .*LICENSE"):
        choose(None, True, [base], (), tmp_path)
    (tmp_path / "LICENSE").write_text("CodeML OpenRAIL-M 0.1\n")
    assert choose(None, True, [base], (), tmp_path).metadata["license_name"] == "codeml-openrail-m-0.1"


def test_the_card_of_a_repository_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--ada--coder"
    (snapshot := repository / "snapshots" / "abc").mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: gpl-3.0\n---\n")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert choose(None, True, ["ada/coder"], (), tmp_path).id == "gpl-3.0"
