"""Time one network with one engine, in a process of its own.

A process that has timed one case is no place to time another: caches are warm, threads are bound, memory is taken. So
`python -m torchclas.benchmarking.timing` takes one `Task` from standard input as a line of JSON, and writes its outcome
to standard output the same way.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchclas.benchmarking.results import Case, Timing, Weights, published
from torchclas.engines import Engine, installed, open_engine
from torchclas.engines.machine import busy_seconds, load_average, this_machine
from torchclas.errors import Error
from torchclas.spec import ModelSpec, find_model

MIN_REPEATS, MAX_REPEATS = 7, 10_000
PATIENCE, GAIN = 5, 0.97  # an engine is warm when five runs in a row were no 3 % faster
OURS = Path(__file__).parents[1]  # whose warnings are about the case
BUSY = 0.15  # cores: beyond it others had a share in what was measured


@dataclass(frozen=True)
class Task:
    """What one process does: time `case` for about `seconds`, or only `prepare` what engines keep between starts.

    `fresh` is the file of random weights that take the place of the published ones; it is made where it is missing.
    """

    case: Case
    weights: Weights
    seconds: float
    fresh: str | None = None
    prepare: bool = False

    @classmethod
    def from_json(cls, line: str) -> Task:
        """Inverse of `to_json`."""
        values: dict[str, Any] = json.loads(line)
        values["case"] = Case(**values["case"])
        return cls(**values)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def time_case(task: Task) -> Timing:
    """Open the engine, warm it up, and time one batch again and again."""
    case, spec = task.case, _spec(task)
    with warnings.catch_warnings(record=True) as warned:
        start = time.perf_counter()
        engine = _open(task, spec)
        load_s = time.perf_counter() - start
    images = np.random.default_rng(0).standard_normal((case.batch, spec.in_channels, *spec.preset.size), np.float32)

    def run() -> float:
        start = time.perf_counter()
        engine(images)
        return time.perf_counter() - start

    finite = bool(np.isfinite(engine(images)).all())
    load, busy, own, wall = load_average(), busy_seconds(), time.process_time(), time.perf_counter()
    warm_up = warm(run, task.seconds)
    seconds = repeat(run, task.seconds)
    others = None
    if busy is not None and (now := busy_seconds()) is not None:
        others = max(0.0, now - busy - (time.process_time() - own)) / (time.perf_counter() - wall)
    milliseconds = 1000 * np.array(seconds)
    p5, p25, median, p75, p95 = (float(value) for value in np.percentile(milliseconds, (5, 25, 50, 75, 95)))
    remarks = [
        *([] if others is None or others < BUSY else ["the machine was busy"]),
        *([] if finite else ["logits are not finite"]),
        *(str(each.message) for each in warned if Path(each.filename).is_relative_to(OURS)),
    ]
    timing = Timing(
        ran=engine.name,
        version=installed()[engine.name],
        hardware=_hardware(engine, case.device),
        weights=task.weights,
        median_ms=median,
        p5_ms=p5,
        p95_ms=p95,
        best_ms=float(milliseconds.min()),
        spread=(p75 - p25) / median,
        images_per_s=1000 * case.batch / median,
        repeats=len(seconds),
        warm_up=warm_up + 1,
        load_s=load_s,
        peak_mib=peak_mebibytes(),
        load_average=load,
        others=others,
        remark=", ".join(remarks),
    )
    engine.close()
    return timing


def warm(run: Callable[[], float], limit: float) -> int:
    """Run until it no longer gets faster, for `limit` seconds at most; returns how often that was."""
    best, runs, stale, start = math.inf, 0, 0, time.perf_counter()
    while stale < PATIENCE and (runs < 2 or time.perf_counter() - start < limit):
        seconds = run()
        runs += 1
        best, stale = (seconds, 0) if seconds < GAIN * best else (best, stale + 1)
    return runs


def repeat(run: Callable[[], float], limit: float) -> list[float]:
    """The seconds that each run takes, for `limit` seconds, and longer where that is too few runs to tell."""
    seconds: list[float] = []
    start = time.perf_counter()
    while len(seconds) < MIN_REPEATS or (time.perf_counter() - start < limit and len(seconds) < MAX_REPEATS):
        seconds.append(run())
    return seconds


def peak_mebibytes() -> float | None:
    """The most memory that this process has held so far; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent held when it forked
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _spec(task: Task) -> ModelSpec:
    if task.fresh is None:
        return find_model(task.case.model)
    path = Path(task.fresh)
    if not path.is_file():
        from torchclas.benchmarking.fresh_weights import write_fresh_weights

        entry = published(task.case.model)
        assert entry is not None, "files have weights of their own"
        write_fresh_weights(entry, path)
    return find_model(task.case.model, weights=path)


def _open(task: Task, spec: ModelSpec) -> Engine:
    case = task.case
    return open_engine(
        spec,
        case.engine,
        precision=case.precision,
        threads=case.threads,
        batch_size=case.batch,
        device=case.device,
    )


def _hardware(engine: Engine, device: str) -> str:
    if engine.name in ("torch", "compile") and device != "cpu":
        import torch

        if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
            return torch.cuda.get_device_name(None if device == "auto" else device)
        if device != "auto":
            return device
    return this_machine().cpu


def _prepare(task: Task) -> float:
    """Let the engine make all that it keeps for later starts; the seconds that took."""
    spec = _spec(task)
    start = time.perf_counter()
    _open(task, spec).close()
    return time.perf_counter() - start


def _leave_with_parent() -> None:
    """A benchmark that was killed must not go on timing, least of all beside the one that takes over."""
    sys.stdin.buffer.read()
    os._exit(1)


def _main() -> None:
    # Libraries may print; what the parent reads is this process's word alone.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    task = Task.from_json(sys.stdin.readline())
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    outcome: dict[str, Any]
    try:
        outcome = {"prepare_s": _prepare(task)} if task.prepare else {"timing": asdict(time_case(task))}
    except Error as error:
        outcome = {"error": str(error)}
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    answer.write(json.dumps(outcome) + "\n")
    answer.flush()
    os._exit(0)  # engines' threads need not be waited for


if __name__ == "__main__":
    _main()
