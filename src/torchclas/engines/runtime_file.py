"""Files of the runtimes of phones, run by those: to try here what a phone will answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchclas.engines.engine import Engine, in_parts, joined
from torchclas.engines.forks import Reopening, with_openmp
from torchclas.engines.graph import Signature
from torchclas.engines.machine import usable_threads
from torchclas.errors import Error
from torchclas.runtimes.executorch import ExecutorchFile
from torchclas.runtimes.mnn import MnnFile
from torchclas.runtimes.ncnn import NcnnFile
from torchclas.vocabulary import EngineName, Output, Precision
from torchclas.weights.exported import batch_of, check_parts


class _File(Protocol):
    """A file as its runtime runs it: images [N, channels, H, W] → each output by name.

    `batch` is how many images it takes at once, None for any number.
    """

    batch: int | None
    outputs: list[str]

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]: ...


class RuntimeFileEngine(Reopening, Engine):
    """A file that one runtime alone can run; `precision` is the one that it was written in."""

    def __init__(
        self,
        path: Path,
        name: EngineName,
        *,
        precision: Precision,
        threads: int | None,
        outputs: tuple[Output, ...],
        signature: Signature,
    ) -> None:
        self.path = path
        self.name: EngineName = name
        self.precision: Precision = precision
        self.threads = threads or usable_threads()
        self.outputs = outputs
        self.signature = signature
        super().__init__()

    def _open(self) -> None:
        check_parts(self.path)
        # Not all of them can be asked by several threads. A new one: a fork may have left the other one locked.
        self._running = threading.Lock()
        self.file = with_openmp(lambda: _OPENERS[self.name](self))

    def run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        """Images [N, channels, H, W] → each of `outputs`."""
        self._ready()
        with self._running:
            try:
                parts = with_openmp(lambda: [self.file(part) for part in in_parts(images, self.file.batch)])
                values: dict[Output, NDArray[np.float32]] = {
                    name: joined([part[name] for part in parts], len(images)) for name in self.outputs
                }
            except Error:
                raise
            except Exception as error:  # what runtimes raise has no common base
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise Error(f"{self.signature.model}: {self.name} failed on {len(images)} images ({reason})") from error
        return self.signature.checked(values, len(images))

    def close(self) -> None:
        """Give its memory back."""
        del self.file


_OPENERS: dict[EngineName, Callable[[RuntimeFileEngine], _File]] = {
    "ncnn": lambda engine: NcnnFile(engine.path, half=engine.precision == "fp16", threads=engine.threads),
    "mnn": lambda engine: MnnFile(engine.path, batch=batch_of(engine.path), threads=engine.threads),
    "executorch": lambda engine: ExecutorchFile(engine.path, engine.signature.outputs, threads=engine.threads),
}
