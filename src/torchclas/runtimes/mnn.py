"""MNN: one file, `NAME.mnn`, with layers and weights."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import CheckpointError, Error, MissingDependencyError
from torchclas.runtimes.muted import STDOUT, muted
from torchclas.vocabulary import INPUT


class MnnFile:
    """A network in MNN's format, run on the CPU; it computes in float32, whatever its weights are stored in."""

    def __init__(self, path: Path, *, batch: int | None = None, threads: int | None = None) -> None:
        """`batch` is how many images the file takes at once, None for any number.

        Raises MissingDependencyError, or CheckpointError: MNN cannot read the file.
        """
        self._mnn = _package()
        self.batch = batch
        settings = {"backend": "CPU", "precision": "high", "numThread": _threads.usable(threads or os.cpu_count() or 1)}
        try:
            with muted(STDOUT):
                self._network = self._mnn.Interpreter(str(path))
                self._session = self._network.createSession(settings)
        except Exception as error:  # it has no class of its own
            raise CheckpointError(f"{path}: MNN cannot read it") from error
        self.inputs = list(self._network.getSessionInputAll(self._session))
        self.outputs = list(self._network.getSessionOutputAll(self._session))
        self._shape: tuple[int, ...] | None = None  # that the session is ready for

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Images [N, channels, H, W] → what the file gives, by name."""
        network, session = self._network, self._session
        taken = network.getSessionInput(session, INPUT)
        if images.shape != self._shape:
            network.resizeTensor(taken, images.shape)
            network.resizeSession(session)
            self._shape = images.shape
        taken.copyFrom(self._tensor(np.ascontiguousarray(images)))
        if code := network.runSession(session):
            raise Error(f"MNN failed on images of shape {list(images.shape)} (code {code})")
        values: dict[str, NDArray[np.float32]] = {}
        for name in self.outputs:
            given = network.getSessionOutput(session, name)
            tensor = self._tensor(np.zeros(given.getShape(), np.float32))
            given.copyToHostTensor(tensor)
            values[name] = np.array(tensor.getNumpyData(), np.float32).reshape(len(images), -1)
        return values

    def _tensor(self, values: NDArray[np.float32]) -> Any:
        mnn = self._mnn
        return mnn.Tensor(values.shape, mnn.Halide_Type_Float, values, mnn.Tensor_DimensionType_Caffe)

    def layers(self, images: NDArray[Any]) -> Iterable[tuple[str, NDArray[Any]]]:
        """None: the values between MNN's layers are not kept."""
        return ()


class _Threads:
    """How many threads MNN may use: it has one pool of them for all files, which a fork leaves behind."""

    def __init__(self) -> None:
        self.process: int | None = None  # that has them

    def usable(self, wanted: int) -> int:
        """All that are `wanted`, or one where MNN would wait for threads that another process has."""
        if wanted > 1 and self.process is None:
            self.process = os.getpid()
        return wanted if self.process == os.getpid() else 1


_threads = _Threads()


def _package() -> Any:
    if "MNN" not in sys.modules:
        with muted(STDOUT):  # it says what the processor has, where rows are expected
            try:
                import MNN  # noqa: F401  # pyright: ignore[reportUnusedImport]
            except ImportError:
                raise MissingDependencyError("MNN", "'torchclas[mobile]'") from None
    return sys.modules["MNN"]
