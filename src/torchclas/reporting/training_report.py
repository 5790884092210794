"""What a finished training run is worth, measured with the file that it leaves behind."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from torchclas.atomic import atomic_path
from torchclas.data.datasets import LabelledImages
from torchclas.data.preprocess import Preprocess
from torchclas.data.training import EpochBatches, Loader
from torchclas.inference.metrics import Proportion, Tally
from torchclas.reporting import training_page
from torchclas.reporting.confusion import draw
from torchclas.reporting.curves import draw_curves
from torchclas.reporting.mistakes import Mistake, draw_mistakes
from torchclas.reporting.training_page import Run
from torchclas.spec import find_model
from torchclas.text import ANY_NAME, csv_path, csv_text, printable
from torchclas.training.loop import Progress
from torchclas.zoo import load_model

SHOWN = 48  # mistakes
BATCH = 32


def write_report(
    folder: Path,
    images: LabelledImages,
    progress: Progress,
    unreadable: Mapping[str, str],
    facts: Sequence[tuple[str, str]],
) -> list[Path]:
    """Measure best.safetensors on the validation images; write charts, a sheet of mistakes and report.html.

    Without matplotlib the page alone has charts, and a note says so.
    """
    best = progress.best
    assert best is not None
    tally, mistakes, names = _measure(folder / "best.safetensors", images)
    written, notes = list[Path](), list[str]()
    if unreadable:
        bad = folder / "unreadable.csv"
        with atomic_path(bad) as path, path.open("w", encoding="utf-8", errors=ANY_NAME, newline="") as file:
            rows = ((csv_path(name), csv_text(error)) for name, error in unreadable.items())
            csv.writer(file).writerows([("path", "error"), *rows])
        written.append(bad)
        notes.append(f"{len(unreadable):,} images could not be read; unreadable.csv lists them.")
    confusion = None
    if find_spec("matplotlib") is None:
        notes.append('There is no curves.png: matplotlib is needed for it, run pip install "torchclas[plot]".')
    else:
        curves, confusion = folder / "curves.png", folder / "confusion.png"
        draw_curves(progress.history, (curves, folder / "curves.svg"))
        with atomic_path(confusion) as path:
            draw(tally.confusion, names, tally.calibration, f"top-1 {_percent(tally.top1)}", path)
        written += [curves, folder / "curves.svg", confusion]
    if mistakes:
        sheet = folder / "misclassified.png"
        draw_mistakes(mistakes, sheet)
        written.append(sheet)
    low, high = tally.top1.interval
    figures = [
        ("top-1 accuracy", f"{100 * tally.top1.value:.2f} %"),
        ("its 95 % interval", f"{100 * low:.1f} – {100 * high:.1f}"),
        ("wrong", f"{tally.top1.total - tally.top1.count:,} of {tally.top1.total:,}"),
        ("best epoch", f"{best.epoch} of {progress.epoch}"),
    ]
    recipe = folder / "recipe.toml"
    run = Run(
        title=f"{dict(facts)['model']}: {folder.name}",
        figures=figures,
        facts=facts,
        notes=notes,
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        history=progress.history,
        best=best,
        tally=tally,
        names=names,
        mistakes=mistakes,
        confusion=confusion,
    )
    return [*written, training_page.write(folder / "report.html", run)]


@torch.inference_mode()
def _measure(checkpoint: Path, images: LabelledImages) -> tuple[Tally, list[Mistake], tuple[str, ...]]:
    """Figures, the mistakes with the highest scores, and the names of the classes."""
    spec = find_model(checkpoint)
    names = tuple(map(printable, spec.classes.names("en")))
    network = load_model(spec).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    tally = Tally(spec.num_classes)
    worst: list[tuple[float, int, Mistake]] = []
    batches = EpochBatches(len(images), BATCH, shuffle=False, drop_last=False)
    preprocess = Preprocess(spec.preset, channels=spec.in_channels)
    for batch in Loader(images, preprocess, batches):
        if not len(batch.images):
            continue
        probabilities = network(batch.images.to(memory_format=torch.channels_last)).float().softmax(-1).numpy()
        labels = batch.labels.numpy()
        tally.add(probabilities, labels)
        said = probabilities.argmax(1)
        for row in np.flatnonzero(said != labels).tolist():
            score, index = float(probabilities[row, said[row]]), int(batch.indices[row])
            if len(worst) == SHOWN and score <= worst[0][0]:
                continue
            pixels = preprocess.pixels(batch.images[row].numpy())
            mistake = Mistake(images.name(index), names[labels[row]], names[said[row]], score, pixels)
            (heapq.heappushpop if len(worst) == SHOWN else heapq.heappush)(worst, (score, index, mistake))
    return tally, [mistake for _, _, mistake in sorted(worst, key=lambda item: -item[0])], names


def _percent(proportion: Proportion) -> str:
    return f"{100 * proportion.value:.2f} %"
