"""What a shell completes beyond commands, options and files: the names of models and of series.

With cyclopts 4, which Python 3.10 has, there is no such completion. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

if TYPE_CHECKING:
    from cyclopts.completion._engine import CompletionContext


def _names(context: CompletionContext) -> list[str]:
    from torchclas import catalog

    return [name for name in catalog.names() if name.startswith(context.incomplete)]


def _models(context: CompletionContext) -> list[str]:
    """Published names, and files and folders where none begins so."""
    folder, _, start = context.incomplete.rpartition("/")
    prefix = f"{folder}/" if "/" in context.incomplete else ""
    return _names(context) or [
        f"{prefix}{path.name}{'/' if path.is_dir() else ''}"
        for path in sorted(Path(prefix).expanduser().glob("*"))
        if path.name.startswith(start)
    ]


def _series(context: CompletionContext) -> list[str]:
    from torchclas import catalog

    return [series.id for series in catalog.all_series() if series.id.startswith(context.incomplete)]


def _completed(by: Callable[[CompletionContext], list[str]]) -> Parameter:
    return Parameter(completer=by) if "completer" in signature(Parameter).parameters else Parameter()


NAMES = _completed(_names)  # published names
MODELS = _completed(_models)  # published names, or files
SERIES = _completed(_series)
