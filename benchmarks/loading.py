"""How close does reading of training images come to the limit, which is decoding of the JPEG files alone?

    python benchmarks/loading.py                # 512 photographs, two workers
    python benchmarks/loading.py --workers 1 --rounds 3

Photographs of 500 × 375 pixels become batches of 32 at 224 × 224: random crop, flip, normalisation. `torchclas` reads
them as `torchclas train` does, in the published backends (OpenCV, Pillow); `timm` is its loader with the prefetcher;
`torchvision` is ImageFolder with transforms v2 on tensors. The limit is `cv2.imdecode` of the same files in as many
threads, and nothing else. Every loader lives on with its workers, and in each round reads everything once, in an order
drawn anew; a share of the limit is taken within its round. The time of the processor, over all processes, tells the
work even where the machine is busy.

Needs timm, torchvision and psutil beside torchclas[train], scikit-learn and scikit-image for the photographs.
"""

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from markdown import table
from photographs import write_photographs

from torchclas import catalog
from torchclas.data.augment import TrainTransform
from torchclas.data.opening import open_data
from torchclas.data.training import TrainingBatches
from torchclas.engines.machine import load_average, this_machine
from torchclas.recipes import recipe

HERE = Path(__file__).resolve().parent
MODEL, SIZE = "ResNet18", 224
BATCH, CLASSES = 32, 8

Epoch = Callable[[], int]  # reads everything once, and returns the number of images


@dataclass
class Pass:
    """What one reading of everything took."""

    images_per_second: float
    cpu_ms: float  # of an image, over all processes


def write_data(folder: Path, images: int) -> Path:
    for index, path in enumerate(sorted(write_photographs(folder / "all", images).iterdir())):
        target = folder / "train" / str(index % CLASSES) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(path, target)
    return folder / "train"


def decoding(folder: Path, threads: int) -> Epoch:
    paths = sorted(folder.rglob("*.jpg"))

    def decode(path: Path) -> None:
        cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)

    pool = ThreadPoolExecutor(threads)
    return lambda: sum(1 for _ in pool.map(decode, paths))


def torchclas(folder: Path, workers: int, backend: str) -> Epoch:
    images = open_data(folder).images
    augment = replace(recipe(MODEL).augment, backend=backend)
    transform = TrainTransform(augment, catalog.find(MODEL).preset, SIZE)
    batches = TrainingBatches(images, transform, BATCH, workers=workers, drop_last=False)
    numbers: Iterator[int] = iter(range(1_000_000))
    return lambda: sum(len(images) for images, _ in batches.epoch(next(numbers)))


def timm(folder: Path, workers: int) -> Epoch:
    from timm.data import create_dataset, create_loader

    dataset: Any = create_dataset("", root=str(folder), is_training=True)
    loader = create_loader(
        dataset,
        input_size=SIZE,
        batch_size=BATCH,
        is_training=True,
        color_jitter=0,
        interpolation="bilinear",
        num_workers=workers,
        device=torch.device("cpu"),
    )
    return lambda: sum(len(images) for images, _ in loader)


def torchvision(folder: Path, workers: int) -> Epoch:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(SIZE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder), transform), BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )
    return lambda: sum(len(images) for images, _ in loader)


def measure(epoch: Epoch) -> Pass:
    before, start = cpu_seconds(), time.perf_counter()
    images = epoch()
    seconds = time.perf_counter() - start
    return Pass(images / seconds, 1000 * (cpu_seconds() - before) / images)


def cpu_seconds() -> float:
    """Of this process and all below it."""
    mine = psutil.Process()
    times = [process.cpu_times() for process in (mine, *mine.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def median_of(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", type=Path, default=HERE / ".work/loading", help="photographs")
    parser.add_argument("-o", "--output", type=Path, default=HERE / ".work/loading.json")
    options = parser.parse_args()
    folder = write_data(options.work.resolve() / str(options.images), options.images)
    torch.set_num_threads(1)  # the workers are the parallelism
    cv2.setNumThreads(1)

    limit = "cv2.imdecode alone"
    readers: dict[str, Epoch] = {
        limit: decoding(folder, options.workers),
        "torchclas, OpenCV": torchclas(folder, options.workers, "opencv"),
        "torchclas, Pillow": torchclas(folder, options.workers, "pillow"),
        "timm": timm(folder, options.workers),
        "torchvision v2": torchvision(folder, options.workers),
    }
    for epoch in readers.values():  # starts the workers, and warms up
        epoch()
    order, loads = random.Random(0), []
    found: dict[str, list[Pass]] = {name: [] for name in readers}
    for number in range(options.rounds):
        loads.append(load_average() or 0.0)
        for name in order.sample(list(readers), len(readers)):
            found[name].append(measure(readers[name]))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)

    options.output.parent.mkdir(parents=True, exist_ok=True)
    passes = {name: [asdict(one) for one in each] for name, each in found.items()}
    values = {"machine": asdict(this_machine()), "workers": options.workers, "load": loads, "passes": passes}
    options.output.write_text(json.dumps(values, indent=1))
    rows: list[list[str]] = []
    for name, each in found.items():
        shares = [
            one.images_per_second / fastest.images_per_second for one, fastest in zip(each, found[limit], strict=True)
        ]
        rows.append(
            [name, median_of([one.images_per_second for one in each], ".0f"), median_of(shares, ".0%"),
             median_of([one.cpu_ms for one in each], ".2f")]
        )  # fmt: skip
    print(f"{this_machine()}; load {max(loads):.1f} at most\n")
    header = ["", "images/s", "share of the limit", "ms of CPU per image"]
    print(table(f"Reading {options.images} training images, {options.workers} workers", header, rows))


if __name__ == "__main__":
    main()
