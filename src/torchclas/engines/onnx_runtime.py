"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.engines.engine import Engine, in_parts, joined
from torchclas.engines.forks import Reopening
from torchclas.engines.graph import Port, Signature
from torchclas.engines.machine import usable_threads
from torchclas.errors import CheckpointError, Error, MissingDependencyError
from torchclas.onnxruntime_guest import open_session
from torchclas.vocabulary import EngineName, Output, Precision

# Threads that wait by spinning make small networks up to 1.7 times as fast. Between calls they leave the cores to
# whoever decodes the next images.
_SETTINGS = {"session.force_spinning_stop": "1"}

# Those that graphs of ours have, as NumPy calls them
_DTYPES: dict[str, str] = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeEngine(Reopening, Engine):
    """An ONNX file run by ONNX Runtime.

    `signature` is what the file has to be; `before_reading` is called before it is read.
    """

    name: EngineName = "onnxruntime"

    def __init__(
        self,
        path: Path,
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
        outputs: tuple[Output, ...] = ("logits",),
        signature: Signature | None = None,
        before_reading: Callable[[], object] | None = None,
    ) -> None:
        # Absolute: a process that was forked may have changed its folder when it opens it again.
        self.path = path.absolute()
        self.precision: Precision = precision
        self.outputs = outputs
        self.threads = threads or usable_threads()
        self.signature, self.before_reading = signature, before_reading
        super().__init__()

    def _open(self) -> None:
        if self.before_reading is not None:
            self.before_reading()
        try:
            self.session = open_session(self.path, _SETTINGS, threads=self.threads)
        except MissingDependencyError:
            raise
        except Exception as error:  # its exceptions have no common base
            raise CheckpointError(f"{self.path}: ONNX Runtime cannot run it ({_first_line(error)})") from error
        inputs, outputs = _ports(self.session.get_inputs()), _ports(self.session.get_outputs())
        if self.signature is not None:
            self.signature.check(self.path, inputs, outputs)
        self.input, shape = inputs[0].name, inputs[0].shape
        self.batch = shape[0] if shape else None

    def run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        """Images [N, channels, H, W] → each of `outputs`."""
        self._ready()
        try:
            parts = [self.session.run(self.outputs, {self.input: part}) for part in in_parts(images, self.batch)]
            values: dict[Output, NDArray[np.float32]] = {
                name: joined([part[i] for part in parts], len(images)) for i, name in enumerate(self.outputs)
            }
        except Exception as error:
            model = self.signature.model if self.signature else self.path
            raise Error(f"{model}: ONNX Runtime failed on {len(images)} images ({_first_line(error)})") from error
        return values if self.signature is None else self.signature.checked(values, len(images))

    def close(self) -> None:
        """Give its memory back."""
        del self.session


def _ports(values: Any) -> list[Port]:
    # An axis without a fixed length has a name; ONNX Runtime does not tell a shape of unknown rank from a scalar's.
    return [
        Port(
            value.name,
            _DTYPES.get(str(value.type), str(value.type)),
            tuple(axis if isinstance(axis, int) else None for axis in value.shape) if value.shape else None,
        )
        for value in values
    ]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
