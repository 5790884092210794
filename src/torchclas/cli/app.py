"""The application that commands belong to, and the options that several of them have."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter, convert
from cyclopts.types import NonNegativeInt, PositiveInt

from torchclas.allocator import keep_freed_memory
from torchclas.cli.help import HelpFormatter
from torchclas.completion import MODELS
from torchclas.errors import Error
from torchclas.messages import say
from torchclas.openvino_core import skip_converter
from torchclas.text import printable
from torchclas.version import __version__
from torchclas.vocabulary import EngineChoice, Precision

if TYPE_CHECKING:
    from torchclas.bridges.paddleclas import Stage, Use
    from torchclas.reporting.console import Console

app = App(
    name="torchclas",
    help="The ImageNet model zoo of PaddleClas in PyTorch. `torchclas COMMAND --help` says more about a command.",
    help_epilogue="Anywhere: with --lang zh, messages are in Chinese; with --debug, errors come with their traceback.",
    help_formatter=HelpFormatter(),
    version=f"torchclas {__version__}",
    help_format="plaintext",
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(help="Make the shell complete commands, options and their values.")


Model = Annotated[
    str | None,
    MODELS,
    Parameter(
        name=("--model", "-m"),
        help="Published name, a checkpoint, a run's folder, an exported model, or hf://OWNER/NAME. "
        "Default: EfficientNet_lite0.",
    ),
]
Weights = Annotated[
    Path | None,
    Parameter(help="Weights file that takes the place of the model's published ones: .safetensors, .pdparams, .pth."),
]
Labels = Annotated[
    Path | None, Parameter(help="Names of the classes, one per line (`cat` or `0 cat`), where the weights do not say.")
]
BatchSize = Annotated[
    PositiveInt | None, Parameter(help="Images the network takes at once. Default: 16, to evaluate 32.")
]
Workers = Annotated[
    NonNegativeInt | None,
    Parameter(help="Threads that read images; 0: the main one does. Default: one per core."),
]
MaxPixels = Annotated[
    PositiveInt, Parameter(help="Larger images are errors; each worker may need up to 16 bytes of memory per pixel.")
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps …")]
Engine = Annotated[
    EngineChoice,
    Parameter(help="What runs the network; auto: what is the fastest for it on this machine."),
]
OnePrecision = Annotated[Precision, Parameter(help="int8 needs a model that `torchclas quantize` has been run on.")]
Threads = Annotated[PositiveInt | None, Parameter(help="Threads of the engine. Default: one per core.")]
Verbose = Annotated[
    bool, Parameter(name=("--verbose", "-v"), negative="", help="Say which engine was chosen, and why.")
]
PADDLECLAS = "PaddleClas"
Config = Annotated[
    Path | None,
    Parameter(name=("--config", "-c"), group=PADDLECLAS, help="A configuration of PaddleClas (YAML), to be followed."),
]
Overrides = Annotated[
    tuple[str, ...],
    Parameter(
        name="--override",
        group=PADDLECLAS,
        negative="",
        show_default=False,
        help="Change a key of it, as -o does there: --override Arch.class_num=10; may be repeated.",
    ),
]
Lenient = Annotated[
    bool, Parameter(group=PADDLECLAS, negative="", help="Leave out what of it is not supported, and say so.")
]
Relabel = Annotated[
    bool, Parameter(negative="", help="A list's labels begin anywhere or leave gaps: number them anew.")
]
Set = Annotated[
    tuple[str, ...],
    Parameter(negative="", show_default=False, help="Change a setting: --set optimizer.lr=0.05; may be repeated."),
]


def _separated(kind: Any, tokens: Sequence[Any]) -> Any:
    """Values behind one option, separated by commas."""
    return convert(kind, [part for token in tokens for part in token.value.split(",")])


def _joined(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


FLAT = Parameter(name="*")  # the fields of a class as options of the command
SEVERAL = Parameter(converter=_separated, negative="", show_default=_joined)


def _check_percent(kind: object, value: float | None) -> None:
    if value is not None and 0 < value <= 1:
        raise ValueError(f"It is in percent: write {100 * value:g}.")
    if value is not None and not 0 <= value <= 100:
        raise ValueError("It is in percent: 0 to 100.")


def _check_share(kind: object, value: float | None) -> None:
    if value is None:
        return
    if 1 < value <= 100:
        raise ValueError(f"Scores are from 0 to 1: write {value / 100:g}.")
    if not 0 <= value <= 1:
        raise ValueError("Scores are from 0 to 1.")


Percent = Parameter(validator=_check_percent)  # of which 0.8 is hardly ever meant
Share = Parameter(validator=_check_share)


def log_to_stderr() -> None:
    """Show what the package has to say of its choices."""
    import logging

    class Formatter(logging.Formatter):
        def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
            return say(printable(super().formatMessage(record)))

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(message)s"))
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("torchclas").setLevel(logging.INFO)


def start_lean(verbose: bool) -> None:
    """Begin a command that runs a model, without what only few of them need."""
    skip_converter()
    keep_freed_memory()  # the next photograph needs as much again
    if verbose:
        log_to_stderr()


def stdout() -> Console:
    """Standard output for tables; a reader that has gone away reaches `torchclas.cli.run` as BrokenPipeError."""
    from torchclas.reporting.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    return Output()


def stderr() -> Console:
    """Standard error, for progress and remarks."""
    from torchclas.reporting.console import Console

    return Console(stderr=True)


def follow(
    config: Path | None,
    overrides: Sequence[str],
    stage: Stage,
    *,
    model: str | None,
    weights: Path | None,
    lenient: bool,
) -> Use | None:
    """What a configuration of PaddleClas says for a command, where one was named; its notes go to standard error."""
    if config is None:
        if overrides:
            raise Error(
                f"--override {overrides[0]} changes a configuration of PaddleClas, and none is named: "
                "--config FILE names one"
            )
        return None
    from torchclas.bridges.paddleclas import using
    from torchclas.reporting.console import escape

    used = using(config, overrides, stage, model=model, weights=weights, lenient=lenient)
    for note in used.notes:
        stderr().print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    return used
