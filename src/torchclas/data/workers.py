"""Processes that read images: they end with the one that started them, and it is told what they fail at."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from torchclas import signals
from torchclas.errors import Error

IDLE = -1
SECONDS = 5.0  # that a process may take to end


class LoadingError(Error):
    """Images that could not be loaded, for a reason that is not in their files."""


class Failure(NamedTuple):
    """What came instead of an image: what to say of it, and the traceback."""

    message: str
    trace: str

    @classmethod
    def of(cls, error: Exception, name: str, where: str) -> Failure:
        """What to say of an error that preparing the image `name` met; `where` tells how to meet it again."""
        if is_shortage(error):
            message = f"{name}: no memory is left to read it: use fewer --workers, or a smaller --batch-size"
        elif isinstance(error, Error):
            message = f"{name}: {error}"
        else:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            message = (
                f"{name}: preparing this image failed with {what} ({where}): this is a bug of torchclas, "
                "please report it with the image and what --debug prints"
            )
        return cls(message, "".join(traceback.format_exception(error)))

    def error(self) -> LoadingError:
        """To be raised; the traceback is its cause."""
        error = LoadingError(self.message)
        error.__cause__ = _Trace(self.trace)
        return error


class _Trace(Exception):  # noqa: N818 - never raised
    """A traceback of another process, for --debug to show."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def is_shortage(error: BaseException) -> bool:
    """Whether an error, or what it came from, is a lack of memory, by its type or by the words of torch and OpenCV."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or any(words in text for words in ("Insufficient memory", "allocate memory", "out of memory", "shared memory"))
        or (error.__cause__ is not None and is_shortage(error.__cause__))
    )


class Workers:
    """The processes of a loader. They outlive neither this object nor the process that made it.

    A signal to the whole group, such as Ctrl-C, does not end them: whoever receives it saves first. So what ends them
    is a pipe, through which nothing is ever sent: it closes with this object, or with the process.
    """

    def __init__(self, count: int) -> None:
        self._processes: dict[int | None, BaseProcess] = {}
        # Of each worker: its process, and the place of the image that it is at, which may be what kills it.
        self.places = torch.full((count, 2), IDLE, dtype=torch.int64).share_memory_()
        self._reader, writer = multiprocessing.Pipe(duplex=False)
        # Not atexit, which comes later than multiprocessing's own waiting for all children.
        self._end = Finalize(self, writer.close, exitpriority=0)

    @property
    def start(self) -> Callable[[int], None]:
        """What each process must call first, with its number."""
        return partial(_start, self._reader, self.places)

    @contextmanager
    def adopted(self) -> Generator[None]:
        """Take charge of the processes that are started meanwhile."""
        before = {process.pid for process in multiprocessing.active_children()}
        yield
        started = (process for process in multiprocessing.active_children() if process.pid not in before)
        self._processes |= {process.pid: process for process in started}

    def close(self) -> None:
        """End the processes at once."""
        self._end()
        for process in self._processes.values():
            process.join(SECONDS)

    def death(self, name: Callable[[int], str]) -> LoadingError:
        """What to say when one has died; `name` says which image is at a place."""
        for pid, place in self.places.tolist():
            process = self._processes.get(pid)
            if process is None or process.is_alive():
                continue
            who = "a process that reads images" if place == IDLE else f"{name(place)}: the process that read it"
            code = process.exitcode or 0
            if code == -signal.SIGKILL:
                how = "was killed, as the system does when memory runs out: use fewer --workers"
            elif code == -signal.SIGBUS:
                how = "ran out of shared memory (/dev/shm): make that larger, or use --workers 0"
            else:
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return LoadingError(f"{who} {how}")
        return LoadingError("a process that reads images ended before it could begin: try --workers 0")


@contextmanager
def noted(places: Tensor | None, place: int) -> Generator[None]:
    """Let the main process know what this worker is at."""
    worker = get_worker_info()
    if places is None or worker is None:
        yield
        return
    places[worker.id, 1] = place
    yield
    places[worker.id, 1] = IDLE


def _start(parent: Connection, places: Tensor, worker: int) -> None:
    cv2.setNumThreads(1)  # the workers are the parallelism (torch limits its own threads there)
    for number in signals.ASKING:
        signal.signal(number, signal.SIG_IGN)
    places[worker, 0] = os.getpid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    # torch watches the parent of its workers as well. But that is the server that forks them, and it lives on.
    parent.poll(None)
    os._exit(1)
