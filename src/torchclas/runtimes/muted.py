"""Silence for a moment: runtimes print remarks for their makers, and have no setting against it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

STDOUT, STDERR = 1, 2


@contextmanager
def muted(descriptor: int) -> Generator[None, None, None]:
    """Drop what is written to `STDOUT` or `STDERR` meanwhile, by C too; for what takes a moment and is done once."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        kept = os.dup(descriptor)
    except OSError:  # it is closed
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
        yield
    finally:
        if sys.platform != "win32":
            ctypes.CDLL(None).fflush(None)  # C keeps it until there is a page of it
        os.dup2(kept, descriptor)
        os.close(kept)
