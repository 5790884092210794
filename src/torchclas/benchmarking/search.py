"""Find the model that meets bounds best on this machine, by measuring few of those that may. Imports no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from torchclas import catalog
from torchclas.benchmarking.results import Result
from torchclas.catalog import Entry
from torchclas.errors import Error
from torchclas.sizes import Size

PATIENCE = 3  # failures in a row
# A network is taken to compute at most so many times as fast, per multiply-add, as the best one measured, and as one of
# its own series of a similar size. Convolutions of large maps come within a factor of 2 of a machine's peak, depthwise
# ones and small maps stay far below: of a kind that fewer than two series were measured of, more is thought possible.
HEADROOM, UNKNOWN_HEADROOM = 2.0, 4.0
SIMILAR = 2.5  # times as many multiply-adds
FIRST_GUESS = 50.0  # 10⁹ multiply-adds per second, until something was measured


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
    measured: dict[str, Result] = field(default_factory=dict[str, Result])
    failed: dict[str, Result] = field(default_factory=dict[str, Result])

    def add(self, entry: Entry, row: Result) -> None:
        """Take what came of a candidate; raises `Error` with what stands in the way where the first few all fail."""
        (self.failed if row.timing is None else self.measured)[entry.name] = row
        if not self.measured and len(self.failed) == PATIENCE:
            raise Error(row.error)

    @property
    def fitting(self) -> list[Entry]:
        """Those measured that meet every bound, the best first."""
        if self.bounds.max_ms is None:
            return sorted(self._measured(), key=lambda entry: (self.ms(entry), -top1(entry)))
        fits = [entry for entry in self._measured() if self.ms(entry) <= self.bounds.max_ms]
        return sorted(fits, key=lambda entry: (-top1(entry), self.ms(entry)))

    @property
    def not_measured(self) -> list[Entry]:
        """Those that the search did without, so far."""
        known = self.measured.keys() | self.failed.keys()
        return [entry for entry in self.candidates if entry.name not in known]

    @property
    def hopeful(self) -> list[Entry]:
        """Those not measured that may still be better than the best so far."""
        best, limit = next(iter(self.fitting), None), self.bounds.max_ms
        if limit is None:
            return [entry for entry in self.not_measured if best is None or self.least_ms(entry) < self.ms(best)]
        return [
            entry
            for entry in self.not_measured
            if (best is None or top1(entry) > top1(best)) and self.least_ms(entry) <= limit
        ]

    def next(self) -> Entry | None:
        """What to measure now: the likeliest to be chosen of those that still may be; None when the choice is clear.

        The most accurate one that should keep the time comes first, since it settles the most others.
        """
        hopeful, limit = self.hopeful, self.bounds.max_ms
        likely = [entry for entry in hopeful if limit is not None and self._guess_ms(entry) <= limit]
        return max(likely, key=top1) if likely else min(hopeful, key=self._guess_ms, default=None)

    def ms(self, entry: Entry) -> float:
        """What a batch took, of a candidate that was measured."""
        timing = self.measured[entry.name].timing
        assert timing is not None
        return timing.median_ms

    def least_ms(self, entry: Entry) -> float:
        """A time that a candidate cannot beat, judging by what was measured so far; 0 where nothing was."""
        known = self._measured()
        if not known:
            return 0.0
        work = self._work(entry)
        kin = [
            other
            for other in known
            if other.series is entry.series and 1 / SIMILAR <= self._work(other) / work <= SIMILAR
        ]
        kind = {other.series.id for other in known if other.series.group.kind == entry.series.group.kind}
        headroom = HEADROOM if kin or len(kind) > 1 else UNKNOWN_HEADROOM
        return work / (headroom * max(map(self._rate, kin or known)))

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
        """How fast it computes when nothing disturbs it."""
        timing = self.measured[entry.name].timing
        assert timing is not None
        return self._work(entry) / timing.best_ms

    def _measured(self) -> list[Entry]:
        return [entry for entry in self.candidates if entry.name in self.measured]


def candidates(bounds: Bounds, *, series: str | None = None) -> list[Entry]:
    """Models that meet the published bounds: of each network, at each input size, the most accurate weights.

    Raises `UnknownNameError` for an unknown series.
    """
    best: dict[tuple[str, Size], Entry] = {}
    for entry in map(catalog.find, catalog.names(series=series)):
        if entry.weights is None or entry.top1 is None or not _meets(entry, bounds):
            continue
        network = entry.arch, entry.preset.size
        best[network] = max(best.get(network, entry), entry, key=top1)
    return list(best.values())


def _meets(entry: Entry, bounds: Bounds) -> bool:
    accurate = bounds.min_top1 is None or top1(entry) >= bounds.min_top1
    small = bounds.max_params is None or (entry.params_m is not None and entry.params_m * 1e6 <= bounds.max_params)
    return accurate and small


def top1(entry: Entry) -> float:
    """The published accuracy of a candidate, in percent."""
    assert entry.top1 is not None
    return entry.top1


@cache
def gflops(entry: Entry) -> float:
    """The published figure, or else that of the same network with other weights, scaled to this input size."""
    for other in (entry, *(other for other in catalog.entries() if other.arch == entry.arch)):
        if other.gflops is not None:
            return other.gflops * math.prod(entry.preset.size) / math.prod(other.preset.size)
    return (entry.params_m or 1) / 1000  # every parameter is multiplied once at least
