"""Training runs for tests: a few pictures, `torchclas train` in this process and in others, what runs leave behind."""

import os
import subprocess
import sys
from pathlib import Path
from subprocess import Popen
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

from torchclas.cli import run
from torchclas.weights.metadata import read_metadata

COLOURS = {"blue": (40, 60, 200), "green": (40, 200, 60), "red": (200, 50, 40)}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}


def paint(root: Path) -> Path:
    """Ten noisy pictures each of blue, green and red."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for index in range(10):
            noisy = np.array(colour) + rng.normal(0, 30, (40, 48, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name / f"{index}.png")
    return root


def train(data: Path, output: Path, *more: Path | str, expect: int = 0) -> Path:
    assert run(["train", str(data), "-o", str(output), *map(str, more)]) == expect
    return output


def command(data: Path, output: Path, *more: str) -> list[str]:
    return ["-m", "torchclas", "train", str(data), "-o", str(output), *map(str, more)]


def start(data: Path, output: Path, *more: str) -> Popen[str]:
    arguments = [sys.executable, *command(data, output, *more)]
    return subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def last_state(folder: Path) -> Any:
    state = torch.load(sorted((folder / "last").glob("*.pt"))[-1], weights_only=True)
    progress = state["progress"]
    progress["seconds"] = 0
    for row in progress["history"]:
        row["seconds"] = row["images_per_second"] = 0
    return state


def same_run(first: Path, second: Path, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Network, average, optimizer, position and figures are equal, and so is what is kept."""
    assert_close(last_state(first), last_state(second), rtol=rtol, atol=atol)
    same_result(first, second, rtol=rtol, atol=atol)
    if not rtol:
        assert read_metadata(first / "best.safetensors") == read_metadata(second / "best.safetensors")


def same_result(first: Path, second: Path, *, rtol: float, atol: float) -> None:
    one, other = (load_file(folder / "best.safetensors") for folder in (first, second))
    assert_close(one, other, rtol=rtol, atol=atol)
