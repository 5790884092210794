"""What other packages call private must still be there, and do what it is used for."""

import re
import subprocess
import sys
from pathlib import Path

from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from torchclas import compat


def test_batch_norms_of_any_kind_are_known() -> None:
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
        assert issubclass(kind, compat.BatchNorm)
    assert not issubclass(nn.LayerNorm, compat.BatchNorm)


def test_mnn_has_its_converter(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", compat.MNN_CONVERTER, "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+", done.stdout.splitlines()[-1]), done


def test_a_strategy_spawns_its_processes() -> None:
    strategy = DDPStrategy()
    compat.launch_by_spawning(strategy)
    launcher = strategy.launcher
    assert launcher is not None
    assert vars(launcher)["_start_method"] == "spawn"
