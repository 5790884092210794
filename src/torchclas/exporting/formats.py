"""The formats of exported files, a row for each: what it takes, how it is written, how it is opened to be checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from torchclas.errors import Error, MissingDependencyError
from torchclas.exporting.files import folder_beside
from torchclas.exporting.gate import ExportedFile
from torchclas.exporting.onnx import OnnxFile, write_onnx
from torchclas.exporting.openvino import OpenVinoFile, write_openvino
from torchclas.exporting.program import ProgramFile, write_program
from torchclas.exporting.tensorrt import TensorRtFile, trtexec, write_tensorrt
from torchclas.layers.network import Network
from torchclas.vocabulary import ExportFormat
from torchclas.weights.metadata import Metadata


class Write(Protocol):
    """Writes a fused network in evaluation mode, unchecked; some formats put a second file beside `path`."""

    def __call__(self, network: Network, path: Path, metadata: Metadata, *, batch: int | None, pixels: bool) -> None:
        """`batch` fixes the number of images; with `pixels` the file prepares images of any size itself."""
        ...


@dataclass(frozen=True)
class Format:
    """A kind of file.

    `packages` are needed to write and check it, each with the extra that brings it. `open` takes the batch that the
    file was written with. `no_pixels` says why it cannot prepare images itself, where it cannot.
    """

    suffix: str
    write: Write
    open: Callable[[Path, int | None], ExportedFile]
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    find_program: Callable[[], object] | None = None
    no_pixels: str = ""

    def require(self, *, pixels: bool) -> None:
        """Say what is missing before the minutes that all else takes.

        Raises:
            MissingDependencyError: a package or program is not installed.
            Error: the format cannot prepare images itself.
        """
        if self.find_program is not None:
            self.find_program()
        for package, extra in self.packages.items():
            if find_spec(package) is None:
                raise MissingDependencyError(package, f"'torchclas[{extra}]'")
        if pixels and self.no_pixels:
            raise Error(self.no_pixels)


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
        no_pixels="TensorRT engines are tuned for images of one size: leave `--input uint8` out",
    ),
}
