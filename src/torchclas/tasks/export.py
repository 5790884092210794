"""The `export` command: a model as a file for another runtime, which keeps its name only if it computes the same."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torchclas.catalog import Preset
from torchclas.engines.engine import ordered
from torchclas.errors import CheckpointError, Error, OutputError, UnknownNameError
from torchclas.exporting import gate
from torchclas.exporting.files import check_folder, named_when_done
from torchclas.exporting.formats import FORMATS, Options, Wish
from torchclas.exporting.gate import DivergenceError
from torchclas.exporting.opset import LOWEST, NEWEST
from torchclas.exporting.preprocess import why_not
from torchclas.exporting.trace import traceable
from torchclas.exporting.web_runtime import find_runtime
from torchclas.layers.fold import fold_batch_norms
from torchclas.sizes import Size
from torchclas.spec import ModelSpec, find_model
from torchclas.vocabulary import Activation, ExportFormat, ExportInput, ExportPrecision, Output
from torchclas.weights.metadata import Metadata, origin_of
from torchclas.zoo import load_model, weights_of

# Pillow's rounding comes out differently for a few pixels in 100,000, by one of 255 levels.
TOLERANCE_FILTERED = 1e-2


@dataclass(frozen=True)
class Exported:
    """A written file: bytes of all its parts, and the largest error of its logits, relative to the largest one."""

    path: Path
    size: int
    error: float
    seconds: float


def export(
    model: str | Path | None = None,
    *,
    to: ExportFormat,
    weights: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    preset: Preset | None = None,
    activation: Activation | None = None,
    output: str | Path | None = None,
    batch: int | None = None,
    input: ExportInput = "float32",  # noqa: A002 - the option's name
    size: int | Size | None = None,
    outputs: Sequence[Output] = ("logits",),
    runtime: str | Path | None = None,
    precision: ExportPrecision = "fp32",
    opset: int | None = None,
) -> Exported:
    """Write a model as a file for another runtime, which keeps its name only if it computes the same.

    The model is named as for `torchclas.Classifier`. By default the file goes into the current folder and is called
    after the model, or after the file of weights that it is made of (the best weights of a run: after the run's
    folder). For timm and the web it is a folder, which takes the place of an earlier one. `batch` fixes the number of
    images at once, which is 1 for ExecuTorch if it is not given. With `input="uint8"` the file takes the pixels of
    images of any size, [N, H, W, 3], and does the model's preprocessing itself. `size` is the image size in pixels, a
    side or (height, width), where it is not to be the model's own, and `preset` how they are prepared. `outputs` are
    logits, embedding (the vector before the classifier), or both. `runtime` says where a web site has onnxruntime-web
    from: `npm`, which fetches it once, `cdn`, or a path. In `precision` fp16 the numbers in the file have half
    precision: it is half as large, and right to a hundredth of the largest logit. `opset` is the version of the
    operators in an ONNX file, for runtimes that do not read the newest.

    Raises:
        DivergenceError: run by its runtime, the file does not compute what the network does; it is not kept.
        CheckpointError, DownloadError: the weights cannot be had.
        ImageSizeError: the network cannot take images of `size` pixels.
        MissingDependencyError: a package or program that the format takes is not installed.
        OutputError: the file cannot be written.
    """
    start = time.perf_counter()
    kind = FORMATS.get(to)
    if kind is None:
        raise UnknownNameError("format", to, FORMATS, f"choose from {', '.join(FORMATS)}")
    spec = find_model(model, weights=weights, labels=labels, preset=preset, activation=activation)
    if spec.graph is not None:
        raise CheckpointError(f"{spec.path} was exported already: export from the model's name or its checkpoint")
    pixels, wanted = input == "uint8", ordered(outputs)
    wishes: dict[Wish, bool] = {
        "pixels": pixels,
        "batch": batch is not None,
        "batches": (batch or 1) > 1,
        "embedding": "embedding" in wanted,
        "fp16": precision == "fp16",
        "opset": opset is not None,
    }
    kind.require(wish for wish, wished in wishes.items() if wished)
    if opset is not None and not LOWEST <= opset <= NEWEST:
        raise Error(f"files can be written in the operator sets {LOWEST} to {NEWEST}, not in {opset}")
    if pixels and spec.in_channels != 3:
        raise Error(f"{spec.name} takes {spec.in_channels} channels: only RGB images can be prepared in the graph")
    path = Path(output or f"{spec.file_name}{kind.suffix or f'-{to}'}")
    if not kind.suffix:
        check_folder(path, kind.files)
    elif not path.name.endswith(kind.suffix):
        raise OutputError(f"{path}: the name of {to} files must end in {kind.suffix}")
    if size is not None:
        spec = replace(spec, preset=spec.preset.at(size))
    if pixels and (reason := why_not(spec.preset)):
        raise Error(f"{spec.name}: {reason}: leave `--input uint8` out")
    if kind.add_runtime is None and runtime is not None:
        raise Error("only a web site takes its runtime along: leave `--runtime` out")
    brought = None if kind.add_runtime is None else find_runtime(runtime)
    network = load_model(spec)
    metadata = replace(describe(spec, input, precision), outputs=wanted)
    batch = batch or kind.default_batch
    options = Options(batch, pixels, precision, opset)
    cases = [
        (images, gate.compute(network, spec.preset, images, metadata.outputs))
        for images in gate.inputs(spec.preset, channels=spec.in_channels, batch=batch, pixels=pixels)
    ]
    if kind.folds:
        fold_batch_norms(network.fuse())  # the exporter would as well, in twice the time
    with named_when_done(path) as temporary:
        kind.write(network, temporary, metadata, options)
        exact = not pixels or (spec.preset.backend, spec.preset.interpolation) == ("opencv", "bilinear")
        tolerance = gate.TOLERANCE if exact else TOLERANCE_FILTERED
        try:
            error = gate.check(
                kind.open(temporary, options),
                traceable(network, metadata, pixels=pixels),
                cases,
                tolerance=tolerance if precision == "fp32" else gate.TOLERANCE_HALF,
            )
        except DivergenceError as divergence:
            raise DivergenceError(f"{path} was not written: {divergence}") from None
        if kind.add_runtime is not None and brought is not None:
            kind.add_runtime(temporary, brought)
        bytes_written = sum(file.stat().st_size for file in temporary.parent.rglob("*") if file.is_file())
    return Exported(path, bytes_written, error, time.perf_counter() - start)


def describe(
    spec: ModelSpec,
    input: ExportInput = "float32",  # noqa: A002 - the option's name
    precision: ExportPrecision = "fp32",
) -> Metadata:
    """What an exported file says of itself: what its weights' file says, what input it takes, and its precision."""
    half = {"precision": precision} if precision == "fp16" else {}
    return spec.metadata(**{**origin_of(weights_of(spec)), "input": input, **half})
