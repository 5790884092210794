"""Fetches published files over HTTP, such that an interruption costs no more than what was under way.

`TORCHCLAS_MIRROR` is a base URL that takes the place of scheme and host of every published URL; with
`TORCHCLAS_OFFLINE=1` nothing here touches the network. Proxies are those of `HTTPS_PROXY` and its like.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import requests

from torchclas import http
from torchclas.atomic import atomic_path, disk_is_full, locked, need_space
from torchclas.digest import sha256_of
from torchclas.errors import CheckpointError, DownloadError, OutputError
from torchclas.weights.cache import BytesDone

_ATTEMPTS = 5  # in a row without progress
_UNREACHABLE = 3  # of them for a server that has not answered at all
_PATIENCE = 60.0  # seconds without progress after which there are no more attempts; pauses are not counted
_UNREACHABLE_PATIENCE = 6.0
_CONNECT = 4.0  # seconds for each address of a server
_WAIT = 30.0  # seconds for the head of an answer and for each of its chunks: at least 2 kB per second


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
    progress: BytesDone | None = None,
    mirror: bool = True,
    sleep: Callable[[float], object] = time.sleep,
) -> Path:
    """Fetch `url` to `destination`, unless it is there, and return its path.

    What arrives is kept in a `.part` file and continued by the next attempt or call, provided that the file on the
    server is still the same. Parallel calls for one destination, of other processes too, fetch it once.
    With `mirror` false, `TORCHCLAS_MIRROR` does not apply: what comes from elsewhere has settings of its own.

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
            _Download(url, destination, progress or _silent, sleep, mirror=mirror).run()
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
    if size != record.size or sha256_of(path) != record.sha256:
        raise CheckpointError(f"{path}: damaged since it was fetched ({size:,} bytes, were {record.size:,})")
    return record


def remove(path: Path) -> None:
    """Delete a fetched file and its record."""
    path.unlink(missing_ok=True)
    _record_path(path).unlink(missing_ok=True)


def drop(path: Path) -> bool:
    """`remove` a file that was fetched and turned out to be of no use; one that was put there by hand stays."""
    if _record(path) is None:
        return False
    remove(path)
    return True


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


