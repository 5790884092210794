"""`torchclas serve`: binds the address, and serves in this process or in several that share the socket."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from torchclas import signals
from torchclas.errors import Error
from torchclas.serving.metrics import FOLDER
from torchclas.serving.options import ServeOptions

SHORT_SECONDS = 10.0  # a process that lived no longer is started again after a while only
LONGEST_PAUSE = 30.0
END_SECONDS = 10.0  # that processes have to end beyond what requests may take
TICK_SECONDS = 0.2
FAILED = 2  # exit code


def serve(options: ServeOptions) -> int:
    """Serve until a signal asks to end; returns the exit code.

    Raises:
        Error: the address cannot be had, or a model cannot be opened; what `ServeOptions.token` raises.
    """
    from torchclas.serving import server
    from torchclas.serving.sources import pinned, sources

    options.token()
    options = pinned(options)  # mistakes are told before anything is opened
    names = [source.name for source in sources(options)]
    try:
        bound = server.bind(options)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise Error(f"{where} cannot be used ({error.strerror}): choose another --host or --port") from None
    with closing(bound):
        if options.workers > 1:
            return _Several(options, bound, names).run()
        server.log_as_json()
        serving = server.Serving(options)
        with signals.handled(serving.stop):
            serving.run(bound, lambda: _announce(bound, names))
    return 0


def _announce(bound: socket.socket, names: list[str]) -> None:
    from torchclas.serving.server import address

    _log({"event": "listening", "url": address(bound), "models": names, "pid": os.getpid()})


class _Place:
    """The place of one process: the one that has it, or when the next one gets it."""

    def __init__(self, parent: _Several) -> None:
        self._parent, self._pause = parent, 0.0
        self.process: BaseProcess | None = None
        self.has_started = False  # takes requests
        self._due = 0.0
        self._begin()

    def look(self) -> None:
        """Note what has happened to the process; start the next one when it is due."""
        if self.process is None:
            if time.monotonic() >= self._due:
                self._begin()
            return
        if not self.has_started and self._ready.poll():
            with suppress(EOFError):
                self.has_started = self._ready.recv()

    def bury(self) -> None:
        """Make room for another one after one that died: soon, or later if it has not lived long."""
        process = self.process
        if process is None:
            return
        lived = time.monotonic() - self._begun
        self._pause = 0.0 if lived > SHORT_SECONDS else min(max(1.0, 2 * self._pause), LONGEST_PAUSE)
        self._due = time.monotonic() + self._pause
        mark_process_dead(process.pid)
        _log({"event": "died", "pid": process.pid, "exit": process.exitcode, "again_in": self._pause})
        self.process, self.has_started = None, False

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready, sender = context.Pipe(duplex=False)
        parent = self._parent
        # Not a daemon: such processes may not start others, which torch's compiler does.
        self.process = context.Process(target=_work, args=(parent.options, parent.bound, parent.shared, sender))
        self.process.start()
        sender.close()
        self._begun = time.monotonic()


class _Several:
    """The parent of processes that serve: starts them, starts another for one that died, and ends them."""

    def __init__(self, options: ServeOptions, bound: socket.socket, names: list[str]) -> None:
        self.options, self.bound, self.names = options, bound, names
        self.shared = Path()
        self._places: list[_Place] = []
        self._stopping = False

    def run(self) -> int:
        """Keep them running until a signal; returns the exit code."""
        with tempfile.TemporaryDirectory(prefix="torchclas-serve-") as folder, signals.handled(self._stop):
            (figures := Path(folder, "figures")).mkdir()
            self.shared = Path(folder, "orders.json")
            os.environ[FOLDER] = str(figures)
            try:
                self._places = [_Place(self) for _ in range(self.options.workers)]
                return self._watch()
            finally:
                for process in self._processes:
                    process.kill()
                    process.join()
                del os.environ[FOLDER]

    @property
    def _processes(self) -> list[BaseProcess]:
        return [place.process for place in self._places if place.process is not None]

    def _watch(self) -> int:
        announced = failed = False
        while not self._stopping:
            connection.wait([process.sentinel for process in self._processes], TICK_SECONDS)
            for place in self._places:
                place.look()
                if self._stopping or place.process is None or place.process.is_alive():
                    continue
                if not announced and not place.has_started:  # it has said why; the others cannot begin, either
                    failed = True
                    self._stop()
                place.bury()
            if not announced and all(place.has_started for place in self._places):
                announced = True
                _announce(self.bound, self.names)
        until = time.monotonic() + 2 * self.options.deadline + END_SECONDS
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))
        return FAILED if failed or any(process.exitcode for process in self._processes) else 0

    def _stop(self, number: int = 0) -> None:
        self._stopping = True
        for process in self._processes:
            if process.is_alive():
                process.terminate()


def _work(options: ServeOptions, bound: socket.socket, shared: Path, ready: Connection) -> None:
    """One of the processes."""
    from torchclas.serving import server

    for number in signals.ASKING:  # the parent passes on what a terminal sends to all of them
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    server.log_as_json()
    try:
        with signals.handled(_leave):
            serving = server.Serving(options, shared=shared)
    except Error as error:
        _log({"event": "failed", "message": str(error)})
        raise SystemExit(FAILED) from None
    threading.Thread(target=_end_with_parent, args=(serving.stop,), daemon=True).start()
    with signals.handled(serving.stop):
        serving.run(bound, lambda: _report(ready))


def _report(ready: Connection) -> None:
    _log({"event": "started", "pid": os.getpid()})
    ready.send(True)


def _leave(number: int) -> None:
    os._exit(0)  # nobody waits for an answer yet


def _end_with_parent(stop: Callable[[], object]) -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        stop()


def _log(values: dict[str, Any]) -> None:
    from torchclas.serving.access import log_line

    log_line(values)
