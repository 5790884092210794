"""The models through torch.hub, as from a checkout that is not installed."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import torchclas

ROOT = Path(__file__).parents[2]


def test_the_entries_are_the_models() -> None:
    """By the rule of `torch.hub.list`, which takes no local folder."""
    found = {name: value for name, value in runpy.run_path(str(ROOT / "hubconf.py")).items() if callable(value)}
    entries = {name: value for name, value in found.items() if not name.startswith("_")}
    assert sorted(entries) == sorted(torchclas.list_models())
    assert "torchclas info PPLCNet_x0_25" in str(entries["PPLCNet_x0_25"].__doc__)


def test_entries_take_what_create_model_takes() -> None:
    network: Any = torch.hub.load(str(ROOT), "PPLCNet_x0_25", source="local", num_classes=7, in_channels=1)
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    with pytest.raises(torchclas.Error, match="num_classes"):
        torch.hub.load(str(ROOT), "PPLCNet_x0_25", source="local", class_num=7)


def test_it_needs_no_installation() -> None:
    """Nothing else leads to the package, in a folder of its own."""
    code = f"""
import sys, torch
sys.path = [path for path in sys.path if not path.endswith("src")]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
model = torch.hub.load({str(ROOT)!r}, "EfficientNet_lite0", source="local", pretrained=True)
import torchclas
print(torchclas.__file__)
print(model.preset.size)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT.parent, env=environment, check=True, capture_output=True, text=True
    )
    assert answer.stdout.splitlines()[-2:] == [str(ROOT / "src" / "torchclas" / "__init__.py"), "(224, 224)"]
