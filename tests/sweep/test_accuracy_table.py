"""`evaluate --models` as a user runs it: weights come from a server, the process is killed, and goes on."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import torchclas
from tests.parity.golden import golden
from tests.servers import picture, until
from torchclas.catalog import find
from torchclas.labels import label_set
from torchclas.vocabulary import EngineChoice

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("one_thread")]

MODELS = ("PPLCNet_x0_25", "PPLCNet_x0_35", "MobileNetV3_small_x0_35", "ShuffleNetV2_x0_25")


class Server(ThreadingHTTPServer):
    """Serves weights that follow a rule under the published addresses; those in `missing` it does not have."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.names = {urlsplit(url(name)).path: name for name in MODELS}
        self.missing: set[str] = set()
        self.requests: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        name = self.server.names[self.path]
        self.server.requests[name] += 1
        if name in self.server.missing:
            self.send_error(404)
            return
        content = (self.server.folder / f"{name}.pdparams").read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def url(name: str) -> str:
    weights = find(name).weights
    assert weights is not None
    assert weights.url is not None
    return weights.url


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    for name in MODELS:
        entry = find(name)
        assert entry.weights is not None
        golden(entry.arch, entry.weights.layout).write(folder / f"{name}.pdparams")
    server = Server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Forty pictures in the folders of ten of ImageNet's classes."""
    root = tmp_path / "val"
    for number in range(40):
        folder = root / label_set("imagenet1k").ids[100 * (number % 10)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(picture(number, (320, 240)))
    return root


def start(server: Server, cache: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "TORCHCLAS_OFFLINE"},
        "TORCHCLAS_CACHE": str(cache),
        "TORCHCLAS_MIRROR": f"http://127.0.0.1:{server.server_port}",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "torchclas", "evaluate", *arguments, "--workers", "1", "--threads", "1"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_a_table_that_was_killed_has_the_figures_of_single_evaluations(
    server: Server, pictures: Path, tmp_path: Path, engine: EngineChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "table"
    monkeypatch.setenv("TORCHCLAS_CACHE", str(cache))
    asked = (str(pictures), "--models", ",".join(MODELS), "--engine", engine, "-o", str(folder))
    server.missing = {MODELS[3]}
    killed = start(server, cache, *asked)
    until(lambda: len([*folder.glob("models/*.json")]) >= 2 or killed.poll() is not None, 120)
    killed.kill()
    killed.communicate()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("models/*.json")}
    assert 2 <= len(kept) < len(MODELS)

    second = start(server, cache, *asked)
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 1, output
    assert "404" in output
    server.missing = set()
    third = start(server, cache, *asked)
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0, output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was done is not done again"
    assert [server.requests[name] for name in MODELS[:2]] == [1, 1]  # the third may have been on its way
    assert not [*folder.glob(".*.json"), *cache.glob("tmp*")], "crops leave nothing behind"

    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert [*rows] == [*MODELS]
    for name in MODELS:
        single = torchclas.evaluate(pictures, model=name, engine=engine, workers=1, threads=1)
        report, row = single.to_dict(), rows[name]
        for column, value in (("top1", report["top1"]), ("top5", report["top5"])):
            assert float(row[column]) == 100 * value["value"]
            assert [float(row[f"{column}_{end}"]) for end in ("low", "high")] == [100 * x for x in value["interval_95"]]
        assert (float(row["nll"]), float(row["ece"])) == (report["nll"], report["ece"])
        assert (int(row["images"]), row["engine"]) == (report["images"], report["engine"])
        assert float(row["published_top1"]) == find(name).top1
