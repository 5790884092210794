"""Time networks on this machine, and show what came out. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchclas.benchmarking import timing
from torchclas.benchmarking.bench import Bench
from torchclas.benchmarking.results import Case, Result, Results, published
from torchclas.errors import MissingDependencyError
from torchclas.messages import say
from torchclas.reporting.amounts import duration, figure
from torchclas.reporting.console import Console, escape
from torchclas.reporting.progress import bar
from torchclas.reporting.speed_rows import print_remarks, print_rows


def benchmark(
    planned: Sequence[Case], *, seconds: float, output: Path | None, console: Console, notes: Console
) -> list[Result]:
    """Time every case that has no row yet, and print the rows of all; progress and remarks go to `notes`.

    With `output`, a folder, that is where rows are kept, and a table, charts and a page of them are written there.
    Cases that fail have rows too, and are tried again by the next call.

    Raises:
        OutputError: the folder cannot be written, or belongs to another machine.
    """
    with Bench(output, seconds=seconds) as bench:
        print_remarks(bench.machine, notes)
        due = [case for case in planned if bench.known(case) is None]
        if len(due) < len(planned):
            notes.print(f"{len(planned) - len(due)} of {_many(len(planned))} are in {bench.results.path}", style="dim")
        with _progress(due, notes) as advance:
            for case in due:
                advance(bench.measure(case))
        rows = [bench.rows[case] for case in planned]
        print_rows(rows, console)
        notes.print(str(bench.machine), style="dim", highlight=False, soft_wrap=True)
        if output is not None:
            written = [bench.results.write_csv(), *_pictures(bench.results, notes)]
            names = dict.fromkeys(path.relative_to(output).parts[0] for path in written)
            notes.print(f"wrote {', '.join(names)} to {escape(str(output))}", soft_wrap=True)
    return rows


def _many(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


@contextmanager
def _progress(due: Sequence[Case], notes: Console) -> Generator[Callable[[Result], None]]:
    """Yield a function that is told each new row; it prints a line of it, and how long the rest will take."""
    total = sum(map(_cost, due))
    done, spent, start = 0, 0.0, time.monotonic()
    with bar(console=notes, shown=None if due else False) as drawn:
        task = drawn.add_task(say("timing"), total=len(due))

        def advance(row: Result) -> None:
            nonlocal done, spent
            done += 1
            spent += _cost(row.case)
            left = (time.monotonic() - start) / spent * (total - spent)
            remaining = "" if done == len(due) else f"  [dim]{duration(left)} left[/]"
            said = (
                f"[red]{escape(row.error)}[/]"
                if row.timing is None
                else f"{figure(row.timing.median_ms)} ms, {figure(row.timing.images_per_s)} images/s"
            )
            drawn.advance(task)
            line = f"[dim]{done}/{len(due)}[/] {escape(str(row.case))}: {said}{remaining}"
            drawn.console.print(line, highlight=False, soft_wrap=True)

        yield advance


def _cost(case: Case) -> float:
    """About the seconds a case takes, as far as that can be said beforehand: starting, and running at 50 GMAC/s."""
    entry = published(case.model)
    gflops = (entry.gflops if entry is not None else None) or 4.0
    return 10 + gflops / 2 + max(4.0, timing.MIN_REPEATS * case.batch * gflops / 50)


def _pictures(results: Results, notes: Console) -> list[Path]:
    """Charts and the page, as far as what draws them is installed."""
    from torchclas.reporting import speed_charts, speed_page

    written: list[Path] = []
    for make in (speed_charts.write_charts, speed_page.write_page):
        try:
            written += make(results)
        except MissingDependencyError as error:
            notes.print(f"[yellow]Note:[/] {escape(str(error))}", soft_wrap=True)
    return written
