"""Time networks on this machine: one process per case, rows that outlive an interruption. Imports no torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from torchclas import catalog
from torchclas.engines import EngineName, Precision, installed
from torchclas.engines.machine import Machine, load_average, this_machine, usable_threads
from torchclas.errors import Error, MissingDependencyError
from torchclas.reporting.console import Console, escape
from torchclas.spec import find_model
from torchclas.tasks import timing
from torchclas.tasks.results import Case, Result, Results, Timing, Weights, published
from torchclas.weights.cache import cache_dir
from torchclas.weights.location import is_converted

LONGEST_CASE = 1800  # seconds, after which a process is taken for stuck
LOCK_PATIENCE = 2  # seconds
BUSY = 0.5  # load per thread
WIDE = 160  # columns of a table that no terminal limits


def cases(
    models: Sequence[str] = (),
    *,
    series: str | None = None,
    engines: Sequence[EngineName | Literal["auto"]] = ("auto",),
    precisions: Sequence[Precision] = ("fp32",),
    batches: Sequence[int] = (1,),
    threads: Sequence[int] | None = None,
    device: str = "auto",
) -> list[Case]:
    """Every combination, model by model. `models` are names, globs or files; without any, all that are published.

    `threads` is by default as many as this process may use. Raises `UnknownNameError`.
    """
    names = dict.fromkeys(name for model in models or ("*",) for name in _names(model, series))
    settings = product(engines, precisions, batches, threads or (usable_threads(),))
    return [Case(name, *setting, device) for name, setting in product(names, list(settings))]


def _names(model: str, series: str | None) -> Iterable[str]:
    if any(character in model for character in "*?["):
        found = [name for name in catalog.names(model, series=series) if catalog.find(name).weights is not None]
        if not found:
            catalog.find(model)  # says what is like it
        return found
    spec = find_model(model)
    return (model,) if spec.path is not None else (catalog.find(model).name,)


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
        if row is None or row.timing is None or installed().get(row.timing.ran) != row.timing.version:
            return None
        return row

    def measure(self, case: Case) -> Result:
        """Time a case and keep its row, which has the error where that failed."""
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
        row = Result(case, outcome if timed else None, "" if timed else outcome, finished)
        self.results.append(row)
        self.rows.pop(case, None)
        self.rows[case] = row
        return row

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
                escape(taken.remark),
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


def _weights(case: Case) -> Weights:
    """Which weights a case runs with: speed hardly depends on them, so nothing is fetched for it."""
    entry = published(case.model)
    if entry is None:
        return "own"
    if case.precision == "int8":  # needs calibration, and so weights that mean something
        return "published"
    if is_converted(entry):
        return "published"
    if entry.weights is None or not entry.weights.package:  # Python 3.10 finds some package under an empty name
        return "random"
    try:
        metadata.version(entry.weights.package.partition("==")[0])
    except metadata.PackageNotFoundError:
        return "random"
    return "published"


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
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    total = sum(map(_cost, due))
    done, spent, start = 0, 0.0, time.monotonic()
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal or not due) as bar:
        task = bar.add_task(_many(len(due)), total=total)

        def advance(row: Result) -> None:
            nonlocal done, spent
            done += 1
            spent += _cost(row.case)
            left = (time.monotonic() - start) / spent * (total - spent)
            remaining = "" if done == len(due) else f"  [dim]{_duration(left)} left[/]"
            said = (
                f"[red]{escape(row.error)}[/]"
                if row.timing is None
                else f"{figure(row.timing.median_ms)} ms, {figure(row.timing.images_per_s)} images/s"
            )
            bar.update(task, completed=spent)
            line = f"[dim]{done}/{len(due)}[/] {escape(str(row.case))}: {said}{remaining}"
            bar.console.print(line, highlight=False, soft_wrap=True)

        yield advance


def _cost(case: Case) -> float:
    """About the seconds a case takes, as far as that can be said beforehand: starting, and running at 50 GMAC/s."""
    entry = published(case.model)
    gflops = (entry.gflops if entry is not None else None) or 4.0
    return 10 + gflops / 2 + max(4.0, timing.MIN_REPEATS * case.batch * gflops / 50)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _pictures(results: Results, notes: Console) -> list[Path]:
    """Charts and the page, as far as what draws them is installed."""
    from torchclas.tasks import speed_charts, speed_page

    written: list[Path] = []
    for make in (speed_charts.write_charts, speed_page.write_page):
        try:
            written += make(results)
        except MissingDependencyError as error:
            notes.print(f"[yellow]Note:[/] {escape(str(error))}", soft_wrap=True)
    return written


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
