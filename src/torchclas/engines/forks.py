"""Engines in a forked process, which is how gunicorn --preload, multiprocessing and Celery start their workers.

Of all threads a fork copies only the one that forks, and of the others the locks that they held. What an engine opened
before would wait for its threads for ever: when it runs, and when it is given back, at the process's exit at the
latest. So an engine leaves what it had opened alone there, and opens anew at its next call.
"""

from __future__ import annotations

import ctypes
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Reopening(ABC):
    """Base of engines with threads of their own, which a fork leaves behind."""

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._forked = False
        self._open()
        _reopening.add(self)

    @abstractmethod
    def _open(self) -> None:
        """Set the attributes that a fork makes useless; from then on the engine can run."""

    def _ready(self) -> None:
        """Open anew where this is the first call since a fork."""
        if self._forked:
            with self._opening:
                if self._forked:
                    self._open()
                    self._forked = False

    def _leave_behind(self) -> None:
        """In the new process: keep the native objects for good, since taking them down would wait for their threads."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.__dict__.copy()))
        self._opening = threading.Lock()
        self._forked = True


_reopening: WeakSet[Reopening] = WeakSet()


class _OpenMP:
    """Where code that uses OpenMP, as torch's does, can run in this process.

    The GNU library keeps a team of threads for each thread that has started one. The thread that forked finds its
    team gone, without knowing, and would wait for it for ever; any other thread starts a team of its own.
    """

    def __init__(self) -> None:
        self.forker: int | None = None  # the thread that goes on in a forked process
        self.substitute: ThreadPoolExecutor | None = None

    def run(self, function: Callable[[], T]) -> T:
        if threading.get_ident() != self.forker:
            return function()
        if self.substitute is None:
            self.substitute = ThreadPoolExecutor(1, thread_name_prefix="torchclas-after-fork")
        return self.substitute.submit(function).result()

    def forked(self) -> None:
        self.forker, self.substitute = threading.get_ident(), None


_openmp = _OpenMP()


def with_openmp(function: Callable[[], T]) -> T:
    """Call `function`, which uses torch, where it does not wait for threads that a fork has left behind."""
    return _openmp.run(function)


def _after_fork() -> None:
    _openmp.forked()
    for engine in list(_reopening):
        engine._leave_behind()  # pyright: ignore[reportPrivateUsage]


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
