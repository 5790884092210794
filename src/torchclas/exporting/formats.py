"""The formats of exported files, a row for each: what it takes, how it is written, how it is opened to be checked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from torchclas.errors import Error, MissingDependencyError
from torchclas.exporting.executorch import write_executorch
from torchclas.exporting.files import TIMM_FILES, folder_beside
from torchclas.exporting.gate import ExportedFile, inputs
from torchclas.exporting.half import store_as_half
from torchclas.exporting.mnn import write_mnn
from torchclas.exporting.ncnn import write_ncnn
from torchclas.exporting.onnx import OnnxFile, write_onnx
from torchclas.exporting.openvino import OpenVinoFile, write_openvino
from torchclas.exporting.opset import NEWEST
from torchclas.exporting.program import ProgramFile, write_program
from torchclas.exporting.sidecar import write_sidecar
from torchclas.exporting.tensorrt import TensorRtFile, trtexec, write_tensorrt
from torchclas.exporting.timm import TimmFolder, write_timm
from torchclas.exporting.web import MODEL, SITE_FILES, add_runtime, write_web
from torchclas.exporting.web_runtime import Runtime
from torchclas.layers.network import Network
from torchclas.runtimes.executorch import ExecutorchFile
from torchclas.runtimes.mnn import MnnFile
from torchclas.runtimes.ncnn import NcnnFile
from torchclas.vocabulary import ExportFormat, ExportPrecision
from torchclas.weights.metadata import Metadata, read_metadata

# What not every format does: images of any size as pixels, a fixed number of images, several of them at once, the
# vector before the classifier, half precision, an older set of ONNX's operators.
Wish = Literal["pixels", "batch", "batches", "embedding", "fp16", "opset"]


@dataclass(frozen=True)
class Options:
    """How a file is written.

    `batch` fixes the number of images; with `pixels` the file prepares images of any size itself. `opset` is the
    version of ONNX's operators, where it is not to be the newest.
    """

    batch: int | None = None
    pixels: bool = False
    precision: ExportPrecision = "fp32"
    opset: int | None = None


class Write(Protocol):
    """Writes a network in evaluation mode, unchecked; it is fused where the format folds batch norms.

    Some formats put a second file beside `path`.
    """

    def __call__(self, network: Network, path: Path, metadata: Metadata, options: Options) -> None:
        """Write to `path`."""
        ...


@dataclass(frozen=True)
class Format:
    """A kind of file.

    `packages` are needed to write and check it, each with the extra that brings it. `open` takes what the file
    was written with. `folds` says that batch norms are folded into convolutions before it is written. A format
    without a suffix is a folder of some of `files`. `add_runtime` puts what runs the file beside it. `refused` says why
    it cannot do what other formats can. A format that takes a fixed number of images alone has a `default_batch`.
    `has_opset` says that it may be written in older sets of ONNX's operators.
    """

    suffix: str
    write: Write
    open: Callable[[Path, Options], ExportedFile]
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    find_program: Callable[[], object] | None = None
    folds: bool = True
    files: frozenset[str] = frozenset()
    default_batch: int | None = None
    has_opset: bool = False
    add_runtime: Callable[[Path, Runtime], None] | None = None
    refused: Mapping[Wish, str] = field(default_factory=dict["Wish", str])

    def require(self, wishes: Iterable[Wish]) -> None:
        """Say what is missing before the minutes that all else takes.

        Raises:
            MissingDependencyError: a package or program is not installed.
            Error: the format cannot do what is wished.
        """
        if self.find_program is not None:
            self.find_program()
        for package, extra in self.packages.items():
            if find_spec(package) is None:
                raise MissingDependencyError(package, f"'torchclas[{extra}]'")
        for wish in wishes:
            if wish in self.refused:
                raise Error(self.refused[wish])
            if wish == "opset" and not self.has_opset:
                raise Error("only ONNX files have a version of operators: leave `--opset` out")


def _write_onnx(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    opset = options.opset or NEWEST
    write_onnx(network, path, metadata, batch=options.batch, pixels=options.pixels, opset=opset)
    if options.precision == "fp16":
        preset, channels = metadata.preset, metadata.in_channels
        store_as_half(path, inputs(preset, channels=channels, batch=options.batch, pixels=options.pixels))


def _write_openvino(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    with _as_onnx(network, path, metadata, options) as graph:
        write_openvino(graph, path, metadata)


def _write_tensorrt(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    with _as_onnx(network, path, metadata, options) as graph:
        write_tensorrt(graph, path, shape=(metadata.in_channels, *metadata.preset.size), batch=options.batch)


def _write_ncnn(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    with _as_onnx(network, path, metadata, replace(options, batch=1)) as graph:
        write_ncnn(graph, path, metadata.outputs, precision=options.precision)
    write_sidecar(path, metadata, runtime="ncnn", precision=options.precision, batch=1)


def _write_mnn(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    with _as_onnx(network, path, metadata, options) as graph:
        write_mnn(graph, path, precision=options.precision)
    write_sidecar(path, metadata, runtime="mnn", precision=options.precision, batch=options.batch)


def _write_executorch(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    batch = options.batch or 1
    write_executorch(network, path, metadata, batch=batch)
    write_sidecar(path, metadata, runtime="executorch", precision=options.precision, batch=batch)


@contextmanager
def _as_onnx(network: Network, path: Path, metadata: Metadata, options: Options) -> Generator[Path, None, None]:
    """The network as an ONNX file, on the disk that `path` will be on."""
    with folder_beside(path) as folder:
        graph = folder / "network.onnx"
        write_onnx(network, graph, metadata, batch=options.batch, pixels=options.pixels)
        yield graph


def _write_program(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    write_program(network, path, metadata, batch=options.batch, pixels=options.pixels)


def _open_executorch(path: Path) -> ExecutorchFile:
    metadata = read_metadata(path)
    assert metadata is not None  # it was written beside it
    return ExecutorchFile(path, metadata.outputs)


def _write_timm(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    write_timm(network, path, metadata)


def _write_web(network: Network, path: Path, metadata: Metadata, options: Options) -> None:
    write_web(network, path, metadata)


_FP32_ONLY = "this format is written in float32 alone: leave `--precision` out"

FORMATS: dict[ExportFormat, Format] = {
    "onnx": Format(
        ".onnx",
        _write_onnx,
        lambda path, _: OnnxFile(path),
        {"onnxscript": "onnx", "onnxruntime": "onnxruntime"},
        has_opset=True,
    ),
    "openvino": Format(
        ".xml",
        _write_openvino,
        lambda path, _: OpenVinoFile(path),
        {"onnxscript": "onnx", "openvino": "openvino"},
        refused={"fp16": _FP32_ONLY},
    ),
    "torch-export": Format(".pt2", _write_program, lambda path, _: ProgramFile(path), refused={"fp16": _FP32_ONLY}),
    "tensorrt": Format(
        ".engine",
        _write_tensorrt,
        lambda path, options: TensorRtFile(path, options.batch),
        {"onnxscript": "onnx"},
        find_program=trtexec,
        refused={
            "pixels": "TensorRT engines are tuned for images of one size: leave `--input uint8` out",
            "fp16": _FP32_ONLY,
        },
    ),
    "timm": Format(
        "",
        _write_timm,
        lambda path, _: TimmFolder(path),
        {"timm": "timm"},
        folds=False,
        files=TIMM_FILES,
        refused={
            "pixels": "timm prepares images itself, as the folder's config.json says: leave `--input uint8` out",
            "batch": "a network in timm takes any number of images: leave `--batch` out",
            "embedding": "a network in timm gives its embedding when asked (`num_classes=0`): leave `--outputs` out",
            "fp16": _FP32_ONLY,
        },
    ),
    "ncnn": Format(
        ".ncnn.param",
        _write_ncnn,
        lambda path, options: NcnnFile(path, half=options.precision == "fp16"),
        {"onnxscript": "onnx", "pnnx": "mobile", "ncnn": "mobile"},
        refused={
            "pixels": "ncnn takes images of one size: leave `--input uint8` out",
            "batches": "ncnn takes images one at a time: leave `--batch` out",
        },
    ),
    "mnn": Format(
        ".mnn",
        _write_mnn,
        lambda path, options: MnnFile(path, batch=options.batch),
        {"onnxscript": "onnx", "MNN": "mobile"},
        refused={"pixels": "MNN takes images of one size: leave `--input uint8` out"},
    ),
    "executorch": Format(
        ".pte",
        _write_executorch,
        lambda path, _: _open_executorch(path),
        {"executorch": "executorch"},
        default_batch=1,
        refused={"pixels": "ExecuTorch takes images of one size: leave `--input uint8` out", "fp16": _FP32_ONLY},
    ),
    "web": Format(
        "",
        _write_web,
        lambda path, _: OnnxFile(path / MODEL),
        {"onnxscript": "onnx", "onnxruntime": "onnxruntime"},
        files=SITE_FILES,
        add_runtime=add_runtime,
        refused={
            "pixels": "the page of a site prepares pictures itself: leave `--input uint8` out",
            "batch": "the page of a site takes one picture after the other: leave `--batch` out",
            "embedding": "the page of a site shows classes alone: leave `--outputs` out",
            "fp16": _FP32_ONLY,
        },
    ),
}
