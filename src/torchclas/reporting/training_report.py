"""What a finished training run is worth, measured with the file that it leaves behind."""

from __future__ import annotations

import csv
import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from torchclas.atomic import atomic_path
from torchclas.data.datasets import LabelledImages
from torchclas.data.multi_label import is_multi_label
from torchclas.data.preprocess import Preprocess
from torchclas.data.training import Batch, EpochBatches, Loader
from torchclas.explanation.heat_map import shares
from torchclas.explanation.relevance import relevance
from torchclas.inference.evaluation import EvaluationReport
from torchclas.layers.network import Network
from torchclas.metrics.multi_label import Figures, figures
from torchclas.metrics.scores import DEFAULT_THRESHOLD, probabilities
from torchclas.metrics.single_label import Proportion, Tally
from torchclas.reporting import training_page
from torchclas.reporting.confusion import draw
from torchclas.reporting.curves import draw_curves
from torchclas.reporting.evaluation_report import write_figures
from torchclas.reporting.mistakes import Mistake, draw_mistakes
from torchclas.reporting.model_card import write_card
from torchclas.reporting.training_page import Run
from torchclas.spec import ModelSpec, find_model
from torchclas.text import ANY_NAME, csv_path, csv_text, many_images, printable
from torchclas.training.loop import Progress
from torchclas.weights.location import BEST
from torchclas.zoo import load_model

SHOWN = 48  # mistakes
BATCH = 32
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


