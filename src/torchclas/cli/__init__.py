"""The command line: parses arguments, and imports what a command needs when it runs."""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import CycloptsError

from torchclas import messages, signals
from torchclas.cli import (
    difference,
    embedding,
    explain,
    export,
    images,
    migrate,
    models,
    quantize,
    serve,
    speed,
    spellings,
    training,
    weights,
)
from torchclas.cli.app import app
from torchclas.errors import Error
from torchclas.messages import say
from torchclas.text import printable
from torchclas.vocabulary import LANGUAGES

__all__ = [
    "app",
    "difference",
    "embedding",
    "explain",
    "export",
    "images",
    "main",
    "migrate",
    "models",
    "quantize",
    "run",
    "serve",
    "speed",
    "training",
    "weights",
]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EPILOGUE = str(app.help_epilogue)  # in English
READER_GONE = 141  # 128 + SIGPIPE


def main() -> NoReturn:
    """Run the command that the process was started with."""
    _replace_closed_streams()
    # A worker that decodes images should not compete with idle threads of torch that spin.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    for stream in (sys.stdout, sys.stderr):  # file names may hold what the terminal's encoding does not
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: say(f"warning: {printable(str(message))}") + "\n"
    code = run(sys.argv[1:])
    if code > 128:
        # Not sys.exit: it would wait for threads, and those may be waiting for a server.
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code.

    0; 1 (done, but not for every input); 2 (an error); 128 and the number of the signal that ended it (130: Ctrl-C).
    """
    with signals.as_interrupts():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end]
    # What follows -- is no option: with ./ no command takes the name of a file for one.
    names = (f"./{name}" if name.startswith("-") and name not in ("-", "--") else name for name in arguments[end:])
    arguments = [*(option for option in arguments[:end] if option != "--debug"), *names]
    try:
        arguments = _choose_language(arguments)
        app.help_epilogue = messages.help_text(EPILOGUE)
        spellings.check(app, arguments)
        code = app(arguments)
        sys.stdout.flush()
        return code or 0
    except (Error, CycloptsError) as error:
        if debug:
            raise
        _report(spellings.explain(app, error, arguments) if isinstance(error, CycloptsError) else str(error))
        return 2
    except KeyboardInterrupt as interrupt:
        if debug:
            raise
        return 128 + interrupt.number if isinstance(interrupt, signals.Stopped) else INTERRUPTED
    except OSError as error:
        if debug or error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EBADF):
            raise
        # Python flushes standard output once more at exit; let it go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return READER_GONE
        _report(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
        return 2


def _choose_language(arguments: Sequence[str]) -> Sequence[str]:
    """Say things in the language of --lang, or else of the locale; return the arguments that the command takes.

    `predict` has an option of that name, which chooses the language of the class names, too; no locale does that.
    """
    messages.use(_displayable(messages.of_environment(os.environ)))
    end = arguments.index("--") if "--" in arguments else len(arguments)
    asked = next((place for place in range(end) if re.fullmatch(r"--lang(=.*)?", arguments[place])), None)
    if asked is None:
        return arguments
    _, equals, value = arguments[asked].partition("=")
    rest = asked + 1 if equals else asked + 2
    if not equals:
        value = arguments[asked + 1] if rest <= end else ""
    chosen = messages.named(value)
    if chosen is None:
        raise Error(f"--lang {value}: choose from {', '.join(LANGUAGES)}")
    messages.use(chosen)
    arguments = [*arguments[:asked], *arguments[rest:]]
    return spellings.with_language(app, arguments, chosen)


def _displayable(language: messages.Language) -> messages.Language:
    """English where the terminal's encoding lacks the characters of `language`."""
    try:
        "中文".encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return "en"
    return language


def _replace_closed_streams() -> None:
    """Open something in place of the standard streams that the process was started without.

    Python has None for them, and the next file that is opened would get the number of one, and what libraries print.
    What reads finds nothing; what writes rows is told that it cannot; remarks go nowhere.
    """
    for name, how, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, how), mode))


def _report(message: str) -> None:
    print(f"torchclas: {say(printable(' '.join(message.split())))}", file=sys.stderr)
