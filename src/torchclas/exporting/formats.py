"""The formats of exported files, a row for each: what it takes, how it is written, how it is opened to be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from torchclas.errors import Error, MissingDependencyError
from torchclas.exporting.files import TIMM_FILES, folder_beside
from torchclas.exporting.gate import ExportedFile
from torchclas.exporting.onnx import OnnxFile, write_onnx
from torchclas.exporting.openvino import OpenVinoFile, write_openvino
from torchclas.exporting.program import ProgramFile, write_program
from torchclas.exporting.tensorrt import TensorRtFile, trtexec, write_tensorrt
from torchclas.exporting.timm import TimmFolder, write_timm
from torchclas.exporting.web import MODEL, SITE_FILES, add_runtime, write_web
from torchclas.exporting.web_runtime import Runtime
from torchclas.layers.network import Network
from torchclas.vocabulary import ExportFormat
from torchclas.weights.metadata import Metadata

# What not every format does: images of any size as pixels, a fixed number of images, the vector before the classifier.
Wish = Literal["pixels", "batch", "embedding"]


class Write(Protocol):
    """Writes a network in evaluation mode, unchecked; it is fused where the format folds batch norms.

    Some formats put a second file beside `path`.
    """

    def __call__(self, network: Network, path: Path, metadata: Metadata, *, batch: int | None, pixels: bool) -> None:
        """`batch` fixes the number of images; with `pixels` the file prepares images of any size itself."""
        ...


@dataclass(frozen=True)
class Format:
    """A kind of file.

    `packages` are needed to write and check it, each with the extra that brings it. `open` takes the batch that the
    file was written with. `folds` says that batch norms are folded into convolutions before it is written. A format
    without a suffix is a folder of some of `files`. `add_runtime` puts what runs the file beside it. `refused` says why
    it cannot do what other formats can.
    """

    suffix: str
    write: Write
    open: Callable[[Path, int | None], ExportedFile]
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    find_program: Callable[[], object] | None = None
    folds: bool = True
    files: frozenset[str] = frozenset()
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


def _write_openvino(network: Network, path: Path, metadata: Metadata, *, batch: int | None, pixels: bool) -> None:
    with folder_beside(path) as folder:
        graph = folder / "network.onnx"
        write_onnx(network, graph, metadata, batch=batch, pixels=pixels)
        write_openvino(graph, path, metadata)


def _write_tensorrt(network: Network, path: Path, metadata: Metadata, *, batch: int | None, pixels: bool) -> None:
    with folder_beside(path) as folder:
        graph = folder / "network.onnx"
        write_onnx(network, graph, metadata, batch=batch, pixels=pixels)
        write_tensorrt(graph, path, shape=(metadata.in_channels, *metadata.preset.size), batch=batch)


FORMATS: dict[ExportFormat, Format] = {
    "onnx": Format(
        ".onnx",
        write_onnx,
        lambda path, _: OnnxFile(path),
        {"onnxscript": "onnx", "onnxruntime": "onnxruntime"},
    ),
    "openvino": Format(
        ".xml",
        _write_openvino,
        lambda path, _: OpenVinoFile(path),
        {"onnxscript": "onnx", "openvino": "openvino"},
    ),
    "torch-export": Format(".pt2", write_program, lambda path, _: ProgramFile(path)),
    "tensorrt": Format(
        ".engine",
        _write_tensorrt,
        TensorRtFile,
        {"onnxscript": "onnx"},
        find_program=trtexec,
        refused={"pixels": "TensorRT engines are tuned for images of one size: leave `--input uint8` out"},
    ),
    "timm": Format(
        "",
        write_timm,
        lambda path, _: TimmFolder(path),
        {"timm": "timm"},
        folds=False,
        files=TIMM_FILES,
        refused={
            "pixels": "timm prepares images itself, as the folder's config.json says: leave `--input uint8` out",
            "batch": "a network in timm takes any number of images: leave `--batch` out",
            "embedding": "a network in timm gives its embedding when asked (`num_classes=0`): leave `--outputs` out",
        },
    ),
    "web": Format(
        "",
        write_web,
        lambda path, _: OnnxFile(path / MODEL),
        {"onnxscript": "onnx", "onnxruntime": "onnxruntime"},
        files=SITE_FILES,
        add_runtime=add_runtime,
        refused={
            "pixels": "the page of a site prepares pictures itself: leave `--input uint8` out",
            "batch": "the page of a site takes one picture after the other: leave `--batch` out",
            "embedding": "the page of a site shows classes alone: leave `--outputs` out",
        },
    ),
}
