"""Files whose reading may end the process: a crash inside an engine must not come back at every start."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None


class Attempt:
    """Reading a file that an engine made for itself, once it is known whether earlier attempts were survived.

    A file beside it has a letter for each step since it was last read to the end: it is being read (1), it was made
    anew after that was not survived (2), it is being read again (3). What was not survived twice is left alone. A lock
    tells a process that is reading right now from one that died.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.advisable = True
        self.file: int | None = None

    def __enter__(self) -> Attempt:
        try:
            self.file = os.open(_marker(self.path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError:  # in a cache that cannot be written there is nothing to be done
            return self
        if not _lock(self.file):  # another process is reading it, and watches
            os.close(self.file)
            self.file = None
            return self
        self.advisable = _steps(self.path) % 2 == 0
        if self.advisable:
            os.write(self.file, b".")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.file is None:
            return
        if self.advisable:
            with suppress(OSError):
                _marker(self.path).unlink()
        os.close(self.file)  # and with it the lock

    @staticmethod
    def may_be_kept(path: Path) -> bool:
        """Whether `path`, which has been made anew, may be written; to be asked once it has been made."""
        steps = _steps(path)
        if steps == 1:
            with suppress(OSError), _marker(path).open("ab") as file:
                file.write(b".")
        return steps < 3


def _marker(path: Path) -> Path:
    return path.with_name(f".{path.name}.reading")


def _steps(path: Path) -> int:
    try:
        return _marker(path).stat().st_size
    except OSError:
        return 0


def _lock(file: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
