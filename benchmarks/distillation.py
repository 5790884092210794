"""Does distillation help, and what does the cache of logits save? Real runs on scikit-learn's handwritten digits.

    python benchmarks/distillation.py            # both tables: a quarter of an hour on one core
    python benchmarks/distillation.py --quick    # one seed, few epochs: does it run?

1,797 images of 8 × 8 pixels: 397 for the test, and of the other 1,400 only 10 of each class with their label. A teacher
learns those 100. Then the same student, from the same start, learns for the same number of steps in batches of the same
size: from the 100 labels alone, or from the teacher and all 1,400 images without any label. No choice is made on the
test images: of the teacher, the epoch that is best on its 100 images teaches; of the students, the last one counts.

Needs scikit-learn beside torchclas[train].
"""

import argparse
import csv
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from torchclas import create_model
from torchclas.catalog import find
from torchclas.reporting.console import Console
from torchclas.tasks.distill import distill
from torchclas.tasks.evaluate import evaluate
from torchclas.tasks.train import train
from torchclas.training.options import DistillOptions, TrainOptions
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

TEACHER, STUDENT = "PPLCNet_x1_0", "PPLCNet_x0_25"
SIZE, BATCH, LABELLED, TEST = 32, 50, 10, 397
EPOCHS = 40  # of 28 steps: all 1,400 images once
LARGE_TEACHER, LARGE_SIZE = "ResNet18_vd", 64
DIGITS = ("augment.flip=0", "augment.scale=[0.5,1]")  # a mirrored digit is none
RATE = ("optimizer.name=adamw", "optimizer.lr=0.002", "optimizer.weight_decay=0.05", "schedule.warmup_epochs=0",
        "loss.label_smoothing=0", f"batch_size={BATCH}", "devices=1")  # fmt: skip


def write_digits(folder: Path) -> None:
    """Make `all` (no class folders), `labelled` and `test` (class folders)."""
    digits: Any = load_digits()
    rest, test = train_test_split(np.arange(len(digits.target)), test_size=TEST, random_state=0, stratify=digits.target)
    few = [index for digit in range(10) for index in rest[digits.target[rest] == digit][:LABELLED]]
    for index in rest:
        save(digits.images[index], folder / "all" / f"{index}.png")
    for name, indices in (("labelled", few), ("test", test)):
        for index in indices:
            save(digits.images[index], folder / name / str(digits.target[index]) / f"{index}.png")


def save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    larger = cv2.resize((image * 15.9).astype(np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), larger)


def test_top1(run: Path, data: Path) -> float:
    """Top-1 in percent of the network that the run kept."""
    report = evaluate(data / "test", model=str(run / "best.safetensors"), workers=0, device="cpu")
    return 100 * report.top1.value


def last_top1(run: Path) -> float:
    """Top-1 in percent after the last epoch."""
    with (run / "log.csv").open() as file:
        return 100 * float(list(csv.DictReader(file))[-1]["val_top1"])


def epoch_seconds(run: Path) -> float:
    """The median over the epochs but the first."""
    with (run / "log.csv").open() as file:
        return statistics.median(float(row["seconds"]) for row in list(csv.DictReader(file))[1:])


def by_labels(data: Path, model: str, seed: int, epochs: int, run: Path, *, val: str) -> None:
    """Train on the 100 labels, named 14 times over: an epoch then has as many steps as one of all images."""
    names = sorted((data / "labelled").rglob("*.png"))
    listed = data / "labelled.txt"
    listed.write_text("".join(f"{name} {name.parent.name}\n" for name in names) * 14)
    options = TrainOptions(
        data=listed, val=data / val, model=model, recipe=model, start="scratch", epochs=epochs, seed=seed,
        overrides=(*DIGITS, *RATE, f"input_size={SIZE}"), batch_size=BATCH, workers=0, device="cpu", output=run,
    )  # fmt: skip
    train(options, QUIET)


def by_teacher(
    data: Path, teacher: Path, seed: int, epochs: int, run: Path, *, cache: int = 0, views: int = 8, size: int = SIZE
) -> None:
    """Train the student on all images, without labels."""
    options = DistillOptions(
        data=data / "all", val=data / "test", model=STUDENT, teacher=str(teacher), recipe="ssld", epochs=epochs,
        seed=seed, overrides=(*DIGITS, *RATE, f"input_size={size}"), batch_size=BATCH, workers=0, device="cpu",
        cache_logits=cache, cache_views=views, output=run,
    )  # fmt: skip
    distill(options, QUIET)


def accuracy(folder: Path, seeds: Sequence[int], epochs: int) -> None:
    columns: dict[str, list[float]] = {}
    for seed in seeds:
        teacher = folder / f"teacher-{seed}"
        by_labels(folder, TEACHER, seed, epochs // 2, teacher, val="labelled")
        weights = teacher / "best.safetensors"
        alone, taught, cached = (folder / f"{name}-{seed}" for name in ("alone", "taught", "cached"))
        by_labels(folder, STUDENT, seed, epochs, alone, val="test")
        by_teacher(folder, weights, seed, epochs, taught)
        by_teacher(folder, weights, seed, epochs, cached, cache=10)
        for name, top1 in (
            (f"teacher {TEACHER}, 100 labels", test_top1(teacher, folder)),
            (f"{STUDENT}, 100 labels", last_top1(alone)),
            (f"{STUDENT}, SSLD, 1,400 images without labels", last_top1(taught)),
            (f"{STUDENT}, the same from a cache of 8 views", last_top1(cached)),
        ):
            columns.setdefault(name, []).append(top1)
    print(f"\n| top-1 %, {TEST} test images | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |")
    print("| --- |" + " --: |" * (len(seeds) + 1))
    for name, values in columns.items():
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} | {statistics.mean(values):.1f} |")


def speed(folder: Path, epochs: int) -> None:
    """A larger teacher, of any weights: what an epoch takes does not depend on them."""
    entry = find(LARGE_TEACHER)
    digits = tuple("0123456789")
    metadata = Metadata(entry.arch, 10, entry.preset.at(LARGE_SIZE), class_ids=digits, class_names=digits)
    weights = folder / f"{LARGE_TEACHER}.safetensors"
    save_checkpoint(create_model(LARGE_TEACHER, num_classes=10), weights, metadata)
    print(f"\n| {LARGE_TEACHER} teaches {STUDENT}, {LARGE_SIZE} px, 1,400 images | seconds per epoch |\n| --- | --: |")
    for name, cache in (("without a cache", 0), ("with a cache", 10)):
        run = folder / f"speed-{cache}"
        by_teacher(folder, weights, 0, epochs, run, cache=cache, views=1, size=LARGE_SIZE)
        print(f"| {name} | {epoch_seconds(run):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs")
    parser.add_argument("--keep", type=Path, help="folder for the runs, which are otherwise deleted; goes on with them")
    parser.add_argument("--only", choices=("accuracy", "speed"))
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    write_digits(folder)
    if arguments.only != "speed":
        seeds, epochs = ([0], 4) if arguments.quick else (arguments.seeds, EPOCHS)
        accuracy(folder, seeds, epochs)
    if arguments.only != "accuracy":
        speed(folder, epochs=4)
    if arguments.keep is None:
        shutil.rmtree(folder)


QUIET = Console(quiet=True)

if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
