"""The command line: parses arguments, and imports what a command needs when it runs."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import CycloptsError

from torchclas.cli import export, images, models, quantize, speed, spellings, training, weights
from torchclas.cli.app import app
from torchclas.errors import Error

__all__ = ["app", "export", "images", "main", "models", "quantize", "run", "speed", "training", "weights"]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
READER_GONE = 141  # 128 + SIGPIPE


def main() -> NoReturn:
    """Run the command that the process was started with."""
    # A worker that decodes images should not compete with idle threads of torch that spin.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    for stream in (sys.stdout, sys.stderr):  # file names may hold what the terminal's encoding does not
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    code = run(sys.argv[1:])
    if code in (INTERRUPTED, READER_GONE):
        # Not sys.exit: it would wait for threads, and those may be waiting for a server.
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 0, 1 (done, but not for every input), 2 (an error), 130 (Ctrl-C)."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    if debug:
        arguments = [*(option for option in options if option != "--debug"), *arguments[len(options) :]]
    try:
        spellings.check(app, arguments)
        code = app(arguments)
        sys.stdout.flush()
        return code or 0
    except (Error, CycloptsError) as error:
        if debug:
            raise
        _report(spellings.explain(app, error, arguments) if isinstance(error, CycloptsError) else str(error))
        return 2
    except KeyboardInterrupt:
        if debug:
            raise
        return INTERRUPTED
    except OSError as error:
        if debug or error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        # Python flushes standard output once more at exit; let it go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return READER_GONE
        _report(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
        return 2


def _report(message: str) -> None:
    print(f"torchclas: {' '.join(message.split())}", file=sys.stderr)
