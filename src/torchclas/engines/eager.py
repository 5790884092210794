"""PyTorch itself: convolutions with their batch norms folded in, in channels_last; `torch.compile` on top."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchclas.engines.engine import Engine
from torchclas.engines.forks import with_openmp
from torchclas.errors import Error
from torchclas.layers.fold import fold_batch_norms
from torchclas.layers.network import Network
from torchclas.vocabulary import EngineName, Output, Precision


class TorchEngine(Engine):
    """A network run by PyTorch on any of its devices. `threads` holds for the whole process, as torch has it."""

    name: EngineName = "torch"

    def __init__(
        self,
        network: Network,
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
        device: str = "auto",
        compiled: bool = False,
        outputs: tuple[Output, ...] = ("logits",),
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.pid = os.getpid()
        self.outputs = outputs
        self.precision: Precision = precision
        self.device = find_device(device)
        self.arch = network.arch
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        network = fold_batch_norms(network.eval().fuse())
        # Convolutions of a batch in channels_last are up to twice as fast on CPUs, and never slower on GPUs.
        network = network.to(self.device, self.dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.network = network
        self.compiling = threading.Lock() if compiled else None
        self.compute: Callable[[Tensor], tuple[Tensor, ...]] = self._compute
        if compiled:
            self.name = "compile"
            self.compute = torch.compile(self._compute)

    def run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        """Images [N, channels, H, W] → each of `outputs`."""
        if self.pid != os.getpid():
            self._follow_fork()
        if self.compiling is None:
            return with_openmp(lambda: self._run(images))
        with self.compiling:  # a call may compile
            return with_openmp(lambda: self._run(images))

    def _follow_fork(self) -> None:
        """The weights are there in a forked process as well, and shared with the others as long as nobody writes."""
        if self.device.type != "cpu":
            raise Error(
                f"{self.arch} was put on {self.device} before this process was forked, which does not work from here: "
                "make the Classifier in the new process, or start it with the method spawn"
            )
        self.pid = os.getpid()
        if self.compiling is not None:
            self.compiling = threading.Lock()  # another thread may have held it

    def close(self) -> None:
        """Give its memory back."""
        del self.network, self.compute

    def _compute(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.network.outputs(images, self.outputs)

    @torch.inference_mode()
    def _run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        batch = torch.from_numpy(images).to(self.device, self.dtype, memory_format=torch.channels_last)
        try:
            values = self.compute(batch)
            return {name: value.float().cpu().numpy() for name, value in zip(self.outputs, values, strict=True)}
        except RuntimeError as error:
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            # On a CPU it is not an OutOfMemoryError
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in first_line:
                raise Error(
                    f"{self.device} has not enough memory for {self.arch} on {len(images)} images at once: "
                    "try a smaller batch size"
                ) from error
            raise Error(f"{self.arch}: torch failed on images of shape {list(images.shape)} ({first_line})") from error


def find_device(name: str) -> torch.device:
    """`auto` → the best device of this machine; raises `Error` for one it does not have."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Error(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}): try --device cpu") from error
    return device
