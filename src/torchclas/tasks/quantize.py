"""The `quantize` command: a model in 8-bit integers, but for the layers that measurement says must stay in float."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchclas import catalog
from torchclas.atomic import atomic_path
from torchclas.data.datasets import Entry, LabelledImages, Relabelled, entries
from torchclas.data.loader import load
from torchclas.data.opening import Opened, open_for_model, open_pictures
from torchclas.data.preprocess import Preprocess
from torchclas.data.shards import ParquetImages
from torchclas.engines import Engine, installed
from torchclas.engines.compiled import graph_file, graph_outputs, int8_path
from torchclas.engines.machine import this_machine, usable_threads
from torchclas.engines.onnx_runtime import OnnxRuntimeEngine
from torchclas.engines.openvino import OpenVinoEngine
from torchclas.errors import CheckpointError, DataError, Error, MissingDependencyError, OutputError
from torchclas.inference.classifier import probabilities
from torchclas.inference.metrics import Proportion
from torchclas.messages import label
from torchclas.metrics.multi_label import DEFAULT_THRESHOLD, mean_average_precision
from torchclas.quantization.search import Noise, fewest, rank
from torchclas.reporting.amounts import mebibytes
from torchclas.reporting.console import Console, Table, escape
from torchclas.reporting.progress import Advance, Stages, stages
from torchclas.reporting.rows import printable
from torchclas.spec import ModelSpec, find_model
from torchclas.version import __version__
from torchclas.vocabulary import OUTPUTS, EngineName, Precision
from torchclas.weights import cache
from torchclas.weights.location import quantized_path
from torchclas.weights.metadata import KEY

if TYPE_CHECKING:
    import onnx

Images = NDArray[np.float32]  # [N, 3, H, W]
Logits = NDArray[np.float32]  # [N, classes]

IMAGES = 300  # to calibrate with
CHECKING_IMAGES = 500  # at most; others than those
FEW_CALIBRATING, FEW_CHECKING = 32, 100  # with fewer, the report says what the figures are worth
RANKING_IMAGES = 16  # of the calibration's, on which each operation is measured by itself
BATCH = 8  # images at once
TIMING_SECONDS, MIN_ROUNDS = 1.0, 5  # for each engine and number of images
SMALLEST = float(np.finfo(np.float32).tiny)
SHOWN = 10  # rows of a printed list; the file has all

MAX_ACCURACY_DROP = 0.5  # percentage points, where the checking images are labelled
MAX_DISAGREEMENT = 2.0  # likewise, where they are not: an image may change its class without changing for the worse


@dataclass(frozen=True)
class Figures:
    """How a network does on the checking images: `agreement` with fp32 and `top1` (where there are labels), percent.

    Where an image has any number of classes, agreement is over all pairs of an image and a class, at the thresholds,
    and `mean_average_precision` takes the place of `top1`.

    `cosine` is the mean similarity of an image's logits to those of fp32; `psnr_db` is over the logits of all images,
    None where they are the same.
    """

    agreement: float
    top1: float | None
    cosine: float
    psnr_db: float | None
    mean_average_precision: float | None = None

    @property
    def accuracy(self) -> float | None:
        """What the network is judged by where there are labels, percent."""
        return self.top1 if self.mean_average_precision is None else self.mean_average_precision


@dataclass(frozen=True)
class Speed:
    """Medians of rounds in which both networks took turns, milliseconds for `batch` images at once."""

    engine: EngineName
    batch: int
    fp32_ms: float
    int8_ms: float


@dataclass(frozen=True)
class FloatOperation:
    """An operation left in float; `noise_db` is how loud quantizing it alone is in the logits, relative to them."""

    name: str
    noise_db: float


@dataclass(frozen=True)
class QuantizationReport:
    """What was made, and how it does; `all_int8` is before anything was put back into float. Sizes are in bytes.

    `max_drop`, in percentage points, was allowed: of accuracy where `fp32` is there, else of agreement.
    """

    model: str
    path: Path
    calibration: str
    calibration_images: int
    checking: str
    checking_images: int
    unreadable: int
    max_drop: float
    fp32: Figures | None
    all_int8: Figures
    int8: Figures
    operations: int
    in_float: tuple[FloatOperation, ...]
    fp32_size: int
    int8_size: int
    threads: int
    speed: tuple[Speed, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        machine = this_machine().to_dict()
        return {"torchclas": __version__, "machine": machine, **asdict(self), "path": str(self.path)}


def quantize(
    model: str | Path | None = None,
    *,
    calibration: str | Path,
    weights: str | Path | None = None,
    val: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    root: str | Path | None = None,
    delimiter: str = " ",
    max_drop: float | None = None,
    images: int = IMAGES,
    output: str | Path | None = None,
) -> QuantizationReport:
    """Write a model in 8-bit integers as an ONNX file that ONNX Runtime and OpenVINO run, and measure it.

    `calibration` are pictures such as the model will see: a folder, or any labelled data; labels are not used. Of
    them, `images` set the ranges of numbers. Up to 500 others, or of `val` (labelled data, which `labels`, `root` and
    `delimiter` explain), say whether the result is good enough: its accuracy may be `max_drop` percentage points lower
    (default 0.5), or, without `val`, so many percent of its classes may differ from the float network's (default 2).
    Where that is too much, operations are put back into float, those first that disturb the result most.

    The model is named as for `torchclas.Classifier`. Without `output` the file goes where
    `Classifier(model, precision="int8")` finds it. A report in JSON is put beside it.

    Raises:
        CheckpointError, DownloadError: the weights cannot be had.
        DataError: there are too few images, or they cannot be used.
        MissingDependencyError: a package is not installed.
        OutputError: the file cannot be written.
    """
    start = time.perf_counter()
    bound = (MAX_DISAGREEMENT if val is None else MAX_ACCURACY_DROP) if max_drop is None else max_drop
    if not 0 <= bound <= 100 or images < 1:
        raise Error(f"max_drop is in 0..100 percentage points, and images at least 1: not {bound:g} and {images}")
    spec, name, path = find_source(model, weights, output)
    if labels is not None and spec.numbered:
        spec = spec.with_names(labels)
    pool = open_pictures(calibration, root=None if Path(calibration).is_dir() else root, delimiter=delimiter)
    others = None if val is None else _labelled(val, spec, labels, root, delimiter)
    chosen, checked = split(pool, others, images)
    float_path = graph_file(spec, OUTPUTS)
    with stages() as stage, TemporaryDirectory() as folder:
        advance = stage("reading images", len(chosen) + len(checked))
        calibrating, _, unreadable = _read(chosen, spec, advance)
        checking, truth, also_unreadable = _read(checked, spec, advance)
        reference, truth = _logits(float_path, checking, "fp32"), None if val is None else truth
        judge = MultiLabelJudge(reference, truth, spec) if spec.multi_label else Judge(reference, truth)
        found = _search(float_path, calibrating, checking, judge, bound, Path(folder) / "candidate.onnx", stage)
        given = graph_outputs(spec, float_path)
        _write(found, path, replace(spec, name=name, outputs=given), len(calibrating))
        stage("timing", None)
        speed = tuple(_times(float_path, path, checking))
    report = QuantizationReport(
        model=name,
        path=path,
        calibration=str(calibration),
        calibration_images=len(calibrating),
        checking=str(calibration if val is None else val),
        checking_images=len(checking),
        unreadable=unreadable + also_unreadable,
        max_drop=bound,
        fp32=None if val is None else judge.figures(judge.reference),
        all_int8=judge.figures(found.all_int8),
        int8=judge.figures(found.logits),
        operations=found.operations,
        in_float=found.in_float,
        fp32_size=float_path.stat().st_size,
        int8_size=path.stat().st_size,
        threads=usable_threads(),
        speed=speed,
        seconds=time.perf_counter() - start,
        notes=(
            *dict.fromkeys((*pool.notes, *(others.notes if others else ()))),
            *_few(len(calibrating), len(checking), judge.figures(found.logits)),
        ),
    )
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return report


def print_report(report: QuantizationReport, console: Console) -> None:
    """Print what was kept of the float network, what was not quantized, size and speed."""
    quantized = report.operations - len(report.in_float)
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = [
        ("model", report.model),
        ("images", f"{report.calibration_images} to calibrate, {report.checking_images} others to check"),
        ("int8", f"{quantized} of {report.operations} operations"),
        ("agreement", f"{report.int8.agreement:.2f} % with fp32 (all in int8: {report.all_int8.agreement:.2f} %)"),
        ("top-1" if report.int8.mean_average_precision is None else "mAP", _accuracies(report)),
        ("logits", f"cosine {report.int8.cosine:.4f}{_decibels(report.int8.psnr_db)}"),
        ("size", f"{mebibytes(report.fp32_size)} → {mebibytes(report.int8_size)}"),
    ]
    for title, text in rows:
        if text:
            table.add_row(label(title), escape(text))
    console.print(table)
    if report.in_float:
        shown = Table(title=f"{len(report.in_float)} left in float")
        shown.add_column("operation")
        shown.add_column("noise of its int8", justify="right")
        for operation in report.in_float[:SHOWN]:
            shown.add_row(escape(operation.name), f"{operation.noise_db:.1f} dB")
        console.print(shown)
        if len(report.in_float) > SHOWN:
            console.print(f"  … and {len(report.in_float) - SHOWN} more")
    speed = Table(title=f"Milliseconds, {report.threads} threads")
    for column in ("engine", "images", "fp32", "int8", "faster"):
        speed.add_column(column, justify="left" if column == "engine" else "right")
    for row in report.speed:
        ratio = f"{row.fp32_ms / row.int8_ms:.2f}×"
        speed.add_row(row.engine, str(row.batch), f"{row.fp32_ms:.2f}", f"{row.int8_ms:.2f}", ratio)
    console.print(speed)
    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(printable(note))}", soft_wrap=True)
    if report.unreadable:
        console.print(f"[yellow]Note:[/] {report.unreadable} images could not be read, and were left out")
    console.print(f"wrote {escape(str(report.path))}", soft_wrap=True)


class Judge:
    """Compares logits with the float network's for the same images, and with labels where there are any."""

    def __init__(self, reference: Logits, labels: NDArray[np.int64] | None) -> None:
        if not np.isfinite(reference).all():
            raise CheckpointError(
                "the float network computes NaN or infinity for some images: are its weights damaged?"
            )
        self.reference = reference
        self.labels = labels

    def drop(self, logits: Logits) -> float:
        """Percentage points of accuracy lost, or of classes that changed."""
        figures = self.figures(logits)
        if figures.accuracy is None:
            return 100 - figures.agreement
        before = self.figures(self.reference).accuracy
        assert before is not None
        return before - figures.accuracy

    def figures(self, logits: Logits) -> Figures:
        """All that is reported of a network."""
        lengths = np.maximum(np.linalg.norm(logits, axis=1) * np.linalg.norm(self.reference, axis=1), SMALLEST)
        error = float(np.square(logits - self.reference).mean())
        peak = float(np.abs(self.reference).max())
        return Figures(
            agreement=_share(self._answers(logits) == self._answers(self.reference)),
            top1=None if self.labels is None else self._accuracy(logits, self.labels),
            cosine=float(((logits * self.reference).sum(1) / lengths).mean()),
            psnr_db=10 * math.log10(peak**2 / error) if error else None,
        )

    def _answers(self, logits: Logits) -> NDArray[Any]:
        return logits.argmax(1)

    def _accuracy(self, logits: Logits, labels: NDArray[np.int64]) -> float:
        return _share(self._answers(logits) == labels)


