"""ExecuTorch: one file, `NAME.pte`, with a network for a fixed number of images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import CheckpointError, MissingDependencyError
from torchclas.runtimes.muted import STDERR, muted


class ExecutorchFile:
    """A program of ExecuTorch, run on the CPU."""

    def __init__(self, path: Path, outputs: Sequence[str], *, threads: int | None = None) -> None:
        """`outputs` are the names of what the program gives, which it does not know.

        Raises MissingDependencyError, or CheckpointError: ExecuTorch cannot read the file.
        """
        import torch

        from torchclas.compat import executorch_bindings

        try:
            bindings = executorch_bindings()
        except ImportError:
            raise MissingDependencyError("executorch", "'torchclas[executorch]'") from None
        self._tensor = torch.from_numpy
        self.outputs = list(outputs)
        try:
            with muted(STDERR):  # of the processor, and of what is wrong with a file
                _threads.start(bindings, threads or os.cpu_count() or 1)
                self._module = bindings._load_for_executorch(str(path))
                taken = self._module.method_meta("forward").input_tensor_meta(0)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: ExecuTorch cannot read it ({error})") from error
        self.batch: int | None = taken.sizes()[0]

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Images [batch, channels, H, W] → what the file gives, by name."""
        values = self._module.forward([self._tensor(np.ascontiguousarray(images))])
        # The next run writes to the same memory.
        return {name: value.numpy().copy() for name, value in zip(self.outputs, values, strict=True)}

    def layers(self, images: NDArray[Any]) -> Iterable[tuple[str, NDArray[Any]]]:
        """None: the values between its operations are not kept."""
        return ()


class _Threads:
    """ExecuTorch has one pool of threads that may not change while a program runs: a process's first file decides."""

    def __init__(self) -> None:
        self.process: int | None = None  # that has them; a fork leaves them behind

    def start(self, bindings: Any, count: int) -> None:
        if self.process != os.getpid():
            bindings._unsafe_reset_threadpool(count)
            self.process = os.getpid()


_threads = _Threads()
