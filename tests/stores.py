"""A server that answers as S3 does, on this machine, and fails as S3 does."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from torchclas.data import stores

Fault = Literal["throttled", "failed", "cut"]
KEY, SECRET = "key", "secret"
PAGE = 1000


@dataclass
class Buckets:
    """What the server holds: `faults` says how the first requests for a path end; `denied` buckets refuse everybody."""

    objects: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    faults: dict[str, list[Fault]] = field(default_factory=dict[str, list[Fault]])
    denied: set[str] = field(default_factory=set[str])
    requests: Counter[str] = field(default_factory=Counter[str])
    every: tuple[Fault, ...] = ()  # for the first requests of every path
    url: str = ""

    def fault(self, path: str) -> Fault | None:
        count = self.requests[path]
        self.requests[path] += 1
        faults = self.faults.get(path, self.every)
        return faults[count] if count < len(faults) else None


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        buckets, parts = self.server.buckets, urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        fault = buckets.fault(f"{bucket}/{key}" if key else self.path.lstrip("/"))
        if fault == "throttled":
            self.refuse(503, "SlowDown")
        elif fault == "failed":
            self.refuse(500, "InternalError")
        elif bucket in buckets.denied or f"Credential={KEY}/" not in self.headers.get("Authorization", ""):
            self.refuse(403, "AccessDenied")
        elif bucket not in buckets.objects:
            self.refuse(404, "NoSuchBucket")
        elif key:
            content = buckets.objects[bucket].get(key)
            if content is None:
                self.refuse(404, "NoSuchKey")
            else:
                self.answer(content, cut=fault == "cut")
        else:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.answer(_listing(buckets.objects[bucket], query), cut=fault == "cut")

    def answer(self, content: bytes, *, cut: bool) -> None:
        if (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))) is not None:
            start, end = int(asked[1]), int(asked[2] or len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{min(end, len(content) - 1)}/{len(content)}")
            content, whole = content[start : end + 1], content
        else:
            whole = content
            self.send_response(200)
        self.send_header("ETag", f'"{hashlib.md5(whole).hexdigest()}"')
        self.send_header("Last-Modified", "Fri, 27 Nov 2026 08:00:00 GMT")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def refuse(self, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>it is so</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, buckets: Buckets) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets = buckets


def _listing(objects: dict[str, bytes], query: dict[str, str]) -> bytes:
    """ListObjectsV2."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
    rows, folders, last = list[str](), dict[str, None](), query.get("continuation-token", "")
    more = ""
    for key in sorted(objects):
        if not key.startswith(prefix) or key <= last:
            continue
        below = key[len(prefix) :]
        if delimiter and delimiter in below:
            folders[prefix + below.partition(delimiter)[0] + delimiter] = None
            continue
        if len(rows) == PAGE:
            more = f"<NextContinuationToken>{escape(rows[-1])}</NextContinuationToken>"
            break
        rows.append(key)
    contents = "".join(
        f"<Contents><Key>{quote(key) if query.get('encoding-type') else escape(key)}</Key>"
        f"<LastModified>2026-11-27T08:00:00.000Z</LastModified><ETag>&quot;{hashlib.md5(objects[key]).hexdigest()}&quot;</ETag>"
        f"<Size>{len(objects[key])}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key in rows
    )
    prefixes = "".join(f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in folders)
    return (
        f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Name>b</Name><KeyCount>{len(rows)}</KeyCount>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{contents}{prefixes}</ListBucketResult>"
    ).encode()


@contextmanager
def serving(buckets: Buckets, environment: pytest.MonkeyPatch) -> Generator[Buckets]:
    """Serve the buckets, and have `s3://` addresses of this process and those that it starts lead there."""
    server = _Server(buckets)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    buckets.url = f"http://127.0.0.1:{server.server_port}"
    for name, value in (
        ("AWS_ENDPOINT_URL", buckets.url),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("NO_PROXY", "127.0.0.1"),
    ):
        environment.setenv(name, value)
    environment.delenv(stores.ROLE, raising=False)
    environment.setattr(stores, "FIRST_WAIT", 0.01)
    stores.forget()
    try:
        yield buckets
    finally:
        server.shutdown()
        server.server_close()
        stores.forget()
