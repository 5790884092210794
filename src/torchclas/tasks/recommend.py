"""Choose a model for this machine: measure what may fit, leave out what cannot, say why. Imports no torch."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

from rich.table import Table

from torchclas import catalog
from torchclas.catalog import Entry
from torchclas.engines import EngineName, Precision
from torchclas.engines.machine import usable_threads
from torchclas.errors import Error
from torchclas.reporting.console import Console, escape
from torchclas.tasks import listing
from torchclas.tasks.benchmark import Bench, figure, print_remarks, print_table
from torchclas.tasks.results import Case, Result

SHOWN = 3  # the choice and its runners-up
PATIENCE = 3  # failures in a row
# A network is taken to compute at most so many times as fast, per multiply-add, as the best one measured. Convolutions
# of large maps come within a factor of 2 of a machine's peak, depthwise ones and small maps stay far below.
HEADROOM = 2.0
FIRST_GUESS = 50.0  # 10⁹ multiply-adds per second, until something was measured

Measure = Callable[[Entry], Result]


@dataclass(frozen=True)
class Bounds:
    """What is asked for: at least one of `max_ms`, for a batch, and `min_top1`, in percent."""

    max_ms: float | None = None
    min_top1: float | None = None
    max_params: float | None = None

    def __str__(self) -> str:
        parts = [
            *([] if self.max_ms is None else [f"at most {self.max_ms:g} ms"]),
            *([] if self.min_top1 is None else [f"top-1 of at least {self.min_top1:g} %"]),
            *([] if self.max_params is None else [f"at most {self.max_params / 1e6:g} M parameters"]),
        ]
        return ", ".join(parts)


@dataclass
class Search:
    """The candidates, the most accurate weights of each network, and what is known of each so far.

    With a bound on time the most accurate one within it is sought, otherwise the fastest. `measured` and `failed` are
    by name.
    """

    bounds: Bounds
    candidates: Sequence[Entry]
    batch: int = 1
    shown: int = SHOWN
    measured: dict[str, Result] = field(default_factory=dict[str, Result])
    failed: dict[str, Result] = field(default_factory=dict[str, Result])

    def run(self, measure: Measure) -> None:
        """Measure one candidate after another, until no other can be among the `shown` best.

        Raises `Error` with what stands in the way where the first few all fail.
        """
        while (entry := self._next()) is not None:
            row = measure(entry)
            (self.measured if row.timing is not None else self.failed)[entry.name] = row
            if not self.measured and len(self.failed) == PATIENCE:
                raise Error(row.error)

    @property
    def fitting(self) -> list[Entry]:
        """Those measured that meet every bound, the best first."""
        if self.bounds.max_ms is None:
            return sorted(self._measured(), key=lambda entry: (self.ms(entry), -_top1(entry)))
        fits = [entry for entry in self._measured() if self.ms(entry) <= self.bounds.max_ms]
        return sorted(fits, key=lambda entry: (-_top1(entry), self.ms(entry)))

    @property
    def not_measured(self) -> list[Entry]:
        """Those that the search did without."""
        known = self.measured.keys() | self.failed.keys()
        return [entry for entry in self.candidates if entry.name not in known]

    def ms(self, entry: Entry) -> float:
        """What a batch took, of a candidate that was measured."""
        timing = self.measured[entry.name].timing
        assert timing is not None
        return timing.median_ms

    def least_ms(self, entry: Entry) -> float:
        """A time that a candidate cannot beat, judging by the best rate measured so far; 0 where nothing was."""
        rates = list(map(self._rate, self._measured()))
        return self._work(entry) / (HEADROOM * max(rates)) if rates else 0.0

    def _next(self) -> Entry | None:
        """What to measure now: the likeliest to be chosen of those that still may be; None when the choice is clear."""
        shown, limit = self.fitting[: self.shown], self.bounds.max_ms
        last = shown[-1] if len(shown) == self.shown else None
        if limit is None:
            hopeful = [entry for entry in self.not_measured if last is None or self.least_ms(entry) < self.ms(last)]
            return min(hopeful, key=self._guess_ms, default=None)
        hopeful = [
            entry
            for entry in self.not_measured
            if self.least_ms(entry) <= limit and (last is None or _top1(entry) > _top1(last))
        ]
        likely = [entry for entry in hopeful if self._guess_ms(entry) <= limit]
        return max(likely, key=_top1) if likely else min(hopeful, key=self._guess_ms, default=None)

    def _guess_ms(self, entry: Entry) -> float:
        """What a candidate may take: as its nearest kin compute, series before kind before all."""
        known = self._measured()
        series = [self._rate(other) for other in known if other.series is entry.series]
        kind = [self._rate(other) for other in known if other.series.group.kind == entry.series.group.kind]
        rates = series or kind or [self._rate(other) for other in known] or [FIRST_GUESS]
        return self._work(entry) / statistics.median(rates)

    def _work(self, entry: Entry) -> float:
        """10⁶ multiply-adds of a batch."""
        return 1000 * gflops(entry) * self.batch

    def _rate(self, entry: Entry) -> float:
        return self._work(entry) / self.ms(entry)

    def _measured(self) -> list[Entry]:
        return [entry for entry in self.candidates if entry.name in self.measured]


def candidates(bounds: Bounds, *, series: str | None = None) -> list[Entry]:
    """Models that meet the published bounds: of each network, at each input size, the most accurate weights."""
    entries = listing.select(series=series, min_top1=bounds.min_top1, max_params=bounds.max_params)
    best: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        network = entry.arch, entry.preset.crop_size
        if entry.weights is not None and entry.top1 is not None:
            best[network] = max(best.get(network, entry), entry, key=_top1)
    return list(best.values())


def recommend(
    bounds: Bounds,
    *,
    batch: int = 1,
    threads: int | None = None,
    engine: EngineName | Literal["auto"] = "auto",
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
    Progress goes to `notes`. Raises `Error` where the published figures leave no candidate.
    """
    if bounds.max_ms is None and bounds.min_top1 is None:
        raise Error("say how fast (--max-ms) or how accurate (--min-top1) the model must be")
    found = candidates(bounds, series=series)
    if not found:
        raise Error(f"no published model meets {bounds}: {_nearest_published(bounds, series)}")
    search = Search(bounds, found, batch)
    with Bench(results, seconds=seconds) as bench:
        print_remarks(bench.machine, notes)

        def measure(entry: Entry) -> Result:
            case = Case(entry.name, engine, precision, batch, threads or usable_threads(), device)
            if (known := bench.known(case)) is not None:
                return known
            row = bench.measure(case)
            said = escape(row.error) if row.timing is None else f"{figure(row.timing.median_ms)} ms"
            notes.print(f"[dim]{len(search.measured) + 1}[/] {entry.name}: {said}", highlight=False, soft_wrap=True)
            return row

        with notes.status(f"measuring, of {len(found)} candidates, those that may fit"):
            search.run(measure)
            near = [] if search.fitting else list(_nearest(search, series, measure))
        if search.fitting:
            _print_choice(search, console)
        else:
            console.print(f"[bold red]Nothing here meets {bounds}.[/]", highlight=False)
            for reason, other in near:
                console.print(f"  {reason}:", highlight=False)
                _print_table(other, console)
        for row in search.failed.values():
            notes.print(f"[red]{escape(str(row.case))}: {escape(row.error)}[/]", soft_wrap=True)
        notes.print(str(bench.machine), style="dim", highlight=False, soft_wrap=True)
    return next(iter(search.fitting), None)


