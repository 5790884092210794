"""Where fetched and converted weights are kept.

`TORCHCLAS_CACHE` names the folder; otherwise it is `torchclas` in `XDG_CACHE_HOME` or `~/.cache`. It holds four
folders, and `clear` touches nothing else: `published`, files as fetched; `converted`, what was made of them;
`compiled`, a folder for each network with what engines run; and `data`, what was made of tar shards and Parquet files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from torchclas.atomic import atomic_path, locked

_PUBLISHED = "published"
_CONVERTED = "converted"
_COMPILED = "compiled"
_DATA = "data"


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    path: Path
    size: int  # bytes
    partial: bool  # a download that was interrupted, and will be continued


def cache_dir() -> Path:
    """Return the folder of the cache, which need not exist yet."""
    if chosen := os.environ.get("TORCHCLAS_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "torchclas"


def published_path(url: str) -> Path:
    """Return where the file of `url` is kept; URLs that end in the same file name do not collide."""
    name = PurePosixPath(urlsplit(url).path)
    return cache_dir() / _PUBLISHED / f"{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{name.suffix}"


def cached_path(url: str, *, sha256: str | None = None) -> Path:
    """Return the file of `url`, fetched at the first call; a progress bar shows on a terminal.

    Raises:
        DownloadError: it is not in the cache and could not be fetched.
        OutputError: the cache cannot be written.
    """
    from torchclas.weights.download import fetch, progress_bar  # 0.1 s for requests, which what is here need not pay

    path = published_path(url)
    with progress_bar(PurePosixPath(urlsplit(url).path).name) as progress:
        return fetch(url, path, sha256=sha256, progress=progress)


def converted_path(key: str) -> Path:
    """Return where `cached_file` keeps `key`, a file name."""
    return cache_dir() / _CONVERTED / _checked(key)


def compiled_folder(key: str) -> Path:
    """Return where what engines run of one network is kept; `key` names the network, its weights and its makers."""
    return cache_dir() / _COMPILED / _checked(key)


def data_path(key: str) -> Path:
    """Return where `key`, a file that was made of data, is kept."""
    return cache_dir() / _DATA / _checked(key)


def cached_file(key: str, build: Callable[[Path], None]) -> Path:
    """Return the file that `build` wrote to the path it was given when `key`, a file name, was first asked for."""
    path = converted_path(key)
    if not path.is_file():
        with locked(path):
            if not path.is_file():  # another process may have built it meanwhile
                with atomic_path(path) as temporary:
                    build(temporary)
    return path


def entries() -> list[Entry]:
    """List the files of the cache, by folder and name."""
    files = [path for path in _files() if not path.name.startswith(".") and path.suffix not in (".json", ".seal")]
    return [Entry(path, path.stat().st_size, path.suffix == ".part") for path in files]


def clear() -> int:
    """Delete all files of the cache and return the number of bytes freed."""
    freed = 0
    for path in _files():
        freed += path.stat().st_size
        path.unlink()
    for folder in (path for path in (cache_dir() / _COMPILED).glob("*") if path.is_dir()):
        folder.rmdir()
    return freed


def _checked(key: str) -> str:
    if not key or key != Path(key).name or key.startswith("."):
        raise ValueError(f"not a file name: {key!r}")
    return key


def _files() -> list[Path]:
    folders = [cache_dir() / name for name in (_CONVERTED, _PUBLISHED, _COMPILED, _DATA)]
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
