"""Architectures take their own recipes: two steps on noise, at the learning rates that were published."""

from __future__ import annotations

import gc
import io
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from tests.networks import SWEPT
from torchclas import catalog, models
from torchclas.data.augment import TrainTransform
from torchclas.data.training import TrainingBatches
from torchclas.layers.network import Network
from torchclas.recipes import Recipe, override, recipe
from torchclas.training.loop import Progress, Settings, Trainer
from torchclas.training.plan import set_regularisation
from torchclas.training.schedule import learning_rate

fabric = pytest.importorskip("lightning_fabric")
pytestmark = pytest.mark.sweep

ARCHITECTURES = models.architectures()
CLASSES, BATCH = 5, 4
STEPS = 2
# Weights, gradients and momentum of a network this large take more than 2 GiB: one at a time. The largest two do
# without momentum, or they would take 6 and 10 GiB; smaller ones have the same recipe.
LARGE, LARGEST = 150_000_000, 400_000_000

# What upstream published without a recipe takes a relative's.
FOLLOWS = {
    "EfficientNetB0_small": "EfficientNetB0",
    "EfficientNet_lite0": "EfficientNetB0",
    "SE_HRNet_W64_C": "HRNet_W64_C",
    "SwinTransformer_base_patch4_window7_224_22k": "SwinTransformer_base_patch4_window7_224",
    "SwinTransformer_large_patch4_window7_224_22k": "SwinTransformer_large_patch4_window7_224",
    "SwinTransformer_large_patch4_window12_384_22k": "SwinTransformer_large_patch4_window12_384",
}
ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data/published_schedules.json").read_text())
PUBLISHED = {name: row for row in ROWS for name in row["models"]}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    gc.collect()


class Noise:
    """Labelled images of noise, in a file format each."""

    classes = None
    labels = np.arange(STEPS * BATCH) % CLASSES

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        return str(index)

    key = name

    def read(self, index: int) -> bytes:
        pixels = np.random.default_rng(index).integers(0, 256, (72 + index, 80, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, ("PNG", "JPEG")[index % 2])
        return file.getvalue()


class TwoStepsDone(Exception):  # noqa: N818 - the test has seen enough
    pass


@dataclass
class Recorder:
    """The run and the display of a training that is not kept."""

    losses: list[float]
    rates: list[float]

    def latest(self) -> None:
        return None

    def where(self) -> str:
        return "nothing is kept"

    def step(self, progress: Progress, loss: float, lr: float) -> None:
        self.losses.append(loss)
        self.rates.append(lr)

    def validate(self, network: Network) -> Any:
        raise TwoStepsDone


def smallest(arch: str) -> int:
    """The smallest image, in steps of 32 pixels, that the graph can be trained on; found where it costs nothing."""
    for size in range(32, 385, 32):
        with torch.device("meta"):
            network = models.build(arch, num_classes=CLASSES).train()
            try:
                if network.input_size is not None:
                    network.set_input_size(size)
                network.forward_heads(torch.empty(BATCH, 3, size, size))
            except (RuntimeError, ValueError):
                continue
            return size
    raise AssertionError(f"{arch} takes no size")


def build(arch: str, found: Recipe, size: int) -> Network:
    network = models.build(arch, num_classes=CLASSES)
    network.set_input_size(size)
    set_regularisation(network, found)
    return network


@pytest.mark.parametrize("arch", SWEPT)
def test_two_steps(arch: str) -> None:
    """The first two after the warm-up, where the learning rate is highest."""
    published = PUBLISHED[FOLLOWS.get(arch, arch)]
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in models.build(arch).parameters())
    with ExitStack() as stack:
        if parameters > LARGE:
            stack.enter_context(FileLock(Path(tempfile.gettempdir()) / "torchclas-large-networks.lock"))
        found = override(recipe(arch), ["optimizer.momentum=0"] if parameters > LARGEST else [])
        size = smallest(arch)
        preset = replace(catalog.find(arch).preset, size=(size, size))
        batches = TrainingBatches(Noise(), TrainTransform(found.augment, preset, size), BATCH)
        network = build(arch, found, size)
        last_layer = [parameter for name, parameter in network.named_parameters() if name.startswith("classifier")][-1]
        before = last_layer.detach().clone()
        settings = Settings(found, found.optimizer.lr * BATCH / found.total_batch)
        recorder = Recorder([], [])
        cpu = fabric.Fabric(accelerator="cpu", devices=1)
        trainer = Trainer(cpu, network, settings, batches, recorder.validate, recorder, recorder)  # pyright: ignore[reportArgumentType]
        trainer.progress.epoch = published.get("warmup_epochs", 0)
        with pytest.raises(TwoStepsDone):
            trainer.fit()
        assert len(recorder.losses) == STEPS
        assert all(0 < loss < math.inf for loss in recorder.losses), recorder.losses
        assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())
        assert not torch.equal(last_layer, before)
        assert recorder.rates[0] == pytest.approx(published["lr"] * BATCH / found.total_batch)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_learning_rate(arch: str) -> None:
    published = PUBLISHED[FOLLOWS.get(arch, arch)]
    found = recipe(arch)
    peak, epochs = published["lr"], published["epochs"]
    assert found.epochs == epochs

    def rate(epoch: float, per_epoch: int = 100) -> float:
        return learning_rate(found.schedule, found.optimizer.lr, round(epoch * per_epoch), per_epoch, found.epochs)

    if "from_epoch" in published:
        value = math.nan
        for epoch, value in published["from_epoch"].items():
            assert rate(int(epoch)) == pytest.approx(value)
            assert rate(int(epoch) + 29.99) == pytest.approx(value)
        assert rate(epochs - 0.01) == pytest.approx(value)
        return
    warmup, begin, end = (published.get(key, 0.0) for key in ("warmup_epochs", "warmup_lr", "min_lr"))
    if warmup:
        assert rate(0) == pytest.approx(begin)
        assert rate(warmup / 2) == pytest.approx((begin + peak) / 2)
    assert rate(warmup) == pytest.approx(peak)
    length = epochs - warmup
    # A cosine has fallen by a quarter after a third of the way, by half in the middle, by three quarters after two.
    for way, left in ((1 / 3, 0.75), (1 / 2, 0.5), (2 / 3, 0.25), (1, 0)):
        assert rate(warmup + way * length) == pytest.approx(end + left * (peak - end), rel=1e-3)
    assert end < rate(epochs - 0.01) < end + 1e-6 * peak
