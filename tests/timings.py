"""Timings as `benchmark` keeps them, for tests of what is made of them."""

from __future__ import annotations

import io
from pathlib import Path

from torchclas.benchmarking.results import Case, Result, Results, Timing
from torchclas.engines import installed
from torchclas.engines.machine import this_machine
from torchclas.reporting.console import Console

TINY = "PPLCNet_x0_25"


def timing_of(ms: float, *, batch: int = 1) -> Timing:
    return Timing(
        ran="torch",
        version=installed()["torch"],
        hardware="a processor",
        weights="random",
        median_ms=ms,
        p5_ms=0.9 * ms,
        p95_ms=1.2 * ms,
        best_ms=0.8 * ms,
        spread=0.1,
        images_per_s=1000 * batch / ms,
        repeats=9,
        warm_up=3,
        load_s=0.5,
        peak_mib=300.0,
        load_average=0.1,
        others=0.0,
    )


def row(model: str, ms: float, *, batch: int = 1) -> Result:
    return Result(
        Case(model, "torch", "fp32", batch, 1, "cpu"), timing_of(ms, batch=batch), "", "2030-01-01T00:00:00+00:00"
    )


def kept(folder: Path, *rows: Result) -> Results:
    results = Results(folder)
    results.claim(this_machine())
    for each in rows:
        results.append(each)
    return results


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()
