"""Files that appear under their name complete or not at all, and are made by one process at a time."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from torchclas.errors import Error, OutputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Generator[Path, None, None]:
    """Yield a temporary path beside `path` (same suffix) to write to; it takes the place of `path` on success.

    Missing folders are made. The temporary file exists already, empty: a place that cannot be written is told before
    the work, not after it. Whatever mode its writer gives the file, it ends with that of any new file (umask). On any
    error it is removed and `path` stays as it was.

    Raises:
        OutputError: the disk is full, or `path` cannot be written.
    """
    path = Path(path)
    # Not tempfile: its files are readable by their owner alone, and stay so after the rename.
    temporary = path.with_name(f".{path.stem[:64]}.{uuid.uuid4().hex[:12]}{path.suffix}")
    _make_folder(path.parent)
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)  # safetensors' writer makes a file that nobody else can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except Error:
        raise
    except Exception as error:
        if disk_is_full(error, path.parent):
            raise OutputError(f"{path}: the disk is full: free some space or choose another place") from error
        if isinstance(error, OSError) and error.filename in (str(temporary), str(path)):
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    finally:
        with suppress(OSError):  # on a read-only file system removing a file fails even where there is none
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Generator[None, None, None]:
    """Keep other processes that ask for the same out while `path` is being made; they wait.

    Raises:
        OutputError: the folder of `path` cannot be written.
    """
    from filelock import FileLock  # imports asyncio and SQLite

    _make_folder(path.parent)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire()
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone(path: Path, otherwise: str) -> Generator[None, None, None]:
    """Hold `path`, an empty file that goes with the block, as no other process can at the same time.

    The system ends the hold with the process, however that dies. Where a file system has no locks, nobody is kept out.

    Raises:
        OutputError: another process holds it (that is `otherwise`), or it cannot be made.
    """
    file = _held(path, otherwise)
    try:
        yield
    finally:
        if os.name == "nt":  # where an open file cannot be removed
            os.close(file)
            path.unlink(missing_ok=True)
        else:  # removed while it is held: who opens it later makes another
            path.unlink(missing_ok=True)
            os.close(file)


def _held(path: Path, otherwise: str) -> int:
    while True:
        _make_folder(path.parent)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # who had the folder has removed it meanwhile
            continue
        except OSError as error:
            raise OutputError(f"{path.parent}: cannot be written: {error.strerror}") from error
        if not _lock(file):
            os.close(file)
            raise OutputError(otherwise)
        try:
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            pass
        os.close(file)  # it was removed between the two steps, and keeps nobody out


def _lock(file: int) -> bool:
    """Lock an open file unless another process has it; not filelock, whose import takes longer than some pictures."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
    return True


def need_space(path: Path, size: int) -> None:
    """Raise `OutputError` where the disk has no room for a file of `size` bytes at `path`.

    To be asked before writers that make a half-written file of a full disk, or an error that does not name it.
    """
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise OutputError(
            f"{path.parent}: {size / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free: free some space or "
            "choose another place"
        )


def disk_is_full(error: Exception, folder: Path) -> bool:
    """Say whether `error`, met while writing into `folder`, came from a full disk (or quota)."""
    if isinstance(error, OSError):
        return error.errno in _NO_SPACE
    # Writers such as safetensors' and torch's wrap the system's error: their words, or else the disk itself, tell.
    return "No space left on device" in str(error) or shutil.disk_usage(folder).free < 2**20


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}") from error
