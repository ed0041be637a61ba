from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.training.metrics import read_metrics


def write(folder: Path, version: int, text: str) -> None:
    (folder / f"version_{version}").mkdir()
    (folder / f"version_{version}" / "metrics.csv").write_text(text)


def test_a_resumption_overrides_what_was_logged_before_it(tmp_path: Path) -> None:
    write(tmp_path, 2, "step,train_loss,rate\n3,4.0,\n3,,7\n7,3.0,8\n")
    write(tmp_path, 10, "step,train_loss,rate\n7,2.5,\n11,2.0,9\n")
    assert read_metrics(tmp_path) == [
        {"step": "3", "train_loss": "4.0", "rate": "7"},
        {"step": "7", "train_loss": "2.5", "rate": "8"},
        {"step": "11", "train_loss": "2.0", "rate": "9"},
    ]


def test_a_run_without_metrics_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no metrics"):
        read_metrics(tmp_path)
