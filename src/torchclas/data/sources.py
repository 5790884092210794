"""What the user names (files, folders, globs, URLs, a list on standard input) as a stream of single images."""

from __future__ import annotations

import glob
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from torchclas.data import stores
from torchclas.data.stores import StoreError, in_store
from torchclas.errors import DataError, ImageError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
    | {".heic", ".heif"}  # not decodable, but an error row says so where a silent gap would not
)

CONNECT_SECONDS, READ_SECONDS, DOWNLOAD_SECONDS = 5.0, 15.0, 60.0
MAX_DOWNLOAD_BYTES = 128 * 2**20
MAX_LISTING_BYTES = 32 * 2**20  # of a page that lists a folder
MAX_FILE_BYTES = 2**30
LARGE_FILE_BYTES = 2**24  # that are not read before a look at the first of them
MAX_NAME_BYTES = 2**20  # of a line of standard input; no system has names of a sixteenth of it


def expand(arguments: Iterable[str | Path], *, stdin: Iterable[str] | None = None) -> Iterator[str]:
    """Yield one path or URL per image that the arguments name, lazily and in order.

    - A folder stands for the images below it, in sorted order; names that begin with a dot are skipped.
    - A glob stands for its sorted matches.
    - An address in an object store stands for the image there, for those below it in the order of the store, or, with
      wildcards, for its matches; so does the address of a web server's listing that ends with a slash.
    - `-` stands for the lines of `stdin` (by default the process's standard input), each a file, folder, glob or URL.
    - Anything else stands for itself. So do a path that does not exist, a glob without a match, and a folder that
      is empty or unreadable: `read` then tells what is wrong, and the caller gets a row for it instead of a gap.

    Duplicates are kept.

    Raises DataError: an object store or a listing cannot be read.
    """
    for argument in map(str, arguments):
        if argument == "-":
            for line in _stdin_lines() if stdin is None else stdin:
                if name := line.rstrip("\r\n"):
                    yield from _expand_one(name)
        else:
            yield from _expand_one(argument)


def at_least_one(sources: Sequence[str], stdin: Iterable[str] | None = None) -> Iterator[str]:
    """What `expand` makes of the sources that a user named; raises `DataError` where they name nothing."""
    if not sources:
        raise DataError(
            "no images were named: give files, folders, globs or URLs, or - to read their names from standard input"
        )
    images = expand(sources, stdin=stdin)
    first = next(images, None)
    if first is None:
        raise DataError("standard input named no images: it should have one file, folder, glob or URL per line")
    return chain((first,), images)


def identity(file: str | Path | IO[str]) -> tuple[int, int] | None:
    """What tells files apart, whatever they are called; None where there is none."""
    try:
        status = os.stat(file) if isinstance(file, (str, Path)) else os.fstat(file.fileno())  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def read(
    source: str | Path,
    *,
    max_bytes: int = MAX_FILE_BYTES,
    max_download_bytes: int = MAX_DOWNLOAD_BYTES,
    accept: Callable[[bytes], object] | None = None,
) -> bytes:
    """Return the bytes behind a path, an http(s) URL or an address in an object store.

    A file of more than `max_bytes` is an error; of a large one `accept` is shown the start before the rest is read, and
    raises ImageError where it is none that could be used.

    A URL is fetched from wherever it points to, this machine and its network included: a server must not pass on
    URLs from its clients. Raises ImageError with the reason alone, without the source.
    """
    if in_store(source):
        try:
            return stores.read(str(source), max_bytes)
        except StoreError as error:
            raise ImageError(str(error)) from None
    if isinstance(source, str) and "://" in source:
        return _download(source, min(max_bytes, max_download_bytes))
    return _read_file(Path(source), max_bytes, accept)


def _stdin_lines() -> Iterator[str]:
    while True:
        try:
            line = sys.stdin.buffer.readline(MAX_NAME_BYTES)
        except OSError as error:
            raise DataError(f"standard input cannot be read: {error.strerror}") from None
        if len(line) == MAX_NAME_BYTES:
            raise DataError("standard input is not a list: it should have one file, folder, glob or URL per line")
        if not line:
            return
        yield os.fsdecode(line)  # file names need not be text in the locale's encoding


def _expand_one(argument: str) -> Iterator[str]:
    if in_store(argument):
        yield from _stored(argument)
    elif _is_url(argument):
        yield from _linked(argument) if argument.endswith("/") else (argument,)
    elif os.path.isdir(argument):  # noqa: PTH112 - plain strings: Path would rewrite ./names and cost 100,000 objects
        images = _walk(argument, ancestors=())
        first = next(images, None)
        yield argument if first is None else first
        yield from images
    elif any(character in argument for character in "*?[") and not os.path.lexists(argument):
        matches = sorted(glob.iglob(argument, recursive=True))  # noqa: PTH207
        for match in matches or [argument]:
            if match == argument:
                yield argument
            else:
                yield from _expand_one(match)
    else:
        yield argument


