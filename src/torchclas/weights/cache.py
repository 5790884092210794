"""Where fetched and converted weights are kept.

`TORCHCLAS_CACHE` names the folder; otherwise it is `torchclas` in `XDG_CACHE_HOME` or `~/.cache`. It holds four
folders, and `clear` touches nothing else: `published`, files as fetched; `converted`, what was made of them;
`compiled`, a folder for each network with what engines run; and `data`, what was made of tar shards and Parquet files.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from torchclas.atomic import atomic_path, locked
from torchclas.errors import DownloadError, OutputError

_PUBLISHED = "published"
_CONVERTED = "converted"
_COMPILED = "compiled"
_DATA = "data"


BytesDone = Callable[[int, int | None], None]  # is told the bytes at hand, and in all (None where nobody knows)


def show_download(name: str) -> AbstractContextManager[BytesDone | None]:
    """What shows how a file arrives; the package puts the progress bar in its place."""
    return nullcontext()


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    path: Path
    size: int  # bytes
    partial: bool  # a download that was interrupted, and will be continued


def cache_dir() -> Path:
    """Return the folder of the cache, an absolute path; it need not exist yet."""
    if chosen := os.environ.get("TORCHCLAS_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "torchclas"


def published_path(url: str) -> Path:
    """Return where the file of `url` is kept; URLs that end in the same file name do not collide."""
    name = PurePosixPath(urlsplit(url).path)
    return cache_dir() / _PUBLISHED / f"{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{name.suffix}"


def cached_path(url: str, *, sha256: str | None = None) -> Path:
    """Return the file of `url`, fetched at the first call under the eyes of `show_download`.

    Raises:
        DownloadError: it is not in the cache and could not be fetched.
        OutputError: the cache cannot be written.
    """
    from torchclas.weights.download import fetch  # 0.1 s for requests, which what is here need not pay

    path = published_path(url)
    with show_download(PurePosixPath(urlsplit(url).path).name) as progress:
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
    """Return the file that `build` wrote to the path it was given when `key`, a file name, was first asked for.

    It is compared with what was written then, and made anew where it has changed.

    Raises:
        OutputError: the cache cannot be written.
        Error: what `build` raises.
    """
    path = converted_path(key)
    if not path.is_file():
        with writing(), locked(path):
            if not path.is_file():  # another process may have built it meanwhile
                with recording(path) as temporary:
                    build(temporary)
    elif is_intact(path) is False:
        with writing(), locked(path):
            if is_intact(path) is False:
                try:
                    with recording(path) as temporary:
                        build(temporary)
                except DownloadError as error:
                    raise DownloadError(f"{path} is damaged and has to be made anew: {error}") from error
    return path


# What the cache holds may change under us: disks fail, programs write over what is not theirs. A CRC finds that as
# surely as a longer sum, in a third of its time; whoever forges files can forge the sum beside them as well.


@contextmanager
def recording(path: Path) -> Generator[Path, None, None]:
    """`atomic_path`, which also notes what the file is: `is_intact` compares with that."""
    with atomic_path(path) as temporary:
        yield temporary
        sums = {path.name: _sum(temporary)}
    _write_record(path, sums)


def record(path: Path, *others: Path) -> None:
    """Note what a file that has just been written is, and others beside it that belong to it.

    Raises:
        OutputError: the cache cannot be written.
    """
    _write_record(path, {file.name: _sum(file) for file in (path, *others)})


def is_intact(path: Path) -> bool | None:
    """Whether a file, with those that belong to it, is as it was recorded; None where nothing was."""
    sums = _recorded(path)
    if sums is None:
        return None
    try:
        # Sizes first: they cost nothing, and most damage shows in them.
        if any(path.with_name(name).stat().st_size != size for name, (size, _) in sums.items()):
            return False
        return all(_sum(path.with_name(name)) == expected for name, expected in sums.items())
    except OSError:
        return False


def is_as_recorded(path: Path, content: memoryview) -> bool:
    """Whether `content`, which was read from `path`, is what was recorded for it."""
    sums = _recorded(path)
    return sums is not None and sums.get(path.name) == (len(content), zlib.crc32(content))


def record_path(path: Path) -> Path:
    """Where what was recorded for `path` is kept."""
    return path.with_name(f".{path.name}.sum")


def _write_record(path: Path, sums: dict[str, tuple[int, int]]) -> None:
    with atomic_path(record_path(path)) as temporary:
        temporary.write_text(json.dumps(sums), encoding="utf-8")


def _recorded(path: Path) -> dict[str, tuple[int, int]] | None:
    try:
        content = json.loads(record_path(path).read_bytes())
        return {str(Path(name).name): (int(size), int(crc)) for name, (size, crc) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _sum(path: Path) -> tuple[int, int]:
    """Size and CRC-32."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return size, crc


@contextmanager
def writing() -> Generator[None, None, None]:
    """Let an error about a cache that cannot be written say how to move it."""
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}; set TORCHCLAS_CACHE to a folder that can be written") from error


def entries() -> list[Entry]:
    """List the files of the cache, by folder and name."""
    files = [path for path in _files() if not path.name.startswith(".") and path.suffix not in (".json", ".seal")]
    return [Entry(path, path.stat().st_size, path.suffix == ".part") for path in files]


def clear() -> int:
    """Delete all files of the cache and return the number of bytes freed.

    Raises:
        OutputError: it cannot be written.
    """
    freed = sum(delete(path) for path in _files())
    for folder in (path for path in (cache_dir() / _COMPILED).glob("*") if path.is_dir()):
        with suppress(OSError):  # another process is writing to it
            folder.rmdir()
    return freed


def delete(path: Path) -> int:
    """Delete a file of the cache and return its size; 0 where there is none.

    Raises:
        OutputError: it cannot be deleted.
    """
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputError(f"{path}: cannot be deleted ({error.strerror}): is the cache read-only?") from error
    return size


def _checked(key: str) -> str:
    if not key or key != Path(key).name or key.startswith("."):
        raise ValueError(f"not a file name: {key!r}")
    return key


def _files() -> list[Path]:
    folders = [cache_dir() / name for name in (_CONVERTED, _PUBLISHED, _COMPILED, _DATA)]
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
