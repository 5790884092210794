"""One process that serves: opens the models, answers until it is asked to end, and ends when all is answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import warnings
from collections.abc import Callable, Generator
from pathlib import Path

import uvicorn

from torchclas.engines.machine import usable_threads
from torchclas.serving.access import Access, JsonHandler, Log, log_line
from torchclas.serving.app import create_app
from torchclas.serving.metrics import Metrics
from torchclas.serving.models import Registry
from torchclas.serving.options import ServeOptions

QUIET_SECONDS = 0.3  # without a request, after which a process that was asked to end does so
TICK_SECONDS = 0.05
KEEP_ALIVE_SECONDS = 75  # longer than load balancers keep a connection: one that ends under them is an error to them


class _Server(uvicorn.Server):
    """uvicorn, which would end at once at a signal, and then let the signal end the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to `Serving.stop`."""
        yield


class Serving:
    """The service of one process, with its models open. Raises what `torchclas.Classifier` does.

    `shared` is a file through which several such processes follow each other's loading and unloading of models.
    """

    def __init__(self, options: ServeOptions, *, shared: Path | None = None, log: Log = log_line) -> None:
        share = max(1, usable_threads() // options.workers)
        metrics = Metrics()
        self.options, self.log = options, log
        self.registry = Registry(options, metrics, threads=options.threads or share, shared=shared)
        self.registry.open_all()
        self.app: Access = create_app(options, self.registry, metrics, threads=share, log=log)
        self._server = _Server(
            uvicorn.Config(
                self.app,
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(options.deadline) + 5,
            )
        )
        self._asked = 0

    def run(self, bound: socket.socket, started: Callable[[], object]) -> None:
        """Serve on a bound socket until `stop`; `started` is called when requests are taken."""
        asyncio.run(self._run(bound, started))

    def stop(self, number: int = 0) -> None:
        """Be no longer ready, answer what comes until it is quiet, and end; at once where asked again.

        May be called in a handler of signals, or from another thread.
        """
        self._asked += 1
        self.app.close_connections()
        if self._asked > 1:
            self._server.should_exit = self._server.force_exit = True

    async def _run(self, bound: socket.socket, started: Callable[[], object]) -> None:
        serving = asyncio.create_task(self._server.serve(sockets=[bound]))
        while not (self._server.started or serving.done()):
            await asyncio.sleep(TICK_SECONDS)
        if not serving.done():
            started()
            await self._until_quiet(serving)
            self._server.should_exit = True
        await serving

    async def _until_quiet(self, serving: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while not self._asked and not serving.done():
            await asyncio.sleep(TICK_SECONDS)
        last = loop.time() + self.options.deadline  # of a client that never stops
        quiet = loop.time() + QUIET_SECONDS
        while loop.time() < min(last, quiet) and not serving.done():
            if self.app.running:
                quiet = loop.time() + QUIET_SECONDS
            await asyncio.sleep(TICK_SECONDS)


def bind(options: ServeOptions) -> socket.socket:
    """A socket that has the address of `options`, and does not listen yet; raises OSError."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # Only of a socket that says it is TCP does asyncio switch Nagle's algorithm off, with which the body of an answer
    # waits 40 ms for the client to acknowledge its head.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((options.host.strip("[]"), options.port))
    except OSError:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound


def address(bound: socket.socket) -> str:
    """The URL of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def log_as_json() -> None:
    """Let what torchclas, uvicorn and Python have to say be lines of the service's log."""
    logging.basicConfig(handlers=[JsonHandler()], level=logging.WARNING, force=True)
    logging.getLogger("torchclas").setLevel(logging.INFO)
    logging.captureWarnings(True)
    warnings.simplefilter("default")
