"""Training on an object store gives, bit by bit, what the same files on the disk give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.stores import Buckets, serving
from tests.training_runs import paint
from torchclas import cli

pytest.importorskip("lightning_fabric")
pytest.importorskip("obstore", reason="there is no obstore here: pip install 'torchclas[cloud]'")

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("one_thread")]


def test_train_on_a_store_as_on_the_same_files_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With processes that read images, and a store that refuses every first request."""
    data = tmp_path / "data"
    paint(data / "train")
    paint(data / "val")
    objects = {f"set/{path.relative_to(data)}": path.read_bytes() for path in data.rglob("*.png")}
    short = ("--set", "epochs=1", "--set", "input_size=32", "--set", "schedule.warmup_epochs=0", "--batch-size", "10")
    with serving(Buckets({"data": objects}, every=("throttled",)), monkeypatch):
        for source, name in (("s3://data/set", "there"), (str(data), "here")):
            asked = ["train", source, "-o", str(tmp_path / name), "-m", "PPLCNet_x0_25", "--from", "scratch", *short]
            assert cli.run([*asked, "--workers", "1"]) == 0
    there, here = (load_file(tmp_path / name / "best.safetensors") for name in ("there", "here"))
    assert there.keys() == here.keys()
    for key, value in here.items():
        assert torch.equal(value, there[key]), key
