"""The `quantize` command: a model in 8-bit integers, but for the layers that measurement says must stay in float."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torchclas import catalog
from torchclas.atomic import atomic_path
from torchclas.data.opening import Opened, open_for_model, open_pictures
from torchclas.engines.compiled import graph_file, graph_outputs, int8_path
from torchclas.engines.machine import usable_threads
from torchclas.errors import CheckpointError, Error, OutputError
from torchclas.metrics.single_label import Proportion
from torchclas.quantization.images import read, split
from torchclas.quantization.judging import Figures, Judge, MultiLabelJudge
from torchclas.quantization.network import logits_of, quantize_network, write
from torchclas.quantization.report import QuantizationReport
from torchclas.quantization.speed import times
from torchclas.reporting.model_card import write_card
from torchclas.reporting.progress import stages
from torchclas.spec import ModelSpec, find_model
from torchclas.vocabulary import OUTPUTS
from torchclas.weights.exported import RUNTIMES
from torchclas.weights.location import quantized_path

IMAGES = 300  # to calibrate with
FEW_CALIBRATING, FEW_CHECKING = 32, 100  # with fewer, the report says what the figures are worth

MAX_ACCURACY_DROP = 0.5  # percentage points, where the checking images are labelled
MAX_DISAGREEMENT = 2.0  # likewise, where they are not: an image may change its class without changing for the worse


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
    `Classifier(model, precision="int8")` finds it. A report in JSON and a
    model card are put beside it.

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
        calibrating, _, unreadable = read(chosen, spec, advance)
        checking, truth, also_unreadable = read(checked, spec, advance)
        reference, truth = logits_of(float_path, checking, "fp32"), None if val is None else truth
        judge = MultiLabelJudge(reference, truth, spec) if spec.multi_label else Judge(reference, truth)
        found = quantize_network(
            float_path, calibrating, checking, judge, bound, Path(folder) / "candidate.onnx", stage
        )
        given = graph_outputs(spec, float_path)
        write(found, path, replace(spec, name=name, outputs=given), len(calibrating))
        stage("timing", None)
        speed = tuple(times(float_path, path, checking))
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
    write_card(find_model(path))
    return report


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
    if spec.pixels or spec.graph == "fp16" or Path(spec.path or "").suffix in (".xml", *RUNTIMES):
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
