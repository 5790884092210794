"""What is made of a data file once and kept in the cache: indexes of tar shards, copies of Parquet files.

Nothing is ever written beside a user's data. What is kept carries in its name which file it was made of, and in which
state: a file that is replaced by another, newer or older, gets its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from torchclas.errors import DataError


def kept_path(source: Path, suffix: str) -> Path:
    """Where what is made of `source` as it is now is kept.

    Raises:
        DataError: there is no such file.
    """
    from torchclas.weights.cache import data_path  # and with it what downloads weights

    try:
        state = _state(source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from None
    place = _digest(os.fsencode(source.resolve()))
    return data_path(f"{source.stem[:40].lstrip('.')}-{place}-{_digest(json.dumps(state).encode())}{suffix}")


def seal(kept: Path, source: Path) -> None:
    """Note that `kept` is whole, and remove what was made of earlier states of `source`.

    Raises:
        DataError: `source` was changed while it was read.
    """
    if kept_path(source, kept.suffix) != kept:
        raise DataError(f"{source}: was changed while it was read: try again")
    _seal_of(kept).write_text(json.dumps(_state(kept)), encoding="utf-8")
    made_of_source = f"-{kept.stem.split('-')[-2]}-"
    for path in kept.parent.iterdir():
        is_temporary = path.name.startswith(".") and path.suffix != ".lock"
        if made_of_source in path.name and kept.name not in path.name and not is_temporary:
            _remove(path)


def is_sealed(kept: Path) -> bool:
    """Whether `kept` is there and was not touched since it was made."""
    try:
        return json.loads(_seal_of(kept).read_bytes()) == _state(kept)
    except (OSError, ValueError, RecursionError):
        return False


def break_seal(kept: Path) -> None:
    """Have `kept` made anew: it is damaged."""
    _remove(_seal_of(kept))


def _seal_of(kept: Path) -> Path:
    return kept.with_name(f"{kept.name}.seal")


def _state(path: Path) -> list[int]:
    """What changes with a file's content, however it is copied or renamed and whatever time it is given."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # in use, on Windows: `torchclas weights clear` removes it later
        path.unlink(missing_ok=True)
