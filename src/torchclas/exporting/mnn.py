"""Networks for MNN, converted from ONNX by its own converter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from torchclas.compat import MNN_CONVERTER
from torchclas.errors import Error
from torchclas.vocabulary import ExportPrecision


def write_mnn(onnx_file: Path, path: Path, *, precision: ExportPrecision) -> None:
    """Convert a file that `torchclas.exporting.onnx.write_onnx` wrote; in `fp16` that file's weights are rounded, too.

    Raises:
        Error: MNN's converter failed, or knows no layer for some operation.
    """
    half = precision == "fp16"
    if half:
        _round_weights(onnx_file)
    files = ["--modelFile", str(onnx_file.absolute()), "--MNNModel", str(path.absolute())]
    command = [sys.executable, "-c", MNN_CONVERTER, "-f", "ONNX", *files, "--bizCode", "torchclas"]
    # A process of its own: the converter prints, and ends its process where it meets what it does not know.
    done = subprocess.run(
        [*command, "--fp16"] if half else command,
        cwd=onnx_file.parent, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode or not path.is_file():
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Error(f"MNN's converter failed: {words[-1] if words else f'exit code {done.returncode}'}")


def _round_weights(onnx_file: Path) -> None:
    """Round weights to the nearest numbers of half precision; MNN would cut what is beyond, and lose twice as much."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(onnx_file))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            with np.errstate(over="ignore"):  # what is too large shows when the file is run
                values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    beyond = onnx_file.with_name(f"{onnx_file.name}.data").is_file()
    onnx.save(model, str(onnx_file), save_as_external_data=beyond, location=f"{onnx_file.name}.data")
