"""Services on a free port of this machine, in a thread of the test or as a process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import torchclas
from torchclas.catalog import find
from torchclas.engines import Engine
from torchclas.serving import server
from torchclas.serving.options import ServeOptions
from torchclas.vocabulary import EngineName, Output, Precision
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

ARCH = "PPLCNet_x0_25"


def write_model(path: Path, classes: tuple[str, ...] = ("cat", "dog", "eel"), *, size: int = 64, seed: int = 0) -> Path:
    """A checkpoint of a small network with weights that tell images apart."""
    import torch

    torch.manual_seed(seed)
    model = torchclas.create_model(ARCH, num_classes=len(classes))
    with torch.no_grad():
        for parameter in model.head.parameters() if hasattr(model, "head") else model.parameters():
            parameter.mul_(3)
    preset = find(ARCH).preset.at(size)
    ids = tuple(f"n{place}" for place in range(len(classes)))
    save_checkpoint(model, path, Metadata(model.arch, len(classes), preset, class_ids=ids, class_names=classes))
    return path


def picture(seed: int, size: tuple[int, int] = (80, 60), kind: str = "JPEG") -> bytes:
    """A file with a picture of its own."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    coarse.save(file, kind)
    return file.getvalue()


@dataclass
class Running:
    """A service and a client of it."""

    serving: server.Serving
    url: str
    lines: list[dict[str, Any]]
    client: httpx.Client

    def classify(self, image: bytes, **parameters: Any) -> httpx.Response:
        return self.client.post("/v1/classify", content=image, params=parameters)


@contextmanager
def running(options: ServeOptions, **headers: str) -> Generator[Running, None, None]:
    """Serve in a thread of this process."""
    lines: list[dict[str, Any]] = []
    serving = server.Serving(options, log=lines.append)
    started = threading.Event()
    with server.bind(options) as bound:
        thread = threading.Thread(target=serving.run, args=(bound, started.set))
        thread.start()
        try:
            assert started.wait(30)
            url = server.address(bound)
            with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
                yield Running(serving, url, lines, client)
        finally:
            serving.stop()
            thread.join(30)
            assert not thread.is_alive()


@dataclass
class Stub:
    """An engine that a test has in its hand: it computes as `inner` does, after `before` has looked at the images."""

    inner: Engine
    before: Callable[[NDArray[Any]], object]
    batches: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.name: EngineName = self.inner.name
        self.precision: Precision = self.inner.precision
        self.outputs: tuple[Output, ...] = self.inner.outputs

    def run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        self.batches.append(len(images))
        self.before(images)
        return self.inner.run(images)

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        return self.run(images)["logits"]

    def close(self) -> None:
        self.inner.close()


@contextmanager
def stubbed(service: Running, before: Callable[[NDArray[Any]], object]) -> Generator[Stub, None, None]:
    """Put a `Stub` in the place of the engine of the first model."""
    classifier = service.serving.registry.opened[0].classifier
    engine = classifier.engine
    stub = Stub(engine, before)
    classifier.engine = stub
    try:
        yield stub
    finally:
        classifier.engine = engine


class Process:
    """`torchclas serve` as a process of its own; its log is read meanwhile."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "torchclas", "serve", *arguments, "--port", "0"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.other.append(line.decode())

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    def url(self) -> str:
        """Its address, once it takes requests."""
        until(lambda: self.events("listening") or self.process.poll() is not None, 120)
        assert self.events("listening"), (self.lines, self.other)
        return self.events("listening")[0]["url"]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def until(true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
