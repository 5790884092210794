"""The `export` command: a model as a file for another runtime, which keeps its name only if it computes the same."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from torchclas import catalog
from torchclas.atomic import disk_is_full
from torchclas.catalog import Preset
from torchclas.data.preprocess import Preprocess
from torchclas.engines.eager import fold_batch_norms
from torchclas.errors import CheckpointError, Error, MissingDependencyError, OutputError, UnknownNameError
from torchclas.exporting import gate
from torchclas.exporting.gate import Array, DivergenceError, ExportedFile
from torchclas.exporting.onnx import OnnxFile, write_onnx
from torchclas.exporting.openvino import OpenVinoFile, write_openvino
from torchclas.exporting.program import ProgramFile, write_program
from torchclas.exporting.tensorrt import TensorRtFile, trtexec, write_tensorrt
from torchclas.exporting.trace import traceable
from torchclas.layers.network import Network
from torchclas.spec import ModelSpec, find_model
from torchclas.weights.metadata import Metadata, origin_of
from torchclas.weights.published import published_file
from torchclas.zoo import load_model

Format = Literal["onnx", "openvino", "torch-export", "tensorrt"]
Input = Literal["float32", "uint8"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2", "tensorrt": ".engine"}

# Packages, and the extras that bring them.
_NEEDED: dict[Format, dict[str, str]] = {
    "onnx": {"onnxscript": "onnx", "onnxruntime": "onnxruntime"},
    "openvino": {"onnxscript": "onnx", "openvino": "openvino"},
    "torch-export": {},
    "tensorrt": {"onnxscript": "onnx"},
}

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
    to: Format,
    weights: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    output: str | Path | None = None,
    batch: int | None = None,
    input: Input = "float32",  # noqa: A002 - the option's name
    size: int | None = None,
) -> Exported:
    """Write a model as a file for another runtime, which keeps its name only if it computes the same.

    The model is named as for `torchclas.Classifier`. By default the file goes into the current folder and is called
    after the model, or after the file of weights that it is made of (the best weights of a run: after the run's
    folder). `batch` fixes the number of images at once. With `input="uint8"` the file takes the pixels of images of any
    size, [N, H, W, 3], and does the model's preprocessing itself. `size` is the image size in pixels, where it is not
    to be the model's own.

    Raises:
        DivergenceError: run by its runtime, the file does not compute what the network does; it is not kept.
        CheckpointError, DownloadError: the weights cannot be had.
        ImageSizeError: the network cannot take images of `size` pixels.
        MissingDependencyError: a package or program that the format takes is not installed.
        OutputError: the file cannot be written.
    """
    start = time.perf_counter()
    if to not in SUFFIXES:
        raise UnknownNameError("format", to, SUFFIXES, f"choose from {', '.join(SUFFIXES)}")
    spec = find_model(model, weights=weights, labels=labels)
    if spec.graph is not None:
        raise CheckpointError(f"{spec.path} was exported already: export from the model's name or its checkpoint")
    _require(to)
    if input == "uint8" and spec.in_channels != 3:
        raise Error(f"{spec.name} takes {spec.in_channels} channels: only RGB images can be prepared in the graph")
    if input == "uint8" and to == "tensorrt":
        raise Error("TensorRT engines are tuned for images of one size: leave `--input uint8` out")
    path = Path(output or f"{spec.file_name}{SUFFIXES[to]}")
    if path.suffix != SUFFIXES[to]:
        raise OutputError(f"{path}: the name of {to} files must end in {SUFFIXES[to]}")
    network = _sized(spec, size)
    if size is not None:
        spec = replace(spec, preset=spec.preset.at(size))
    metadata = describe(spec, input)
    pixels = input == "uint8"
    cases = [
        (images, logits(network, spec.preset, images))
        for images in gate.inputs(spec.preset, channels=spec.in_channels, batch=batch, pixels=pixels)
    ]
    fold_batch_norms(network.fuse())  # the exporter would as well, in twice the time
    with _named_when_done(path) as temporary:
        write(network, temporary, metadata, to=to, batch=batch, pixels=pixels)
        exact = not pixels or (spec.preset.backend, spec.preset.interpolation) == ("opencv", "bilinear")
        try:
            error = gate.check(
                open_file(temporary, to, batch),
                traceable(network, metadata, pixels=pixels),
                cases,
                tolerance=gate.TOLERANCE if exact else TOLERANCE_FILTERED,
            )
        except DivergenceError as divergence:
            raise DivergenceError(f"{path} was not written: {divergence}") from None
        bytes_written = sum(file.stat().st_size for file in temporary.parent.iterdir())
    return Exported(path, bytes_written, error, time.perf_counter() - start)


def write(
    network: Network, path: Path, metadata: Metadata, *, to: Format, batch: int | None = None, pixels: bool = False
) -> None:
    """Write a fused network in evaluation mode, unchecked; OpenVINO's and ONNX's files may get a second one beside."""
    size = metadata.preset.crop_size
    if to == "torch-export":
        write_program(network, path, metadata, size=size, batch=batch, pixels=pixels)
        return
    if to == "onnx":
        write_onnx(network, path, metadata, size=size, batch=batch, pixels=pixels)
        return
    with _folder_beside(path) as folder:
        graph = folder / "network.onnx"
        write_onnx(network, graph, metadata, size=size, batch=batch, pixels=pixels)
        if to == "openvino":
            write_openvino(graph, path, metadata)
        else:
            write_tensorrt(graph, path, shape=(metadata.in_channels, size, size), batch=batch)


def open_file(path: Path, format: Format, batch: int | None = None) -> ExportedFile:  # noqa: A002 - the option's name
    """The written file, ready to run; `batch` as it was written with."""
    match format:
        case "onnx":
            return OnnxFile(path)
        case "openvino":
            return OpenVinoFile(path)
        case "torch-export":
            return ProgramFile(path)
        case "tensorrt":
            return TensorRtFile(path, batch)


def describe(spec: ModelSpec, input: Input = "float32") -> Metadata:  # noqa: A002 - the option's name
    """What an exported file says of itself: what its weights' file says, and what input it takes."""
    path = published_file(catalog.find(spec.name)) if spec.path is None else spec.path
    return spec.metadata(**{**origin_of(path), "input": input})


