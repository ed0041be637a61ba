"""What the doctor prints, and when it fails."""

import sys

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.doctor import doctor
from starcoder.evaluation.hostile import HOSTILE
from starcoder.evaluation.hostile.honest import HONEST, Honest
from starcoder.evaluation.isolation import Isolation, missing
from starcoder.evaluation.program import Status

NAMED = {hostile.name: hostile for hostile in HOSTILE}
MODULE = sys.modules["starcoder.evaluation.doctor"]


def examine_only(patch: pytest.MonkeyPatch, names: tuple[str, ...], honest: tuple[Honest, ...] = HONEST[:2]) -> None:
    patch.setattr(MODULE, "HOSTILE", tuple(NAMED[name] for name in names))
    patch.setattr(MODULE, "HONEST", honest)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_prints_levels_programs_and_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := missing(Isolation.LANDLOCK):
        pytest.skip(f"this machine has no Landlock: {reason}")
    examine_only(monkeypatch, ("connects", "always_equal", "sys_exit"))
    doctor("landlock")
    printed = lines(capsys)
    assert [line.split()[0] for line in printed[:5]] == list(Isolation)
    assert "landlock     offered" in printed
    assert any(line.split()[:3] == ["held", "sys_exit", "exited_early"] for line in printed)
    assert "3 of 3 hostile programs held, 2 of 2 honest ones judged rightly, at level landlock" in printed[-1]


def test_weak_level_is_reported_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    examine_only(monkeypatch, ("reads_secrets", "sys_exit"))
    with pytest.raises(SystemExit) as ended:
        doctor("limits")
    assert ended.value.code == 1
    printed = "\n".join(lines(capsys))
    assert "NOT HELD  reads_secrets" in printed
    assert "it read a secret" in printed
    assert "1 of 2 hostile programs held" in printed


def test_harmful_programs_are_not_run_without_isolation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examine_only(monkeypatch, ("sys_exit", "fork_bomb", "kills_group"))
    with pytest.raises(SystemExit) as ended:
        doctor("none")
    assert ended.value.code == 1
    printed = lines(capsys)
    assert "1 of 1 hostile programs held" in printed[-2]
    assert printed[-1].startswith("2 hostile programs were not run: without isolation they would harm this machine")


def test_wrong_verdict_on_an_honest_program_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mislabelled = Honest("mislabelled", "def solve(x): return x * x", Status.FAILED)
    examine_only(monkeypatch, ("sys_exit",), (mislabelled,))
    with pytest.raises(SystemExit):
        doctor("limits")
    assert "the verdict is passed" in "\n".join(lines(capsys))


def test_unknown_level_is_refused() -> None:
    with pytest.raises(UserError, match="isolation docker is unknown: choose from none"):
        doctor("docker")
