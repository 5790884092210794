"""Ctrl-C and its like, one way for every long task.

SIGINT, SIGTERM and SIGHUP ask a process to end: a person, the system, a terminal that is closed. A task does one of
three things with them: it ends where it is and cleans up (`as_interrupts`), it first completes what would otherwise be
spoilt (`held_back`), or it looks from time to time whether it has been asked (`collected`).

What the process was started to ignore (SIGINT in a job that a script put behind it, SIGHUP under nohup) stays ignored.
Outside of the main thread, which alone gets signals, nothing is done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ASKING = tuple(number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)))


class Stopped(KeyboardInterrupt):
    """The process was asked to end by the signal `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def as_interrupts() -> Generator[None, None, None]:
    """Let each of the signals raise `Stopped` in the block, as Ctrl-C raises its base class KeyboardInterrupt."""

    def stop(number: int) -> None:
        raise Stopped(number)

    with handled(stop):
        yield


@contextmanager
def held_back() -> Generator[None, None, None]:
    """Hold signals back until the block is complete: a half-written row or footer would spoil a file."""
    received: list[int] = []
    with handled(received.append) as previous:
        yield
    if received:
        handler = previous[received[0]]
        if callable(handler):
            handler(received[0], None)
        else:
            signal.raise_signal(received[0])


@contextmanager
def collected() -> Generator[list[int], None, None]:
    """Yield the list of signals received so far; the second of a kind has the effect that it had before the block."""
    received: list[int] = []

    def receive(number: int) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    with handled(receive) as previous:
        yield received


@contextmanager
def handled(receive: Callable[[int], None]) -> Generator[dict[int, Any], None, None]:
    """Call `receive` with the number of each signal that arrives; yields the handlers that come back afterwards."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # None: a handler that was not set from Python, and which Python could not put back.
        passed_over = (signal.SIG_IGN, None)
        handlers = {number: signal.getsignal(number) for number in ASKING}
        previous = {number: handler for number, handler in handlers.items() if handler not in passed_over}

    def handler(number: int, frame: FrameType | None) -> None:
        receive(number)

    for number in previous:
        signal.signal(number, handler)
    try:
        yield previous
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
