"""Choose a model for this machine: measure what may fit, leave out what cannot, say why. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torchclas.benchmarking.bench import Bench
from torchclas.benchmarking.results import Case
from torchclas.benchmarking.search import Bounds, Search, candidates, top1
from torchclas.catalog import Entry
from torchclas.engines.machine import usable_threads
from torchclas.errors import Error
from torchclas.messages import say
from torchclas.reporting.amounts import duration, figure
from torchclas.reporting.console import Console, Table, escape, print_table
from torchclas.reporting.speed_rows import print_remarks
from torchclas.vocabulary import EngineChoice, Precision

SHOWN = 3  # the choice and its runners-up


def recommend(
    bounds: Bounds,
    *,
    batch: int = 1,
    threads: int | None = None,
    engine: EngineChoice = "auto",
    precision: Precision = "fp32",
    series: str | None = None,
    device: str = "auto",
    seconds: float = 1.0,
    results: Path | None = None,
    console: Console,
    notes: Console,
) -> Entry | None:
    """Print the model that meets `bounds` best on this machine, why, and the runners-up; returns it, or None.

    What was measured before, by this or by `benchmark`, is not measured again; `results` is the folder of that.
    Progress goes to `notes`. On Ctrl-C the best so far is printed before `KeyboardInterrupt` goes on. Raises `Error`
    where the published figures leave no candidate.
    """
    if bounds.max_ms is None and bounds.min_top1 is None:
        raise Error("say how fast (--max-ms) or how accurate (--min-top1) the model must be")
    found = candidates(bounds, series=series)
    if not found:
        raise Error(f"no published model meets {bounds}: {_nearest_published(bounds, series)}")
    with Bench(results, seconds=seconds) as bench:
        print_remarks(bench.machine, notes)
        case = Case("", engine, precision, batch, threads or usable_threads(), device)
        measured = _Measured(bench, case, notes)
        search = measured.search(bounds, found)
        try:
            with notes.status(say("measuring, of the candidates, those that may fit")):
                measured.run(search)
            if search.fitting:
                _print_choice(search, console)
            else:
                _print_nearest(search, series, measured, console)
        except KeyboardInterrupt:
            _print_so_far(search, console)
            raise
        finally:
            for row in search.failed.values():
                notes.print(f"[red]{escape(str(row.case))}: {escape(row.error)}[/]", soft_wrap=True)
            notes.print(str(bench.machine), style="dim", highlight=False, soft_wrap=True)
    return next(iter(search.fitting), None)


class _Measured:
    """Measures candidates for one search after another, and says how it goes."""

    def __init__(self, bench: Bench, case: Case, notes: Console) -> None:
        self.bench = bench
        self.case = case
        self.notes = notes
        self.start = time.monotonic()
        self.count = 0

    def search(self, bounds: Bounds, found: list[Entry]) -> Search:
        """A search that begins with what was measured here before."""
        rows = {entry.name: self.bench.known(replace(self.case, model=entry.name)) for entry in found}
        known = {name: row for name, row in rows.items() if row is not None}
        return Search(bounds, found, self.case.batch, measured=known)

    def run(self, search: Search) -> None:
        """Carry a search out, with a line for each candidate; raises `Error` where the first few all fail."""
        while (entry := search.next()) is not None:
            row = self.bench.measure(replace(self.case, model=entry.name))
            search.add(entry, row)
            self.count += 1
            said = f"[red]{escape(row.error)}[/]" if row.timing is None else f"{figure(row.timing.median_ms)} ms"
            line = f"[dim]{self.count}[/] {entry.name}, top-1 {top1(entry):.2f} %: {said}{self._left(search)}"
            self.notes.print(line, highlight=False, soft_wrap=True)

    def _left(self, search: Search) -> str:
        hopeful = len(search.hopeful)
        if not hopeful:
            return ""
        seconds = hopeful * (time.monotonic() - self.start) / self.count
        return f"  [dim]{hopeful} more may be better: {duration(seconds)} for all[/]"


def _print_nearest(search: Search, series: str | None, measured: _Measured, console: Console) -> None:
    near = list(_nearest(search, series, measured))
    console.print(f"[bold red]Nothing here meets {search.bounds}.[/]", highlight=False)
    for reason, other in near:
        console.print(f"  {reason}:", highlight=False)
        _print_table(other, console)


def _nearest(search: Search, series: str | None, measured: _Measured) -> Iterator[tuple[str, Search]]:
    """What gives way least where nothing fits: first the time, then the accuracy."""
    bounds = search.bounds
    assert bounds.max_ms is not None, "without a bound on time everything fits"
    slower = replace(search, bounds=replace(bounds, max_ms=None))
    measured.run(slower)
    for entry in slower.fitting[:1]:
        yield f"the fastest otherwise takes {search.ms(entry) / bounds.max_ms:.2f} times as long", slower
    if bounds.min_top1 is not None:
        relaxed = replace(bounds, min_top1=None)
        worse = measured.search(relaxed, candidates(relaxed, series=series))
        measured.run(worse)
        for entry in worse.fitting[:1]:
            yield f"the most accurate in that time lacks {bounds.min_top1 - top1(entry):.2f} points of top-1", worse


def _print_so_far(search: Search, console: Console) -> None:
    """What can be said when there was no time to measure all that may be better."""
    hopeful = len(search.hopeful)
    more = f"{hopeful} candidates that may be better were not measured"
    if search.fitting:
        console.print(f"stopped: the best so far; {more}", highlight=False, soft_wrap=True)
        _print_choice(search, console)
    elif hopeful:
        count = len(search.measured)
        console.print(f"stopped: none of the {count} measured so far meets {search.bounds}; {more}", soft_wrap=True)
    else:
        console.print(f"stopped: nothing here meets {search.bounds}", soft_wrap=True)
    console.file.flush()  # an interrupted command ends without doing so


def _print_choice(search: Search, console: Console) -> None:
    console.print(f"[bold]{search.fitting[0].name}[/]", highlight=False)
    for reason in _reasons(search, search.fitting[0]):
        console.print(f"  {reason}", highlight=False, soft_wrap=True)
    _print_table(search, console)


def _reasons(search: Search, choice: Entry) -> Iterator[str]:
    bounds = search.bounds
    if bounds.max_ms is None:
        yield f"the fastest with {bounds}: {figure(search.ms(choice))} ms here"
    else:
        share = search.ms(choice) / bounds.max_ms
        takes = f"it takes {figure(search.ms(choice))} ms here, {share:.0%} of that"
        yield f"the most accurate within {bounds.max_ms:g} ms: {takes}"
    counts = f"{len(search.measured)} of {len(search.candidates)} candidates measured"
    others = len(search.not_measured) - len(search.hopeful)
    if others and bounds.max_ms is not None:
        worse = sum(top1(entry) <= top1(choice) for entry in search.not_measured)
        yield f"{counts}; of the others {worse} are less accurate, {others - worse} compute too much for that time"
    elif others:
        yield f"{counts}; {others} others compute too much to be faster"
    else:
        yield counts


def _print_table(search: Search, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("\nmodel", overflow="fold")
    for column in ("published\ntop-1 %", "published\nparams, M", "here\nms", "here\n5–95 %", "here\nimages/s"):
        table.add_column(column, justify="right")
    table.add_column("\nengine")
    table.add_column("\nremark")
    for entry in search.fitting[:SHOWN]:
        timing = search.measured[entry.name].timing
        assert timing is not None
        table.add_row(
            entry.name,
            f"{top1(entry):.2f}",
            "–" if entry.params_m is None else f"{entry.params_m:.2f}",
            figure(timing.median_ms),
            f"{figure(timing.p5_ms)}–{figure(timing.p95_ms)}",
            figure(timing.images_per_s),
            timing.ran,
            escape(timing.remarks),
        )
    print_table(table, console)


def _nearest_published(bounds: Bounds, series: str | None) -> str:
    """The most accurate of those that meet all other published bounds."""
    others = candidates(Bounds(max_params=bounds.max_params), series=series)
    if not others:
        return "allow more parameters, or another series"
    best = max(others, key=top1)
    return f"{best.name} comes nearest with {top1(best):.2f} %"
