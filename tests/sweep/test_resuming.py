"""`predict` is killed again and again, and its output is that of a command that nobody disturbed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import torchclas
from tests.many_images import write_images
from torchclas import signals

IMAGES = 1500
KILLS = 5  # of each kind of output


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of a few different pictures, and some that are none."""
    return write_images(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """A small network, which OpenVINO has compiled already."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    torchclas.save_checkpoint(torchclas.create_model("PPLCNet_x0_25", num_classes=4), path)
    subprocess.run(command(images / "00000.png", model=path), check=True, capture_output=True)
    return path


def command(*arguments: object, model: Path) -> list[str]:
    """`predict` that keeps rows several times a second, as there would be none in so short a time otherwise."""
    code = "from torchclas import cli; from torchclas.inference import parts; parts.SECONDS = 0.05; cli.main()"
    options = ["-m", model, "--engine", "openvino", "--threads", 1, "--workers", 1]
    return [sys.executable, "-c", code, "predict", *map(str, (*arguments, *options))]


def killed(command: list[str], number: int, work: Path, parts: int, after: float) -> str | None:
    """Start a command, and kill it some seconds after there are so many more parts.

    Returns its remarks; None where it was at its end before.
    """
    before = len([*work.glob("rows-*")])
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len([*work.glob("rows-*")]) < before + parts:
        time.sleep(0.01)
    time.sleep(after)
    if process.poll() is None:
        process.send_signal(number)
        return process.communicate()[1]
    process.communicate()
    return None


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "folder/"])
def test_killed_at_random_moments(images: Path, model: Path, tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    subprocess.run(command(images, "-o", f"{tmp_path}/whole-{name}", model=model), capture_output=True, check=False)
    again = command(images, "-o", f"{tmp_path}/{name}", model=model)
    work = tmp_path / name / ".parts" if name.endswith("/") else tmp_path / f".{name}.parts"
    finished = tmp_path / name / "_manifest.json" if name.endswith("/") else tmp_path / name
    gone_on = 0
    for _ in range(KILLS):
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, *signals.ASKING])
        remarks = killed(again, number, work, chance.randrange(1, 4), chance.uniform(0, 0.1))
        if remarks is None or finished.exists():  # it was at its end
            break
        gone_on += "images were done before" in remarks
        assert "Traceback" not in remarks, remarks
    else:
        done = subprocess.run(again, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
    assert gone_on > 0, "no kill came late enough for rows to be kept"
    found, whole = tmp_path / name, tmp_path / f"whole-{name}"
    for path in whole.iterdir() if whole.is_dir() else [whole]:
        assert (found / path.name if found.is_dir() else found).read_bytes() == path.read_bytes()
    assert len([*tmp_path.iterdir()]) == 2, "nothing else is left"
