"""Processes that read images: what goes wrong in one is told by the one that started them, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from torchclas.catalog import Preset
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import Dataset, Sample
from torchclas.data.decode import ImageLike
from torchclas.data.training import EpochBatches, Loader, TrainingBatches
from torchclas.data.workers import Failure, LoadingError
from torchclas.errors import DataError
from torchclas.recipes import Augment

PRESET = Preset(16, (16, 16), "bilinear", "opencv", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BRIGHT = 255  # the one image that is white


class Breaking(TrainTransform):
    """Fails at the white image."""

    def __init__(self, how: str) -> None:
        super().__init__(Augment(), PRESET, 16)
        self.how = how

    def __call__(self, image: ImageLike, rng: np.random.Generator) -> torch.Tensor:
        found = super().__call__(image, rng)
        if float(found.min()) > 2:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "memory":
                raise cv2.error("(-4:Insufficient memory) Failed to allocate 1 bytes in function 'OutOfMemoryError'")
            if self.how == "data":
                raise DataError("the file has changed")
            raise ZeroDivisionError("division by zero")
        return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six images, the fourth of which is white."""
    root = tmp_path_factory.mktemp("images")
    for number in range(6):
        cv2.imwrite(str(root / f"{number}.png"), np.full((20, 24, 3), BRIGHT if number == 3 else 9, np.uint8))
    return Dataset([Sample(str(root / f"{number}.png"), 0) for number in range(6)])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def loader(images: Dataset, how: str, workers: int) -> Loader:
    return Loader(images, Breaking(how), EpochBatches(6, 1, shuffle=False, epoch=2), seed=7, workers=workers)


def pids(loader: Loader) -> list[int]:
    assert loader._workers is not None  # pyright: ignore[reportPrivateUsage]
    return loader._workers.places[:, 0].tolist()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_is_told_with_all_that_repeats_it(images: Dataset, workers: int) -> None:
    read = loader(images, "bug", workers)
    with pytest.raises(LoadingError) as failed:
        list(read)
    assert str(failed.value) == (
        f"{images.name(3)}: preparing this image failed with ZeroDivisionError: division by zero "
        "(epoch 3, position 3, seed 7): this is a bug of torchclas, please report it with the image and what --debug "
        "prints"
    )
    assert 'raise ZeroDivisionError("division by zero")' in str(failed.value.__cause__)
    if workers:
        assert not any(map(alive, pids(read)))


@pytest.mark.parametrize(
    ("how", "message"),
    [("memory", "no memory is left to read it: use fewer --workers"), ("data", "the file has changed")],
)
def test_what_is_no_bug_is_not_called_one(images: Dataset, how: str, message: str) -> None:
    with pytest.raises(LoadingError, match=message) as failed:
        list(loader(images, how, 0))
    assert str(failed.value).startswith(f"{images.name(3)}: ")
    assert "bug" not in str(failed.value)


def test_memory_that_pillow_lacks_does_not_make_an_image_damaged(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    monkeypatch.setattr("PIL.Image.Image.convert", full)
    with pytest.raises(LoadingError, match="no memory is left"):
        list(loader(images, "", 0))


def test_a_batch_for_which_there_is_no_shared_memory(images: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr("torchclas.data.training.default_collate", full)
    with pytest.raises(LoadingError, match="no memory is left"):
        list(loader(images, "", 0))


def test_a_worker_that_is_killed_ends_the_loading_in_seconds(images: Dataset) -> None:
    read = loader(images, "kill", 2)
    began = time.monotonic()
    with pytest.raises(LoadingError, match=r"3\.png: the process that read it was killed.* --workers"):
        list(read)
    assert time.monotonic() - began < 30
    assert not any(map(alive, pids(read)))


def test_workers_survive_the_signal_that_stops_the_run(images: Dataset) -> None:
    batches = TrainingBatches(images, TrainTransform(Augment(), PRESET, 16), 2, workers=1)
    epoch = batches.epoch(0)
    next(epoch)
    [worker] = pids(batches._loader)  # pyright: ignore[reportPrivateUsage]
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
    assert len(list(epoch)) == batches.steps_per_epoch - 1
    assert alive(worker)
    batches.close()
    assert not alive(worker)


SCRIPT = """
import sys, time
from pathlib import Path
from torchclas.data.augment import TrainTransform
from torchclas.data.datasets import Dataset, Sample
from torchclas.data.training import EpochBatches, Loader
from torchclas.recipes import Augment
from tests.unit.test_workers import PRESET

if __name__ == "__main__":
    images = Dataset([Sample(str(path), 0) for path in sorted(Path(sys.argv[1]).glob("*.png"))])
    loader = Loader(images, TrainTransform(Augment(), PRESET, 16), EpochBatches(len(images), 1), workers=2)
    batches = iter(loader)
    next(batches)
    print(*loader._workers.places[:, 0].tolist(), flush=True)
    if sys.argv[2] == "fail":
        raise ValueError("on purpose")
    time.sleep(100)
"""


@pytest.mark.parametrize("end", ["fail", "kill"])
def test_no_worker_outlives_the_process_that_started_it(images: Dataset, end: str, tmp_path: Path) -> None:
    """Neither after an error, whose traceback holds on to all there was, nor after kill -9."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    main = subprocess.Popen(
        [sys.executable, script, str(Path(images.name(0)).parent), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with main:
        assert main.stdout is not None
        started = [int(pid) for pid in main.stdout.readline().split()]
        assert len(started) == 2
        if end == "kill":
            main.kill()
        assert main.wait(20) == (-signal.SIGKILL if end == "kill" else 1)
    for _ in range(100):
        if not any(map(alive, started)):
            return
        time.sleep(0.1)
    pytest.fail("workers are left")


def test_errors_of_torchclas_keep_their_words() -> None:
    assert Failure.of(DataError("gone"), "a.png", "").message == "a.png: gone"
