"""The application that commands belong to, and the options that several of them have."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.types import NonNegativeInt, PositiveInt

import torchclas

if TYPE_CHECKING:
    from rich.console import Console

app = App(
    name="torchclas",
    help="The ImageNet model zoo of PaddleClas in PyTorch. `torchclas COMMAND --help` says more about a command.",
    help_epilogue="With --debug, anywhere, errors come with their traceback.",
    version=f"torchclas {torchclas.__version__}",
    help_format="plaintext",
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(help="Make the shell complete commands, options and their values.")


Model = Annotated[
    str | None,
    Parameter(name=("--model", "-m"), help="Published name, or a .safetensors file. Default: EfficientNet_lite0."),
]
Weights = Annotated[Path | None, Parameter(help="Weights file that takes the place of the model's published ones.")]
BatchSize = Annotated[PositiveInt, Parameter(help="Images the network takes at once.")]
Workers = Annotated[
    NonNegativeInt | None,
    Parameter(help="Threads that read images; 0: the main one does. Default: one per core."),
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps …")]
Set = Annotated[
    tuple[str, ...],
    Parameter(negative="", show_default=False, help="Change a setting: --set optimizer.lr=0.05; may be repeated."),
]


def stdout() -> Console:
    """Standard output for tables; a reader that has gone away reaches `torchclas.cli.run` as BrokenPipeError."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Output()


def stderr() -> Console:
    """Standard error, for progress and remarks."""
    from rich.console import Console

    return Console(stderr=True)