def _nearest(search: Search, series: str | None, measure: Measure) -> Iterator[tuple[str, Search]]:
    """What gives way least where nothing fits: first the time, then the accuracy."""
    bounds = search.bounds
    assert bounds.max_ms is not None, "without a bound on time everything fits"
    known = search.measured, search.failed
    slower = Search(replace(bounds, max_ms=None), search.candidates, search.batch, 1, *known)
    slower.run(measure)
    for entry in slower.fitting[:1]:
        yield f"the fastest otherwise takes {search.ms(entry) / bounds.max_ms:.2f} times as long", slower
    if bounds.min_top1 is not None:
        relaxed = replace(bounds, min_top1=None)
        worse = Search(relaxed, candidates(relaxed, series=series), search.batch, 1, *known)
        worse.run(measure)
        for entry in worse.fitting[:1]:
            yield f"the most accurate in that time lacks {bounds.min_top1 - _top1(entry):.2f} points of top-1", worse


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
    left_out = search.not_measured
    counts = f"{len(search.measured)} of {len(search.candidates)} candidates measured"
    if left_out and bounds.max_ms is not None:
        slow = sum(search.least_ms(entry) > bounds.max_ms for entry in left_out)
        worse = len(left_out) - slow
        yield f"{counts}; of the others {slow} compute too much for that time, {worse} are less accurate"
    elif left_out:
        yield f"{counts}; the others compute too much to be faster"
    else:
        yield counts


def _print_table(search: Search, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("\nmodel", overflow="fold")
    for column in ("published\ntop-1 %", "published\nparams, M", "here\nms", "here\n5–95 %", "here\nimages/s"):
        table.add_column(column, justify="right")
    table.add_column("\nengine")
    table.add_column("\nremark")
    for entry in search.fitting[: search.shown]:
        timing = search.measured[entry.name].timing
        assert timing is not None
        table.add_row(
            entry.name,
            f"{_top1(entry):.2f}",
            "–" if entry.params_m is None else f"{entry.params_m:.2f}",
            figure(timing.median_ms),
            f"{figure(timing.p5_ms)}–{figure(timing.p95_ms)}",
            figure(timing.images_per_s),
            timing.ran,
            escape(timing.remark),
        )
    print_table(table, console)


def _nearest_published(bounds: Bounds, series: str | None) -> str:
    """The most accurate of those that meet all other published bounds."""
    others = candidates(Bounds(max_params=bounds.max_params), series=series)
    if not others:
        return "allow more parameters, or another series"
    best = max(others, key=_top1)
    return f"{best.name} comes nearest with {_top1(best):.2f} %"


def _top1(entry: Entry) -> float:
    assert entry.top1 is not None
    return entry.top1


@cache
def gflops(entry: Entry) -> float:
    """The published figure, or else that of the same network with other weights, scaled to this input size."""
    for other in (entry, *(other for other in catalog.entries() if other.arch == entry.arch)):
        if other.gflops is not None:
            return other.gflops * (entry.preset.crop_size / other.preset.crop_size) ** 2
    return (entry.params_m or 1) / 1000  # every parameter is multiplied once at least