class MultiLabelJudge(Judge):
    """The same where an image has any number of classes."""

    def __init__(self, reference: Logits, labels: NDArray[np.int64] | None, spec: ModelSpec) -> None:
        super().__init__(reference, labels)
        self.thresholds = np.array(spec.thresholds or [DEFAULT_THRESHOLD] * spec.num_classes, np.float32)

    def figures(self, logits: Logits) -> Figures:
        """All that is reported of a network."""
        figures = super().figures(logits)
        return replace(figures, top1=None, mean_average_precision=figures.top1)

    def _answers(self, logits: Logits) -> NDArray[Any]:
        return probabilities(logits, "sigmoid") >= self.thresholds

    def _accuracy(self, logits: Logits, labels: NDArray[np.int64]) -> float:
        return 100 * mean_average_precision(logits, labels)


@dataclass(frozen=True)
class _Found:
    model: onnx.ModelProto
    logits: Logits  # of the checking images
    all_int8: Logits
    operations: int
    in_float: tuple[FloatOperation, ...]


def _search(
    float_path: Path, calibrating: Images, checking: Images, judge: Judge, bound: float, candidate: Path, stage: Stages
) -> _Found:
    """Quantize, and put back into float as few operations as bring the drop below `bound`."""
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("onnx", "'torchclas[int8]'") from None
    from torchclas.quantization.calibration import quantize_all
    from torchclas.quantization.graph import QuantizedGraph

    def run(model: onnx.ModelProto, images: Images) -> Logits:
        onnx.save(model, candidate)
        return _logits(candidate, images, "int8")

    source = onnx.load(float_path)
    seen = partial(stage("calibrating", None), 1)
    graph = QuantizedGraph(source, quantize_all(source, calibrating, seen))
    model = graph.with_float(())
    logits = all_int8 = run(model, checking)
    in_float: Sequence[Noise] = ()
    if judge.drop(logits) > bound:
        some = calibrating[:RANKING_IMAGES]
        measured = partial(stage("measuring each layer", len(graph.operations)), 1)
        ranked = rank(graph, lambda model: run(model, some), _logits(float_path, some, "fp32"), measured)
        tried = stage("choosing what stays in float", None)

        def suffices(noises: Sequence[Noise]) -> bool:
            tried(1)
            return judge.drop(run(graph.with_float({noise.operation for noise in noises}), checking)) <= bound

        in_float = fewest(ranked, suffices)
        model = graph.with_float({noise.operation for noise in in_float})
        logits = run(model, checking)
    floats = tuple(FloatOperation(noise.operation, 10 * math.log10(noise.power or 1e-30)) for noise in in_float)
    return _Found(model, logits, all_int8, len(graph.operations), floats)