def _stored(address: str) -> Iterator[str]:
    """The images that an address in an object store stands for, or itself, which then becomes an error row."""
    pattern = stores.is_pattern(address)
    if not pattern and is_image(address):
        yield address
        return
    some = False
    try:
        for found in stores.matches(address) if pattern else stores.files(address):
            if is_image(found.url):
                some = True
                yield found.url
    except StoreError as error:
        raise DataError(f"{address}: {error}") from None
    if not some:
        yield address


def _linked(address: str, seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """The images that the page of a web server's listing leads to, and the pages below it; or else its address."""
    try:
        page = _download(address, MAX_LISTING_BYTES).decode("utf-8", "replace")
    except ImageError as error:
        raise DataError(f"{address}: {error}") from None
    folders, files = stores.linked(address, page)
    images = [file for file in files if is_image(file)]
    if not (folders or images or seen):
        yield address
    yield from images
    for folder in folders:
        if folder not in seen:
            yield from _linked(folder, seen | {address})


def is_image(address: str) -> bool:
    """Whether a file is called as images are."""
    return os.path.splitext(address)[1].lower() in SUFFIXES  # noqa: PTH122


def _walk(folder: str, ancestors: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Yield the images below a folder, sorted by name; a link back to an ancestor is not followed."""
    try:
        status = os.stat(folder)  # noqa: PTH116
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            return
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, leads_on)
                for entry in entries
                if not entry.name.startswith(".")
                and ((leads_on := is_folder(entry)) or os.path.splitext(entry.name)[1].lower() in SUFFIXES)  # noqa: PTH122
            )
    except OSError:
        yield folder  # becomes an error row
        return
    for name, leads_on in names:
        path = os.path.join(folder, name)  # noqa: PTH118
        if leads_on:
            yield from _walk(path, (*ancestors, identity))
        else:
            yield path


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself; if it is named like an image, its row says so
        return False


def _read_file(path: Path, max_bytes: int, accept: Callable[[bytes], object] | None) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"is a folder, not an image; it holds {_describe_folder(path)}")
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device may never end
            raise ImageError("is not a regular file")
        if status.st_size > LARGE_FILE_BYTES:
            with path.open("rb") as file:
                start = file.read(64)
                if accept is not None:
                    accept(start)
                if status.st_size > max_bytes:
                    raise ImageError(
                        f"is a file of {status.st_size:,} bytes, more than the {max_bytes:,} that an image within the "
                        "limit takes: make it smaller, or raise max_pixels (--max-pixels) if you trust it"
                    )
                return start + file.read()
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except PermissionError:
        raise ImageError("permission denied: make it readable for this user") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _describe_folder(path: Path) -> str:
    with os.scandir(path) as entries:
        kinds = Counter(
            "folders" if is_folder(entry) else Path(entry.name).suffix.lower() or "without suffix" for entry in entries
        )
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(5)) or "nothing"


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _download(url: str, max_bytes: int) -> bytes:
    if not _is_url(url):
        raise ImageError(f"{url.split('://')[0]}:// is not supported: give a file or an http(s) URL")
    import requests  # 0.1 s that runs without URLs need not pay

    from torchclas import http

    too_large = ImageError(f"is larger than the download limit of {max_bytes:,} bytes")
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = bytearray()

    def wait() -> float:
        return min(READ_SECONDS, deadline - time.monotonic())

    try:
        with http.get(url, headers={"User-Agent": "torchclas"}, connect=CONNECT_SECONDS, wait=wait) as answer:
            if answer.status >= 400:
                raise ImageError(f"the server answered {answer.status} {answer.reason}")
            if (answer.number("Content-Length") or 0) > max_bytes:
                raise too_large
            for chunk in answer.chunks:
                data += chunk
                if len(data) > max_bytes:
                    raise too_large
    except http.TooSlowError:
        if time.monotonic() >= deadline:
            raise ImageError(f"the download took longer than {DOWNLOAD_SECONDS:.0f} s") from None
        raise ImageError(f"{urlsplit(url).netloc} did not answer in time, or too slowly") from None
    except requests.Timeout:
        raise ImageError(f"{urlsplit(url).netloc} did not answer in time") from None
    except requests.exceptions.SSLError as error:
        problem = http.certificate_problem(error)
        raise ImageError(f"the certificate of {urlsplit(url).netloc} was not accepted ({problem})") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        raise ImageError(f"no connection to {urlsplit(url).netloc}, or it broke off") from None
    except (requests.RequestException, http.BadAnswerError) as error:
        raise ImageError(f"cannot be downloaded: {error}") from None
    return bytes(data)
