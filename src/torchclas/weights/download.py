"""Fetches published files over HTTP, such that an interruption costs no more than what was under way.

`TORCHCLAS_MIRROR` is a base URL that takes the place of scheme and host of every published URL; with
`TORCHCLAS_OFFLINE=1` nothing here touches the network. Proxies are those of `HTTPS_PROXY` and its like.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import requests

from torchclas.atomic import atomic_path, disk_is_full, locked
from torchclas.errors import CheckpointError, DownloadError, OutputError

Progress = Callable[[int, int | None], None]
"""Called with the bytes at hand and the bytes in all (None where the server does not say)."""

_ATTEMPTS = 5  # in a row without progress
_TIMEOUT = (10, 60)  # seconds to connect, and between two packets
_CHUNK = 2**16  # bytes; what a broken connection may lose


@dataclass(frozen=True)
class Record:
    """What a fetched file was when it arrived; kept in a JSON file beside it."""

    url: str
    size: int
    sha256: str


def fetch(
    url: str,
    destination: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Path:
    """Fetch `url` to `destination`, unless it is there, and return its path.

    What arrives is kept in a `.part` file and continued by the next attempt or call, provided that the file on the
    server is still the same. Parallel calls for one destination, of other processes too, fetch it once.

    Raises:
        DownloadError: the file could not be fetched, or is not the one `sha256` promises.
        OutputError: the disk is full or the folder cannot be written.
    """
    destination = Path(destination)
    if _is_complete(destination, sha256):
        return destination
    if offline():
        raise DownloadError(
            f"{url} has not been fetched and TORCHCLAS_OFFLINE is set: unset it, or put the file at {destination}"
        )
    with locked(destination):
        if not _is_complete(destination, sha256):
            _Download(mirrored(url), destination, progress or _silent, sleep).run()
            _accept(url, destination, sha256)
    return destination


def verify(path: Path) -> Record | None:
    """Compare a fetched file with what it was when it arrived; None for one that was put there by hand.

    Raises:
        CheckpointError: it has changed since.
    """
    record = _record(path)
    if record is None:
        return None
    size = path.stat().st_size
    if size != record.size or _digest(path) != record.sha256:
        raise CheckpointError(
            f"{path}: damaged since it was fetched ({size:,} bytes, were {record.size:,}): delete it, fetch it again"
        )
    return record


def remove(path: Path) -> None:
    """Delete a fetched file and its record."""
    path.unlink(missing_ok=True)
    _record_path(path).unlink(missing_ok=True)


def offline() -> bool:
    """Say whether `TORCHCLAS_OFFLINE` forbids the network."""
    return os.environ.get("TORCHCLAS_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


def mirrored(url: str) -> str:
    """Return where to fetch `url` from: the same path under `TORCHCLAS_MIRROR` where that is set."""
    mirror = os.environ.get("TORCHCLAS_MIRROR")
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise DownloadError(f"TORCHCLAS_MIRROR={mirror} is not a URL: it should start with http:// or https://")
    parts = urlsplit(url)
    return mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


@contextmanager
def progress_bar(name: str) -> Generator[Progress, None, None]:
    """Yield a callback that draws a bar on standard error, or does nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console  # noqa: TID251 - the bar is all that it prints
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(name, total=None)

    def show(done: int, total: int | None) -> None:
        bar.start()  # with the first bytes: what is in the cache shows no bar
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()


