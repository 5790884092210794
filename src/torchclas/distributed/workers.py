"""Workers of a Ray cluster that classify inputs into the parts of one output.

Each holds one model, in as many CPUs as it has threads, or on a GPU of its own. It is given some hundred names at a
time, and writes their rows into the work folder itself (`torchclas.inference.parts`), which all machines share; what
comes back is where they are. So neither names nor rows gather anywhere, and what a worker has written outlives it, its
machine and the command. Not Ray Data: its actors that wait for the CPUs of a machine that is gone keep what they were
given, and here others get it.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from torchclas.errors import Error, MissingDependencyError, OutputError
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.inference.parts import Part, RowFiles, open_part, parts_of, write_parts
from torchclas.inference.request import request_of
from torchclas.version import __version__
from torchclas.vocabulary import EngineName

UNIT = 512  # inputs that a worker is given at once, where there are enough of them
TRIES = 4  # times that the same inputs may end a worker, or workers may end while they begin
LOOK_SECONDS = 5.0  # between looks at whether there is room for more workers
REACH_SECONDS = 5.0


@dataclass(frozen=True)
class Cluster:
    """Where a command runs: on the cluster at `address`, which is `HOST:PORT`, `ray://HOST:PORT`, or `auto`.

    `auto` is the cluster that this machine belongs to, or else one of this machine alone for as long as the command
    runs. Workers compute with `threads` threads each, and on a GPU each where `device` is one, or is `auto` and the
    cluster has some.
    """

    address: str
    threads: int = 1
    device: str = "auto"


class ClusterError(Error):
    """A cluster that cannot be reached, or does not work."""


class _WorkerDied(Exception):  # noqa: N818 - no error that anybody is told of
    """A worker ended before it answered."""


@dataclass(frozen=True)
class Opened:
    """What a worker says of the model that it has opened: what decides its rows, and where it runs."""

    request: dict[str, object]
    top_k: int
    batch_size: int
    engine: EngineName
    node: str


@dataclass
class _Unit:
    """Consecutive inputs, of which the first has the number `start`; and how many workers have died over them."""

    start: int
    names: list[str]
    deaths: int = 0


class Worker:
    """One model in a process of the cluster."""

    def open(self, make_classifier: Callable[..., Classifier], work: Path, folder: Path) -> Opened:
        """Open the model; `folder` is the one to which names are relative.

        Raises:
            OutputError: this machine does not have the folders of the command.
        """
        import ray

        node: str = ray.util.get_node_ip_address()
        for needed in (work, folder):
            if not needed.is_dir():
                raise OutputError(
                    f"{needed} is not on the machine {node}: start the command in a folder, and name an output, on "
                    "storage that all machines share"
                )
        os.chdir(folder)
        self.work = work
        self.classifier = make_classifier()
        top_k, batch_size = self.classifier.top_k, self.classifier.batch_size
        return Opened(request_of(self.classifier), top_k, batch_size, self.classifier.engine.name, node)

    def add(self, files: RowFiles[Prediction], start: int, names: list[str], again: bool) -> list[Part]:
        """Write the rows of these inputs; those that a worker before wrote are taken up."""
        kept: list[Part] = []
        if again:
            end = start + len(names)
            for part in parts_of(self.work):
                if part.start == start and part.stop <= end:
                    kept.append(part)
                    names, start = names[part.stop - start :], part.stop

        def open_at(number: int) -> Any:
            return open_part(self.work, files, number)

        return kept + write_parts(
            open_at, start, self.classifier.batches(names), lambda batch: [*self.classifier.rows(batch)]
        )


class Workers:
    """The workers of one command, as many as the cluster has room for; made by `open_workers`."""

    def __init__(self, make_classifier: Callable[..., Classifier], work: Path, *, threads: int, gpus: float) -> None:
        import ray

        self._ray: Any = ray
        self._arguments: tuple[Any, ...] = make_classifier, work, Path.cwd()
        self._actor: Any = ray.remote(num_cpus=threads, num_gpus=gpus, max_restarts=0)(Worker)
        self._threads, self._gpus = threads, gpus
        self._opening: dict[Any, Any] = {}  # what they will say → worker
        self._busy: dict[Any, tuple[Any, _Unit]] = {}
        self._idle: list[Any] = []
        self._failures = 0  # of workers that began, one after the other
        self._looked = -LOOK_SECONDS
        self.first: Opened | None = None

    @property
    def room(self) -> int:
        """How many workers the machines of the cluster have room for."""
        machines: list[dict[str, float]] = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        rooms = [
            min(
                machine.get("CPU", 0) // self._threads,
                machine.get("GPU", 0) // self._gpus if self._gpus else float("inf"),
            )
            for machine in machines
        ]
        return int(sum(rooms))

    def unit(self, inputs: int | None, batch_size: int) -> int:
        """How many inputs a worker is given at once: whole batches, and so many that all workers have some."""
        fair = UNIT if inputs is None else min(UNIT, -(-inputs // (4 * max(1, self.room))))
        return -(-fair // batch_size) * batch_size

    def opened(self) -> Opened:
        """What the first worker says that has opened its model.

        Raises:
            ClusterError: there is no room for a worker, or none begins.
            Error: its model cannot be opened.
        """
        if not self.room:
            raise ClusterError(
                f"no machine of the cluster has room for a worker of {self._threads} threads and {self._gpus:g} GPUs: "
                "choose fewer --threads, or --device cpu"
            )
        while self.first is None:
            self._wait()
        return self.first

    def run(self, files: RowFiles[Prediction], units: Iterable[tuple[int, list[str]]]) -> Iterator[Part]:
        """Where the rows of the inputs are, in any order; `units` are asked for as workers become free.

        Raises:
            ClusterError: workers die again and again, or differ from the first one.
            Error: what a worker raises.
        """
        more, again = iter(units), deque[_Unit]()
        while True:
            while self._idle and (unit := again.popleft() if again else next(map(_unit, more), None)) is not None:
                worker = self._idle.pop()
                self._busy[worker.add.remote(files, unit.start, unit.names, unit.deaths > 0)] = worker, unit
            if not self._busy and self._idle:
                return
            for worker, unit, done in self._wait():
                try:
                    parts: list[Part] = self._get(done)
                except _WorkerDied as error:
                    unit.deaths += 1
                    if unit.deaths == TRIES:
                        raise ClusterError(
                            f"{TRIES} workers died over the inputs from {unit.names[0]} on: is there too little "
                            f"memory? More --threads make fewer workers ({error})"
                        ) from error
                    again.append(unit)
                else:
                    self._idle.append(worker)
                    yield from parts

    def _wait(self) -> list[tuple[Any, _Unit, Any]]:
        """Wait for something, for some seconds; returns what was done: worker, unit, result."""
        self._grow()
        pending = [*self._busy, *self._opening]
        if not pending:  # no machine is left for a worker; one may join
            time.sleep(LOOK_SECONDS)
            return []
        ready, _ = self._ray.wait(pending, num_returns=1, timeout=LOOK_SECONDS)
        for one in ready:
            if one in self._opening:
                self._admit(self._opening.pop(one), one)
        return [(*self._busy.pop(one), one) for one in ready if one in self._busy]

    def _grow(self) -> None:
        """Begin workers where there is room for more: one at first, whose engine the others take, too."""
        if time.monotonic() < self._looked + LOOK_SECONDS and (self._busy or self._opening):
            return
        self._looked = time.monotonic()
        wanted = self.room if self.first else 1
        for _ in range(wanted - len(self._busy) - len(self._opening) - len(self._idle)):
            worker = self._actor.remote()
            self._opening[worker.open.remote(*self._arguments)] = worker

    def _admit(self, worker: Any, opening: Any) -> None:
        """Take a worker that has begun among those that can be given something."""
        try:
            opened: Opened = self._get(opening)
        except _WorkerDied as error:
            self._failures += 1
            if self._failures == TRIES:
                raise ClusterError(f"{TRIES} workers died while they began ({error})") from error
            return
        self._failures = 0
        first = self.first.request if self.first else {**opened.request, "torchclas": __version__}
        for key, value in first.items():
            if opened.request.get(key) != value:
                raise ClusterError(
                    f"machines differ: {key} is {value} elsewhere and {opened.request.get(key)} on {opened.node}: make "
                    "them alike"
                )
        if self.first is None:  # of two engines that are as fast, each machine might choose another
            make_classifier, *folders = self._arguments
            self._arguments = partial(make_classifier, engine=opened.engine), *folders
            self.first, self._looked = opened, -LOOK_SECONDS
        self._idle.append(worker)

    def _get(self, result: Any) -> Any:
        try:
            return self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Error):
                raise error.cause from error
            raise
        except self._ray.exceptions.RayError as error:  # a process or a machine that is gone, or was out of memory
            raise _WorkerDied(_line(error)) from error


def _unit(unit: tuple[int, list[str]]) -> _Unit:
    return _Unit(*unit)


@contextmanager
def open_workers(
    cluster: Cluster, make_classifier: Callable[..., Classifier], work: Path
) -> Generator[Workers, None, None]:
    """Yield workers that write to the work folder `work`, each with a classifier, which is made there.

    Raises:
        MissingDependencyError: Ray is not installed.
        ClusterError: there is no cluster at this address, or it is of another version of Ray or Python.
    """
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", "'torchclas[cluster]'") from None
    module: Any = ray
    connected = module.is_initialized()
    if not connected:
        _connect(module, cluster.address)
    try:
        has_gpus = module.cluster_resources().get("GPU", 0) > 0
        gpus = 1 if cluster.device.startswith("cuda") or (cluster.device == "auto" and has_gpus) else 0
        yield Workers(make_classifier, work, threads=cluster.threads, gpus=gpus)
    finally:
        if not connected:
            module.shutdown()


def _connect(ray: Any, address: str) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing phones home
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray will have it, and no warning of that
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address != "auto":
        _reach(address)
    try:
        try:
            ray.init(address=address, **quiet)
        except ConnectionError:
            if address != "auto":
                raise
            ray.init(include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"{address}: the Ray cluster there cannot be used: {_line(error)}") from error


def _reach(address: str) -> None:
    """Raise `ClusterError` where nobody answers: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), REACH_SECONDS):
            return
    except ValueError:
        raise ClusterError(f"{address} is no address of a Ray cluster: give HOST:PORT, or auto") from None
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): `ray start --head` begins one, and says "
            "its address"
        ) from error


def _line(error: BaseException) -> str:
    """The first lines of an error of Ray's, which are followed by traces."""
    lines = takewhile(str.strip, str(error).strip().splitlines())
    return " ".join(" ".join(lines).split())[:300]
