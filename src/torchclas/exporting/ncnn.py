"""Networks for ncnn, converted from ONNX by its own pnnx."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from torchclas.errors import Error
from torchclas.runtimes.ncnn import weights_beside
from torchclas.vocabulary import INPUT, ExportPrecision


def write_ncnn(onnx_file: Path, path: Path, outputs: Sequence[str], *, precision: ExportPrecision) -> None:
    """Convert a file for one image at a time that `torchclas.exporting.onnx.write_onnx` wrote.

    What is beside `onnx_file` afterwards is pnnx's own.

    Raises:
        Error: pnnx failed, or ncnn has no layer for some operation.
    """
    import pnnx

    command = [
        pnnx.EXEC_PATH, str(onnx_file.absolute()), f"fp16={int(precision == 'fp16')}",
        f"ncnnparam={path.absolute()}", f"ncnnbin={weights_beside(path).absolute()}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=onnx_file.parent, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not path.is_file():
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Error(f"pnnx failed: {words[-1] if words else f'exit code {done.returncode}'}")
    layers = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    if strange := sorted({layer[0] for layer in layers[2:] if "." in layer[0]}):
        raise Error(f"ncnn has no layer for {', '.join(strange)}: choose another format")
    path.write_text("".join(f"{line}\n" for line in _renamed(layers, outputs)), encoding="utf-8")


def _renamed(layers: Sequence[Sequence[str]], outputs: Sequence[str]) -> list[str]:
    """The lines of a file whose input and outputs are called as ours are, and not in0, out0, out1."""
    names = {"in0": INPUT, **{f"out{number}": name for number, name in enumerate(outputs)}}
    lines = [" ".join(layer) for layer in layers[:2]]  # a number that tells the format, and how many layers there are
    for kind, name, taken, given, *rest in layers[2:]:
        count = int(taken) + int(given)
        values = [names.get(value, value) for value in rest[:count]]
        lines.append(" ".join((f"{kind:<24}", f"{name:<24}", taken, given, *values, *rest[count:])))
    return lines