class _Broken(Exception):  # noqa: N818 - internal: a reason to try again
    """The transfer failed in a way that another attempt may mend."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Download:
    """Brings one file to its `.part` path in as many attempts as it takes."""

    def __init__(self, url: str, destination: Path, progress: Progress, sleep: Callable[[float], object]) -> None:
        self.url = url
        self.part = _part_path(destination)
        self.validator_path = self.part.with_name(f"{self.part.name}.json")
        self.progress = progress
        self.sleep = sleep

    def run(self) -> None:
        failures, furthest = 0, self.size()
        while True:
            try:
                self.attempt()
                return
            except _Broken as broken:
                failures = 1 if self.size() > furthest else failures + 1
                furthest = max(furthest, self.size())
                if failures == _ATTEMPTS:
                    raise DownloadError(
                        f"{self.url}: {broken} ({_ATTEMPTS} attempts); check the connection and any proxy, then run "
                        f"the same again: it goes on after the {self.size():,} bytes already here"
                    ) from broken
                self.sleep(max(2.0 ** (failures - 1), broken.wait))
            except OSError as error:
                if disk_is_full(error, self.part.parent):
                    raise OutputError(
                        f"{self.part}: the disk is full: free some space, or set TORCHCLAS_CACHE to a folder on "
                        f"another; the {self.size():,} bytes already here are kept"
                    ) from error
                raise OutputError(f"{self.part}: cannot be written: {error.strerror}") from error

    def attempt(self) -> None:
        try:
            headers = {"Accept-Encoding": "identity", **self.resume_headers()}
            with requests.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
                self.receive(response)
        except requests.RequestException as error:  # an OSError: told apart here, so that `run` sees only the disk's
            if isinstance(error, ValueError):  # requests' classes for malformed URLs and unknown schemes
                raise DownloadError(f"{self.url}: cannot be fetched: {error}") from error
            raise _Broken(_reason(error)) from error

    def resume_headers(self) -> dict[str, str]:
        """Ask for the rest of the `.part` file, if the server still has the same file."""
        validator = self.validator()
        if not validator or not self.size():
            return {}
        return {"Range": f"bytes={self.size()}-", "If-Range": validator}

    def receive(self, response: requests.Response) -> None:
        self.check(response)
        start = self.size() if self.continues(response) else 0
        length = response.headers.get("Content-Length", "")
        # A body compressed on the way, unasked, is longer than said once unpacked
        total = start + int(length) if length.isdigit() and not _encoded(response) else None
        if not start:
            self.validator_path.write_text(json.dumps({"url": self.url, "validator": _validator(response)}))
        with self.part.open("ab" if start else "wb") as file:
            done = start
            for chunk in response.iter_content(_CHUNK):
                if not done and chunk.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
                    raise self.web_page()
                file.write(chunk)
                done += len(chunk)
                self.progress(done, total)
        if total is not None and done != total:
            raise _Broken(f"the connection broke after {done:,} of {total:,} bytes")

    def check(self, response: requests.Response) -> None:
        status = response.status_code
        if status == 416:  # the .part file is longer than the file there
            self.part.unlink(missing_ok=True)
            raise _Broken("the file on the server has changed")
        if status in (408, 429) or status >= 500:
            wait = response.headers.get("Retry-After", "")
            raise _Broken(
                f"the server answered {status} {response.reason}", min(int(wait), 60) if wait.isdigit() else 0
            )
        if status not in (200, 206):
            mirror = os.environ.get("TORCHCLAS_MIRROR")
            hint = (
                f"TORCHCLAS_MIRROR={mirror} may lack it: unset it to use the original"
                if mirror
                else "check the address"
            )
            what = "not found" if status == 404 else f"refused with {response.reason}"
            raise DownloadError(f"{self.url}: {what} ({status}); {hint}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise self.web_page()

    def continues(self, response: requests.Response) -> bool:
        """Say whether the body is the rest of the `.part` file; a server that does not know ranges sends all of it."""
        if response.status_code != 206:
            return False
        # Some servers honour Range but not If-Range
        validators = {response.headers.get("ETag"), response.headers.get("Last-Modified")} - {None}
        changed = bool(validators) and self.validator() not in validators
        if changed or not response.headers.get("Content-Range", "").startswith(f"bytes {self.size()}-"):
            self.part.unlink(missing_ok=True)
            raise _Broken("the file on the server has changed")
        return True

    def web_page(self) -> DownloadError:
        return DownloadError(
            f"{self.url}: the server sent a web page instead of the file; open the address in a browser "
            "(a proxy's or hotspot's login page?)"
        )

    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def validator(self) -> str | None:
        content = _json(self.validator_path)
        validator = content.get("validator") if content.get("url") == self.url else None
        return validator if isinstance(validator, str) else None


def _validator(response: requests.Response) -> str | None:
    """Return what tells this version of the file from others; weak ETags may not be used with ranges."""
    if _encoded(response):
        return None  # the bytes here are not those a range would count
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity") != "identity"


def _accept(url: str, destination: Path, sha256: str | None) -> None:
    """Record the complete `.part` file, and give it its name last: a file with its name is complete."""
    part = _part_path(destination)
    digest = _digest(part)
    if sha256 and digest != sha256:
        part.unlink()
        raise DownloadError(
            f"{url}: the file fetched has sha256 {digest}, expected {sha256}; fetch it again, or elsewhere"
        )
    record = Record(url, part.stat().st_size, digest)
    with atomic_path(_record_path(destination)) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n")
    part.replace(destination)
    part.with_name(f"{part.name}.json").unlink(missing_ok=True)


def _is_complete(path: Path, sha256: str | None) -> bool:
    if not path.is_file():
        return False
    record = _record(path)
    if record is None:  # put there by the user: fetched files have their record before their name
        return sha256 is None or _digest(path) == sha256
    return path.stat().st_size == record.size and sha256 in (None, record.sha256)


def _part_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _record(path: Path) -> Record | None:
    match _json(_record_path(path)):
        case {"url": str(url), "size": int(size), "sha256": str(sha256)}:
            return Record(url, size, sha256)
        case _:
            return None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _reason(error: requests.RequestException) -> str:
    """Say in a few words what went wrong; the text of these errors is a chain of Python objects."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached or refused"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate was not accepted"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "the server cannot be reached"


def _silent(done: int, total: int | None) -> None:
    pass
