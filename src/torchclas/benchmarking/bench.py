"""Time cases one after the other, a process for each, and keep rows that outlive an interruption. Imports no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from torchclas.benchmarking import timing
from torchclas.benchmarking.results import Case, Result, Results, Timing, Weights, published
from torchclas.engines import installed
from torchclas.engines.machine import this_machine, usable_threads
from torchclas.errors import Error
from torchclas.spec import find_model, named_models
from torchclas.vocabulary import EngineChoice, Precision
from torchclas.weights.cache import cache_dir
from torchclas.weights.location import is_converted

LONGEST_CASE = 1800  # seconds, after which a process is taken for stuck
LOCK_PATIENCE = 2  # seconds


def cases(
    models: Sequence[str] = (),
    *,
    series: str | None = None,
    engines: Sequence[EngineChoice] = ("auto",),
    precisions: Sequence[Precision] = ("fp32",),
    batches: Sequence[int] = (1,),
    threads: Sequence[int] | None = None,
    device: str = "auto",
) -> list[Case]:
    """Every combination, model by model. `models` are names, globs or files; without any, all that are published.

    `threads` is by default as many as this process may use. Raises `UnknownNameError`.
    """
    names = named_models(models or ("*",), series=series, having=lambda entry: entry.weights is not None)
    # A file that is not there should not be found missing hours later, nor a name on the Hub mean another one then.
    names = [str(find_model(name).address or name) for name in names]
    settings = product(engines, precisions, batches, threads or (usable_threads(),))
    return [Case(name, *setting, device) for name, setting in product(names, list(settings))]


class Bench:
    """Times cases on this machine and keeps their rows in a folder, by default one of the cache.

    Use it as a context manager; one process at a time has a folder.
    """

    def __init__(self, folder: Path | None = None, *, seconds: float = 3.0) -> None:
        self.machine = this_machine()
        self.results = Results(cache_dir() / "benchmark" / self.machine.id if folder is None else folder)
        self.seconds = seconds
        self._fresh = self.results.folder / ".fresh"
        self._fresh_model = ""
        self._prepared: set[Case | str] = set()
        self._lock = FileLock(self.results.folder / ".lock")

    def __enter__(self) -> Bench:
        self.results.claim(self.machine)
        try:
            # Not 0: a process that is killed while it starts another leaves its lock to that one for a moment.
            self._lock.acquire(timeout=LOCK_PATIENCE)
        except Timeout:
            raise Error(f"{self.results.folder}: another process is measuring into it; wait for its end") from None
        self._forget_fresh()  # what a killed process left
        self.rows = self.results.read()
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_fresh()
        self._lock.release()

    def known(self, case: Case) -> Result | None:
        """The row of a case that was timed here before, with the engine's version of now."""
        row = self.rows.get(case)
        return row if row is not None and _is_current(row) else None

    def measure(self, case: Case) -> Result:
        """Time a case and keep its row, which has the error where that failed.

        Where the same network was timed under the name of other weights, that row is taken, with a remark.
        """
        twin = self._twin(case)
        return self._keep(self._time(case) if twin is None else twin)

    def _twin(self, case: Case) -> Result | None:
        """The row of a case as this one but for the values of the weights."""
        network = _network(case)
        for row in self.rows.values() if network is not None else ():
            if row.timing and not row.timing.timed_as and _network(row.case) == network and _is_current(row):
                return replace(row, case=case, timing=replace(row.timing, timed_as=row.case.model))
        return None

    def _keep(self, row: Result) -> Result:
        self.results.append(row)
        self.rows.pop(row.case, None)
        self.rows[row.case] = row
        return row

    def _time(self, case: Case) -> Result:
        outcome: Timing | str
        prepare_s = None
        weights = _weights(case)
        if weights == "random" and case.model != self._fresh_model:
            self._forget_fresh()
            self._fresh_model = case.model
        fresh = self._fresh / f"{case.model}.safetensors" if weights == "random" else None
        task = timing.Task(case, weights, self.seconds, None if fresh is None else str(fresh))
        try:
            # What a first start makes, such as an exported file, must not count as memory or time of later ones. Plain
            # torch makes nothing but the file of weights.
            preparation = case.model if case.engine == "torch" else case
            needless = case.engine == "torch" and weights == "own"
            if not needless and preparation not in self._prepared:
                prepare_s = self._run(replace(task, prepare=True))["prepare_s"]
                self._prepared.add(preparation)
            outcome = replace(Timing(**self._run(task)["timing"]), prepare_s=prepare_s)
        except Error as error:
            outcome = str(error)
        finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
        timed = isinstance(outcome, Timing)
        return Result(case, outcome if timed else None, "" if timed else outcome, finished)

    def _run(self, task: timing.Task) -> dict[str, Any]:
        """What a process of its own answers; raises `Error` with its error, or with how it ended."""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(task.case.threads),
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "0"),
        }
        if task.fresh is not None:  # what is made of random weights is not worth keeping
            environment["TORCHCLAS_CACHE"] = str(self._fresh)
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
            process = subprocess.Popen(
                [sys.executable, "-m", timing.__name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=environment,
                text=True,
            )
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(task.to_json() + "\n")
                process.stdin.flush()  # and not closed: its end would tell the process that we are gone
                answer = _answer(process)
            finally:
                process.kill()
                process.wait()
                process.stdin.close()
                process.stdout.close()
            complaints.seek(0)
            complaint = complaints.read().strip().rpartition("\n")[2]
        if "error" in answer:
            raise Error(answer["error"] if not complaint else f"{answer['error']} ({complaint})")
        return answer

    def _forget_fresh(self) -> None:
        shutil.rmtree(self._fresh, ignore_errors=True)
        self._fresh_model = ""


def _is_current(row: Result) -> bool:
    return row.timing is not None and installed().get(row.timing.ran) == row.timing.version


def _network(case: Case) -> tuple[object, ...] | None:
    """What the time of a case depends on; None where that is not known to be the same for any other name.

    In int8 it depends on the weights, as they decide which layers stay in float.
    """
    entry = published(case.model)
    if entry is None or case.precision == "int8":
        return None
    return entry.arch, entry.preset.size, entry.num_classes, replace(case, model="")


def _weights(case: Case) -> Weights:
    """Which weights a case runs with: speed hardly depends on them, so nothing is fetched for it."""
    entry = published(case.model)
    if entry is None:
        return "own"
    if case.precision == "int8":  # needs calibration, and so weights that mean something
        return "published"
    if is_converted(entry):
        return "published"
    package = (entry.weights.package if entry.weights else None) or ""
    if not package:  # of which Python 3.10 would find a version
        return "random"
    try:
        return "published" if metadata.version(package.partition("==")[0]) else "random"
    except metadata.PackageNotFoundError:
        return "random"


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The line of JSON that a process ends with; an `error` that says how it ended where there is none."""
    assert process.stdout is not None
    stuck = threading.Event()

    def stop() -> None:
        stuck.set()
        process.kill()

    timer = threading.Timer(LONGEST_CASE, stop)
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    if line:
        return json.loads(line)
    code = process.wait()
    if stuck.is_set():
        return {"error": f"not done after {LONGEST_CASE // 60} minutes"}
    if code == -9:
        return {"error": "the system killed the process, most likely because memory ran out"}
    return {"error": f"the process ended with code {code}"}