def write_report(
    folder: Path,
    images: LabelledImages,
    progress: Progress,
    unreadable: Mapping[str, str],
    facts: Sequence[tuple[str, str]],
    *,
    data: str,
) -> list[Path]:
    """Measure best.safetensors on the validation images; write figures, charts, mistakes, a page and the model's card.

    `data` is what the images are called in the figures, `facts` and `unreadable` are for the page. Without matplotlib
    the page alone has charts, and a note says so.
    """
    best = progress.best
    assert best is not None
    tally: Tally | Figures
    several = is_multi_label(images)
    start = time.perf_counter()
    tally, mistakes, names = (_measure_several if several else _measure)(folder / BEST, images)
    seconds = time.perf_counter() - start
    written, notes = list[Path](), list[str]()
    if unreadable:
        bad = folder / "unreadable.csv"
        with atomic_path(bad) as path, path.open("w", encoding="utf-8", errors=ANY_NAME, newline="") as file:
            rows = ((csv_path(name), csv_text(error)) for name, error in unreadable.items())
            csv.writer(file).writerows([("path", "error"), *rows])
        written.append(bad)
        notes.append(f"{many_images(len(unreadable))} could not be read: see unreadable.csv.")
    confusion = None
    if find_spec("matplotlib") is None:
        notes.append('There is no curves.png: matplotlib is needed for it, run pip install "torchclas[plot]".')
    else:
        curves = folder / "curves.png", folder / "curves.svg"
        draw_curves(progress.history, curves)
        written += curves
        if isinstance(tally, Tally):
            confusion = folder / "confusion.png"
            with atomic_path(confusion) as path:
                draw(tally.confusion, names, tally.calibration, f"top-1 {_percent(tally.top1)}", path)
            written.append(confusion)
    if mistakes:
        sheet = folder / "misclassified.png"
        draw_mistakes(mistakes, sheet)
        written.append(sheet)
    written += write_figures(_evaluation(folder / BEST, images, data, tally, unreadable, seconds), folder)
    recipe = folder / "recipe.toml"
    run = Run(
        title=f"{dict(facts)['model']}: {folder.name}",
        figures=[*_figures(tally), ("best epoch", f"{best.epoch} of {progress.epoch}")],
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
    return [*written, training_page.write(folder / "report.html", run), write_card(find_model(folder / BEST))]


def _evaluation(
    checkpoint: Path,
    images: LabelledImages,
    data: str,
    tally: Tally | Figures,
    unreadable: Mapping[str, str],
    seconds: float,
) -> EvaluationReport:
    """What was measured, as `evaluate` reports it."""
    spec = find_model(checkpoint)
    single = tally if isinstance(tally, Tally) else Tally(spec.num_classes)
    sources = {images.name(index) for index in range(len(images))} if unreadable else set[str]()
    return EvaluationReport(
        data=data,
        model=spec.name,
        arch=spec.arch,
        weights=str(checkpoint),
        engine="torch",
        preset=spec.preset,
        samples=len(images),
        images=tally.images,
        unreadable=tuple((source, error) for source, error in unreadable.items() if source in sources),
        top1=single.top1,
        top5=single.top5,
        nll=single.nll,
        ece=single.ece,
        calibration=single.calibration,
        classes=single.classes(),
        class_ids=spec.classes.ids,
        class_names=spec.classes.names(),
        seconds=seconds,
        notes=(),
        multi_label=tally if isinstance(tally, Figures) else None,
    )


def _figures(tally: Tally | Figures) -> list[tuple[str, str]]:
    """What stands large at the top of the page."""
    if isinstance(tally, Figures):
        return [
            ("mean average precision", f"{100 * tally.mean_average_precision:.2f} %"),
            ("mean F1 at the thresholds", f"{100 * tally.mean_f1:.2f} %"),
            ("mean accuracy (mA)", f"{100 * tally.mean_accuracy:.2f} %"),
            ("images with all classes right", f"{100 * tally.exact:.2f} %"),
        ]
    low, high = tally.top1.interval
    return [
        ("top-1 accuracy", f"{100 * tally.top1.value:.2f} %"),
        ("its 95 % interval", f"{100 * low:.1f} – {100 * high:.1f}"),
        ("wrong", f"{tally.top1.total - tally.top1.count:,} of {tally.top1.total:,}"),
    ]


class _Worst:
    """The mistakes that the network is surest of."""

    def __init__(self, images: LabelledImages, preprocess: Preprocess) -> None:
        self._images = images
        self._preprocess = preprocess
        self._heap: list[tuple[float, int, int, Mistake]] = []

    def add(self, batch: Batch, row: int, wrong: int, sure: float, mistake: Mistake) -> None:
        """Keep the image of this row of a batch, if it is among the surest; `wrong` is the class to be explained.

        `mistake` has neither name nor pixels yet.
        """
        if len(self._heap) == SHOWN and sure <= self._heap[0][0]:
            return
        index = int(batch.indices[row])
        pixels = self._preprocess.pixels(batch.images[row].numpy())
        entry = sure, index, wrong, replace(mistake, source=self._images.name(index), pixels=pixels)
        (heapq.heappushpop if len(self._heap) == SHOWN else heapq.heappush)(self._heap, entry)

    def explained(self, network: Network) -> list[Mistake]:
        """The surest first, each with what spoke for the wrong class."""
        kept = sorted(self._heap, key=lambda item: -item[0])
        mistakes: list[Mistake] = []
        for start in range(0, len(kept), BATCH):
            part = kept[start : start + BATCH]
            images = np.stack([self._preprocess.normalize(mistake.pixels) for *_, mistake in part])
            classes = torch.tensor([[wrong] for _, _, wrong, _ in part])
            _, maps = relevance(network, _channels_last(images), lambda _, classes=classes: classes)
            heat = (shares(np.nan_to_num(each)) for each in maps[:, 0].float().numpy())
            mistakes += [replace(mistake, heat=each) for (*_, mistake), each in zip(part, heat, strict=True)]
        return mistakes


def _measure(checkpoint: Path, images: LabelledImages) -> tuple[Tally, list[Mistake], tuple[str, ...]]:
    """Figures, the mistakes with the highest scores, and the names of the classes."""
    spec, network, preprocess = _opened(checkpoint)
    names = tuple(map(printable, spec.classes.names("en")))
    tally = Tally(spec.num_classes)
    worst = _Worst(images, preprocess)
    for batch, scores in _scored(network, spec, images, preprocess):
        labels = batch.labels.numpy()
        tally.add(scores, labels)
        said = scores.argmax(1)
        for row in np.flatnonzero(said != labels).tolist():
            wrong, true = int(said[row]), names[labels[row]]
            score = float(scores[row, wrong])
            worst.add(batch, row, wrong, score, Mistake("", true, names[wrong], score, _NO_PIXELS))
    return tally, worst.explained(network), names


def _measure_several(checkpoint: Path, images: LabelledImages) -> tuple[Figures, list[Mistake], tuple[str, ...]]:
    """The same where an image has any number of classes; how sure a mistake is, is said by its surest wrong class."""
    spec, network, preprocess = _opened(checkpoint)
    names = tuple(map(printable, spec.classes.names("en")))
    thresholds = np.array(spec.thresholds or [DEFAULT_THRESHOLD] * spec.num_classes, np.float32)
    worst = _Worst(images, preprocess)
    parts = list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]()

    def named(row: npt.NDArray[np.bool_]) -> str:
        return ", ".join(names[index] for index in np.flatnonzero(row)) or "–"

    def scored(chosen: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]) -> tuple[tuple[str, float], ...]:
        return tuple((names[index], float(scores[index])) for index in np.flatnonzero(chosen))

    for batch, scores in _scored(network, spec, images, preprocess):
        labels = batch.labels.numpy()
        parts.append((scores, labels))
        said, true = scores >= thresholds, labels > 0
        sure = np.where(said, scores, 1 - scores) * (said != true)
        for row in np.flatnonzero((said != true).any(1)).tolist():
            wrong = int(sure[row].argmax())
            missed, added = (scored(chosen, scores[row]) for chosen in (true[row] & ~said[row], said[row] & ~true[row]))
            score = float(scores[row, wrong])
            mistake = Mistake("", named(true[row]), names[wrong], score, _NO_PIXELS, missed=missed, added=added)
            worst.add(batch, row, wrong, float(sure[row, wrong]), mistake)
    scores, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return figures(scores, labels, thresholds), worst.explained(network), names


def _opened(checkpoint: Path) -> tuple[ModelSpec, Network, Preprocess]:
    spec = find_model(checkpoint)
    network = load_model(spec).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return spec, network, Preprocess(spec.preset, channels=spec.in_channels)


def _scored(
    network: Network, spec: ModelSpec, images: LabelledImages, preprocess: Preprocess
) -> Iterator[tuple[Batch, npt.NDArray[np.float32]]]:
    """Batches of what can be read, with the probabilities of all classes."""
    for batch in Loader(images, preprocess, EpochBatches(len(images), BATCH, shuffle=False, drop_last=False)):
        if len(batch.images):
            with torch.inference_mode():
                logits = network(batch.images.to(memory_format=torch.channels_last)).float().numpy()
            yield batch, probabilities(logits, spec.activation)


def _channels_last(images: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(images).to(memory_format=torch.channels_last)


def _percent(proportion: Proportion) -> str:
    return f"{100 * proportion.value:.2f} %"
