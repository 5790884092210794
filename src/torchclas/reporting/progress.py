"""The one progress bar: what is being done, how much of it, how fast, and how long it will take."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from torchclas.messages import label, say
from torchclas.reporting.console import Console

Advance = Callable[[int], None]  # is told how many more were done


class Stages(Protocol):
    """Begins a stage of so many steps (None: nobody knows), and returns what is told of each."""

    def __call__(self, title: str, total: int | None) -> Advance:
        """Begin one."""
        ...


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(say(f"{task.speed:,.0f}/s") if task.speed else "", style="dim")


class _Remaining(TimeRemainingColumn):
    """What is left, or where nobody knows, what was spent."""

    def render(self, task: Task) -> Text:
        return TimeElapsedColumn().render(task) if task.total is None else super().render(task)


class _Count(MofNCompleteColumn):
    """So many of so many; nothing where neither is known."""

    def render(self, task: Task) -> Text:
        return Text("") if task.total is None and not task.completed else super().render(task)


def bar(*more: ProgressColumn, console: Console | None = None, shown: bool | None = None) -> Progress:
    """A bar on standard error that goes when it is done; not shown where that is no terminal.

    `more` columns stand behind the count. Titles are the descriptions of its tasks.
    """
    columns = TextColumn("{task.description}"), BarColumn(), _Count(), *(more or (_Rate(),)), _Remaining()
    stream = console or Console(stderr=True)
    hidden = not (sys.stderr.isatty() if console is None else stream.is_terminal) if shown is None else not shown
    return Progress(*columns, console=stream, transient=True, disable=hidden)


@contextmanager
def progress(title: str, total: int | None, *, done: int = 0, console: Console | None = None) -> Generator[Advance]:
    """Yield what is told how many more were done; `total` is None where nobody knows."""
    with bar(console=console) as drawn:
        task = drawn.add_task(label(title), total=total, completed=done)
        yield lambda count: drawn.advance(task, count)


@contextmanager
def stages(console: Console | None = None) -> Generator[Stages]:
    """Yield what begins one stage after another, on one bar."""
    with bar(console=console) as shown:
        task = shown.add_task("")

        def begin(title: str, total: int | None) -> Advance:
            shown.reset(task, description=label(title), total=total)
            return lambda count: shown.advance(task, count)

        yield begin


@contextmanager
def downloading(name: str) -> Generator[Callable[[int, int | None], None]]:
    """Yield what is told the bytes that are here, and of how many (None: nobody knows); shown with the first."""
    columns: tuple[Any, ...] = TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), _Remaining()
    shown = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    task = shown.add_task(name, total=None)

    def show(done: int, total: int | None) -> None:
        shown.start()
        shown.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        shown.stop()
