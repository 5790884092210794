"""Images to calibrate with, and others to judge by."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from torchclas.data.datasets import Entry, LabelledImages, Relabelled, entries
from torchclas.data.loader import load
from torchclas.data.opening import Opened
from torchclas.data.preprocess import Preprocess
from torchclas.data.shards import ParquetImages
from torchclas.engines.machine import usable_threads
from torchclas.errors import DataError
from torchclas.spec import ModelSpec

Images = NDArray[np.float32]  # [N, 3, H, W]
CHECKING_IMAGES = 500  # at most; others than those
BATCH = 8  # images at once


def split(pool: Opened, others: Opened | None, count: int) -> tuple[Sequence[Entry], Sequence[Entry]]:
    """Up to `count` images of `pool` to calibrate with, and more of it, or `others`, to check the result with."""
    calibrating = _shuffled(pool.images)
    checking = calibrating if others is None else _shuffled(others.images)
    known = set(map(_place, calibrating))
    if any(_place(entry) in known for entry in checking):
        count = min(count, len(calibrating) // 2)
    chosen = calibrating[:count]
    taken = set(map(_place, chosen))
    checked = [entry for entry in checking if _place(entry) not in taken]
    if not chosen or not checked:
        raise DataError(
            f"too few images ({len(calibrating):,} with --calibration): some are needed to calibrate with, and others "
            "to check"
        )
    return chosen, checked[:CHECKING_IMAGES]


def _place(entry: Entry) -> str:
    """Where an image is kept, whatever it is called in its data set."""
    images = entry.images.images if isinstance(entry.images, Relabelled) else entry.images
    if isinstance(images, ParquetImages):
        return images.key(entry.index)  # its name would cost reading the row
    return os.path.abspath(images.name(entry.index))  # noqa: PTH100 - Path.absolute leaves .. in


def _shuffled(images: LabelledImages) -> list[Entry]:
    """In an order that is always the same: folders have one class after the other."""
    return random.Random(0).sample(list(entries(images)), len(images))


def read(
    samples: Sequence[Entry], spec: ModelSpec, advance: Callable[[int], None]
) -> tuple[Images, NDArray[np.int64], int]:
    """Images and labels of those that can be read, and how many cannot."""
    images: list[Images] = []
    labels: list[NDArray[np.int64]] = []
    remaining = iter(samples)
    truth = samples[0].images.labels
    failures: list[str] = []
    preprocess = Preprocess(spec.preset, channels=spec.in_channels)
    for batch in load(samples, preprocess, batch_size=BATCH, workers=usable_threads()):
        images.append(batch.images)
        for source, error in zip(batch.sources, batch.errors, strict=True):
            entry = next(remaining)
            if error is None:
                labels.append(truth[entry.index])
            else:
                failures.append(f"{source}: {error}")
            advance(1)
    if not labels:
        raise DataError(f"none of {len(samples)} images can be read; the first is {failures[0]}")
    return np.concatenate(images), np.array(labels), len(failures)