@torch.inference_mode()
def logits(network: Network, preset: Preset, images: Array) -> NDArray[np.float32]:
    """What the network says of float32 images, or of uint8 pixels prepared as `predict` does it."""
    if images.dtype == np.uint8:
        images = np.stack([Preprocess(preset).array(pixels) for pixels in images])
    found = network(torch.from_numpy(images)).numpy()
    if not np.isfinite(found).all():
        raise Error("the network's own logits are not finite, so no file can be compared with it: check its weights")
    return found


def _require(to: Format) -> None:
    """Say what is missing before the minutes that all else takes."""
    if to == "tensorrt":
        trtexec()
    for package, extra in _NEEDED[to].items():
        if find_spec(package) is None:
            raise MissingDependencyError(package, f"'torchclas[{extra}]'")


def _sized(spec: ModelSpec, size: int | None) -> Network:
    network = load_model(spec)
    if size is not None:
        network.set_input_size(size)
    return network


@contextmanager
def _named_when_done(path: Path) -> Generator[Path, None, None]:
    """Yield a place for `path`, and for files beside it, in a folder of its own; on success all get their names."""
    try:
        with _folder_beside(path) as folder:
            yield folder / path.name
            # The weights first: what has a name is complete.
            for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
                file.replace(path.with_name(file.name))
    except Error:
        raise
    except Exception as error:
        if disk_is_full(error, path.parent):
            raise OutputError(f"{path}: the disk is full: free some space or choose another place") from error
        raise


@contextmanager
def _folder_beside(path: Path) -> Generator[Path, None, None]:
    folder = path.parent / f".{path.stem[:64]}.{uuid.uuid4().hex[:12]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be written: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
