"""Every use of what other packages call private. Each has a test that says when it is no longer there."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

if TYPE_CHECKING:
    from lightning_fabric.strategies.parallel import ParallelStrategy

BatchNorm = _BatchNorm  # what all batch norms of torch are


# Runs MNN's converter with the arguments after it; it is not in MNN's public tools, which install packages and phone
# home when they are imported.
MNN_CONVERTER = "import sys, _tools; sys.exit(not _tools.mnnconvert(['mnnconvert', *sys.argv[1:]]))"


def executorch_bindings() -> Any:
    """ExecuTorch's runtime as it is in C++: its public module brings all that writes programs, seconds of imports.

    Raises ImportError: it is not installed.
    """
    return import_module("executorch.extension.pybindings._C")


def launch_by_spawning(strategy: ParallelStrategy) -> None:
    """Let Fabric start the processes of `strategy` itself; it would run the command line again in each of them."""
    from lightning_fabric.strategies.launchers.multiprocessing import (
        _MultiProcessingLauncher,  # pyright: ignore[reportPrivateUsage]
    )

    launcher: Any = _MultiProcessingLauncher(strategy, "spawn")
    strategy._launcher = launcher  # pyright: ignore[reportPrivateUsage]