def _logits(path: Path, images: Images, precision: Precision) -> Logits:
    engine = OpenVinoEngine(path, precision=precision)
    logits = [engine(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
    engine.close()
    return np.concatenate(logits)


def _write(found: _Found, path: Path, spec: ModelSpec, images: int) -> None:
    import onnx
    from onnx import helper

    metadata = replace(
        spec.metadata(
            precision="int8",
            calibration_images=images,
            in_float=[operation.name for operation in found.in_float],
        ),
        outputs=spec.outputs,
    )
    properties = {entry.key: entry.value for entry in found.model.metadata_props}
    helper.set_model_props(found.model, {**properties, KEY: metadata.to_json()})
    in_cache = path.is_relative_to(cache.cache_dir())
    with cache.recording(path) if in_cache else atomic_path(path) as temporary:
        onnx.save(found.model, temporary)


def _times(float_path: Path, int8_file: Path, images: Images) -> Iterator[Speed]:
    """Both networks take turns in every engine, since other programs may interfere."""
    for name, open_file in _OPENERS.items():
        if name not in installed():
            continue
        for batch in (1, BATCH):
            some = np.resize(images, (batch, *images.shape[1:]))
            engines = open_file(float_path, "fp32", batch), open_file(int8_file, "int8", batch)
            seconds: tuple[list[float], list[float]] = [], []
            for engine in engines:
                engine(some)  # the first call allocates
            while sum(map(sum, seconds)) < TIMING_SECONDS or len(seconds[0]) < MIN_ROUNDS:
                for engine, own in zip(engines, seconds, strict=True):
                    start = time.perf_counter()
                    engine(some)
                    own.append(time.perf_counter() - start)
            for engine in engines:
                engine.close()
            yield Speed(name, batch, 1e3 * median(seconds[0]), 1e3 * median(seconds[1]))


def _open_openvino(path: Path, precision: Precision, batch: int) -> Engine:
    return OpenVinoEngine(path, precision=precision, batch_size=batch)


def _open_onnxruntime(path: Path, precision: Precision, batch: int) -> Engine:
    return OnnxRuntimeEngine(path, precision=precision)


_OPENERS: dict[EngineName, Callable[[Path, Precision, int], Engine]] = {
    "openvino": _open_openvino,
    "onnxruntime": _open_onnxruntime,
}


def find_source(
    model: str | Path | None,
    weights: str | Path | None,
    output: str | Path | None,
) -> tuple[ModelSpec, str, Path]:
    """The float model, the name of the quantized one, and where that goes."""
    wanted = str(model).lower()
    entry = next((row for row in catalog.entries() if row.quantized_from and row.name.lower() == wanted), None)
    spec = find_model(model if entry is None else entry.quantized_from, weights=weights)
    if spec.graph == "int8":
        raise CheckpointError(f"{spec.path} is quantized already")
    if spec.pixels or Path(spec.path or "").suffix == ".xml":
        raise CheckpointError(f"{spec.path}: quantize the model it was exported from, by its name or checkpoint")
    if output is not None:
        path = Path(output)
    elif spec.graph is not None:
        raise Error(f"{spec.path} is an exported model: say with --output where the quantized one goes")
    else:
        path = int8_path(spec) if entry is None else quantized_path(entry)
    if path.suffix != ".onnx":
        raise OutputError(f"{path}: quantized models are ONNX files: the name must end in .onnx")
    return spec, spec.name if entry is None else entry.name, path


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


def _labelled(
    val: str | Path,
    spec: ModelSpec,
    labels: str | Path | Sequence[str] | None,
    root: str | Path | None,
    delimiter: str,
) -> Opened:
    root = None if Path(val).is_dir() else root
    several = spec.multi_label
    return open_for_model(
        val, spec.classes, spec.name, labels=labels, root=root, delimiter=delimiter, multi_label=several
    )


def _few(calibrating: int, checking: int, figures: Figures) -> Iterator[str]:
    """What figures from so few images are worth."""
    if calibrating < FEW_CALIBRATING:
        yield f"calibrated with {calibrating} images: the ranges of other images may differ; {IMAGES} are usual"
    if checking < FEW_CHECKING:
        low, high = Proportion(round(figures.agreement * checking / 100), checking).interval
        yield (
            f"checked with {checking} images: {figures.agreement:.0f} % agreement stands for anything from "
            f"{100 * low:.0f} to {100 * high:.0f} % (95 % interval); give some hundred more"
        )


def _shuffled(images: LabelledImages) -> list[Entry]:
    """In an order that is always the same: folders have one class after the other."""
    return random.Random(0).sample(list(entries(images)), len(images))


def _read(samples: Sequence[Entry], spec: ModelSpec, advance: Advance) -> tuple[Images, NDArray[np.int64], int]:
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


def _share(true: NDArray[np.bool_]) -> float:
    return 100 * float(true.mean())


def _accuracies(report: QuantizationReport) -> str:
    if report.fp32 is None:
        return ""
    before, after, all_int8 = (figures.accuracy for figures in (report.fp32, report.int8, report.all_int8))
    return f"{after:.2f} %, fp32 {before:.2f} % (all in int8: {all_int8:.2f} %)"


def _decibels(value: float | None) -> str:
    return "" if value is None else f", PSNR {value:.1f} dB"
