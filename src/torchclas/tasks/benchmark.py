"""Time networks on this machine, and show what came out. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchclas.benchmarking import timing
from torchclas.benchmarking.bench import Bench, cases
from torchclas.benchmarking.results import Case, Result, Results, published
from torchclas.engines.machine import Machine, load_average
from torchclas.errors import MissingDependencyError
from torchclas.messages import say
from torchclas.reporting.console import Console, Table, escape
from torchclas.reporting.progress import bar

__all__ = ["benchmark", "cases", "duration", "figure", "print_remarks", "print_rows", "print_table"]

BUSY = 0.5  # load per thread
WIDE = 160  # columns of a table that no terminal limits


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


def print_rows(rows: Sequence[Result], console: Console) -> None:
    """Print a table of what was measured, fastest first within each setting, and what failed."""
    settings: dict[str, list[Result]] = {}
    for row in rows:
        settings.setdefault(row.case.setting, []).append(row)
    for setting, group in settings.items():
        table = Table(title=setting, title_justify="left", box=None, pad_edge=False)
        table.add_column("model", overflow="fold")
        for column in ("ms", "5–95 %", "images/s", "peak MiB", "load s"):
            table.add_column(column, justify="right", no_wrap=True)
        for column in ("engine", "weights", "remark"):
            table.add_column(column)
        timed = [(row.case.model, row.timing) for row in group if row.timing is not None]
        for model, taken in sorted(timed, key=lambda pair: pair[1].median_ms):
            table.add_row(
                escape(model),
                figure(taken.median_ms),
                f"{figure(taken.p5_ms)}–{figure(taken.p95_ms)}",
                figure(taken.images_per_s),
                "–" if taken.peak_mib is None else f"{taken.peak_mib:.0f}",
                f"{taken.load_s:.2f}",
                taken.ran,
                taken.weights,
                escape(taken.remarks),
            )
        if timed:
            print_table(table, console)
        for row in group:
            if row.timing is None:
                console.print(f"[bold red]{escape(str(row.case))}:[/] {escape(row.error)}", soft_wrap=True)


def print_table(table: Table, console: Console) -> None:
    """Fit a table to a terminal; a pipe gets it whole."""
    (console if console.is_terminal else type(console)(file=console.file, width=WIDE)).print(table)


def figure(value: float) -> str:
    """Three digits at least, which is what a measurement is good for."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _many(count: int) -> str:
    return "1 case" if count == 1 else f"{count} cases"


def print_remarks(machine: Machine, notes: Console) -> None:
    """Say what may distort times here and now."""
    for remark in _remarks(machine):
        notes.print(f"[yellow]Note:[/] {remark}", soft_wrap=True)


def _remarks(machine: Machine) -> Iterable[str]:
    load = load_average()
    if load is not None and load > BUSY * machine.threads:
        yield f"the machine is busy (load {load:.1f} on {machine.threads} threads): times will be too long"
    if machine.governor not in (None, "performance"):
        yield f"the processor's frequency governor is {machine.governor}: clocks, and times with them, may drift"
    if machine.power == "battery":
        yield "the machine runs on its battery: times may be longer than on mains"


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


def duration(seconds: float) -> str:
    """About how long, for people."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


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
