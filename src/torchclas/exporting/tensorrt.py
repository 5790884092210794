"""TensorRT engines, built by its own `trtexec` where that is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import Error, MissingDependencyError
from torchclas.vocabulary import INPUT

MAX_BATCH = 32  # of an engine whose batch is free; it is tuned for 8


def write_tensorrt(onnx_file: Path, path: Path, *, shape: tuple[int, int, int], batch: int | None) -> None:
    """Build an engine for this machine's GPU from an ONNX file; `shape` is an image's, [channels, height, width].

    Raises:
        MissingDependencyError: there is no trtexec.
        Error: it failed; the message has its last words.
    """
    command = [trtexec(), f"--onnx={onnx_file}", f"--saveEngine={path}", "--noTF32", "--skipInference"]
    if batch is None:
        sizes = {"min": 1, "opt": 8, "max": MAX_BATCH}
        command += [f"--{name}Shapes={INPUT}:{_dims(count, shape)}" for name, count in sizes.items()]
    _run(command)


class TensorRtFile:
    """An engine, run by trtexec; `batch` as it was built for."""

    def __init__(self, path: Path, batch: int | None) -> None:
        self.path = path
        self.batch = batch

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """What the engine gives, by name."""
        with TemporaryDirectory() as folder:
            source, result = Path(folder, "images.bin"), Path(folder, "logits.json")
            images.tofile(source)
            command = [trtexec(), f"--loadEngine={self.path}", f"--loadInputs={INPUT}:{source}"]
            if self.batch is None:  # trtexec takes shapes for free ones only
                command.append(f"--shapes={INPUT}:{_dims(len(images), images.shape[1:])}")
            _run([*command, f"--exportOutput={result}", "--iterations=1", "--duration=0", "--warmUp=0"])
            outputs = {output["name"]: output["values"] for output in json.loads(result.read_text())}
        return {name: np.array(values, np.float32).reshape(len(images), -1) for name, values in outputs.items()}

    def layers(self, images: NDArray[Any]) -> Iterable[tuple[str, NDArray[Any]]]:
        """None: an engine's layers are no longer the network's."""
        return ()


def trtexec() -> str:
    """Where TensorRT's command is; raises `MissingDependencyError`."""
    found = shutil.which("trtexec") or shutil.which("trtexec", path="/usr/src/tensorrt/bin")
    if found is None:
        raise MissingTensorRtError
    return found


class MissingTensorRtError(MissingDependencyError):
    """TensorRT cannot be installed by pip alone: its builder needs the GPU that the engine is for."""

    def __init__(self) -> None:
        Error.__init__(
            self,
            "trtexec is missing, which builds TensorRT engines: it needs an NVIDIA GPU with its driver and comes with "
            "TensorRT (Debian packages of NVIDIA's repository: libnvinfer-bin; container: nvcr.io/nvidia/tensorrt). "
            "Export with `--to onnx` here and run `trtexec --onnx=FILE --saveEngine=FILE` on the machine with the GPU",
        )


def _dims(count: int, shape: Iterable[int]) -> str:
    return "x".join(map(str, (count, *shape)))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Error(f"trtexec failed: {words[-1] if words else f'exit code {done.returncode}'}")