class _Broken(Exception):  # noqa: N818 - internal: a reason to try again
    """The transfer failed in a way that another attempt may mend."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Download:
    """Brings one file to its `.part` path in as many attempts as it takes."""

    def __init__(
        self, url: str, destination: Path, progress: BytesDone, sleep: Callable[[float], object], *, mirror: bool
    ) -> None:
        self.url = mirrored(url) if mirror else url
        self.mirror = mirror
        self.destination = destination
        self.answered = False
        self.part = _part_path(destination)
        self.validator_path = self.part.with_name(f"{self.part.name}.json")
        self.progress = progress
        self.sleep = sleep

    def run(self) -> None:
        failures, seconds, furthest = 0, 0.0, self.size()
        while True:
            start = time.monotonic()
            try:
                self.attempt()
                return
            except _Broken as broken:
                if self.size() > furthest:
                    failures, seconds, furthest = 0, 0.0, self.size()
                failures += 1
                seconds += time.monotonic() - start
                attempts, patience = (_ATTEMPTS, _PATIENCE) if self.answered else (_UNREACHABLE, _UNREACHABLE_PATIENCE)
                if failures >= attempts or seconds >= patience:
                    raise self.failed(broken, failures) from broken
                self.sleep(max(2.0 ** (failures - 1), broken.wait))
            except OSError as error:
                if disk_is_full(error, self.part.parent):
                    raise OutputError(
                        f"{self.part}: the disk is full: free some space, or set TORCHCLAS_CACHE to a folder on "
                        f"another; the {self.size():,} bytes already here are kept"
                    ) from error
                raise OutputError(f"{self.part}: cannot be written: {error.strerror}") from error

    def failed(self, broken: _Broken, attempts: int) -> DownloadError:
        tried = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        advice = f"check the connection and any proxy, or put the file at {self.destination}"
        if self.mirror:
            mirror = "correct TORCHCLAS_MIRROR" if os.environ.get("TORCHCLAS_MIRROR") else "name a TORCHCLAS_MIRROR"
            advice = f"check the connection and any proxy, {mirror}, or put the file at {self.destination}"
        if size := self.size():
            advice += f"; the next run goes on after the {size:,} bytes already here"
        return DownloadError(f"{self.url}: {broken} ({tried}); {advice}")

    def attempt(self) -> None:
        headers = {"Accept-Encoding": "identity", **self.resume_headers()}
        try:
            with http.get(self.url, headers=headers, connect=_CONNECT, wait=lambda: _WAIT) as answer:
                self.answered = True
                self.receive(answer)
        except http.TooSlowError:
            raise _Broken(f"the server sent less than {http.CHUNK // 1000} kB in {_WAIT:.0f} s") from None
        except http.BadAnswerError as error:
            raise _Broken(f"the server's answer cannot be understood ({error})") from error
        except requests.RequestException as error:  # an OSError: told apart here, so that `run` sees only the disk's
            # Of malformed URLs, unknown schemes, redirects that lead nowhere
            if isinstance(error, (ValueError, requests.TooManyRedirects)):
                raise DownloadError(f"{self.url}: cannot be fetched: {error}") from error
            if isinstance(error, requests.exceptions.SSLError):  # which no other attempt will mend
                raise self.failed(_Broken(_reason(error)), 1) from error
            raise _Broken(_reason(error)) from error

    def resume_headers(self) -> dict[str, str]:
        """Ask for the rest of the `.part` file, if the server still has the same file."""
        validator = self.validator()
        if not validator or not self.size():
            return {}
        return {"Range": f"bytes={self.size()}-", "If-Range": validator}

    def receive(self, answer: http.Answer) -> None:
        self.check(answer)
        start = self.size() if self.continues(answer) else 0
        length = answer.number("Content-Length")
        # A body compressed on the way, unasked, is longer than said once unpacked
        total = None if length is None or _encoded(answer) else start + length
        if total is not None:
            need_space(self.part, total - start)
        if not start:
            self.validator_path.write_text(json.dumps({"url": self.url, "validator": _validator(answer)}))
        with self.part.open("ab" if start else "wb") as file:
            done = start
            for chunk in answer.chunks:
                if not done and _is_web_page(chunk):
                    raise self.web_page()
                file.write(chunk)
                done += len(chunk)
                self.progress(done, total)
        if total is not None and done != total:
            raise _Broken(f"the connection broke after {done:,} of {total:,} bytes")
        if not done:
            raise _Broken("the server sent an empty file")

    def check(self, answer: http.Answer) -> None:
        status = answer.status
        if status == 416:  # the .part file is longer than the file there
            self.part.unlink(missing_ok=True)
            raise _Broken("the file on the server has changed")
        if status in (408, 429) or status >= 500:
            wait = answer.number("Retry-After") or 0
            raise _Broken(f"the server answered {status} {answer.reason}", min(wait, 60))
        if status not in (200, 206):
            mirror = os.environ.get("TORCHCLAS_MIRROR") if self.mirror else None
            hint = (
                f"TORCHCLAS_MIRROR={mirror} may lack it: unset it to use the original"
                if mirror
                else "check the address"
            )
            what = "not found" if status == 404 else f"refused with {answer.reason}"
            raise DownloadError(f"{self.url}: {what} ({status}); {hint}, or put the file at {self.destination}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise self.web_page()

    def continues(self, answer: http.Answer) -> bool:
        """Say whether the body is the rest of the `.part` file; a server that does not know ranges sends all of it."""
        if answer.status != 206:
            return False
        # Some servers honour Range but not If-Range
        validators = {answer.headers.get("ETag"), answer.headers.get("Last-Modified")} - {None}
        changed = bool(validators) and self.validator() not in validators
        if changed or not answer.headers.get("Content-Range", "").startswith(f"bytes {self.size()}-"):
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


def _validator(answer: http.Answer) -> str | None:
    """Return what tells this version of the file from others; weak ETags may not be used with ranges."""
    if _encoded(answer):
        return None  # the bytes here are not those a range would count
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _encoded(answer: http.Answer) -> bool:
    return answer.headers.get("Content-Encoding", "identity") != "identity"


def _is_web_page(start: bytes) -> bool:
    """Whether a file begins as HTML or XML do, whatever the encoding and its mark; no format of weights does."""
    text = start[:200].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    return re.match(rb"<[!?a-zA-Z]", text) is not None


def _accept(url: str, destination: Path, sha256: str | None) -> None:
    """Record the complete `.part` file, and give it its name last: a file with its name is complete."""
    part = _part_path(destination)
    digest = sha256_of(part)
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
        return sha256 is None or sha256_of(path) == sha256
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


def _reason(error: requests.RequestException) -> str:
    """Say in a few words what went wrong; the text of these errors is a chain of Python objects."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached or refused"
    if isinstance(error, requests.exceptions.SSLError):
        return f"the server's certificate was not accepted ({http.certificate_problem(error)})"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "the server cannot be reached"


def _silent(done: int, total: int | None) -> None:
    pass
