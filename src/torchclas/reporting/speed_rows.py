"""What was measured of speed, as tables for people, and what may distort it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torchclas.benchmarking.results import Result
from torchclas.engines.machine import Machine, load_average
from torchclas.reporting.amounts import figure
from torchclas.reporting.console import Console, Table, escape, print_table

BUSY = 0.5  # load per thread


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
