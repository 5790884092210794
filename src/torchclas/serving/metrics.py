"""What Prometheus is told: requests, errors, times, queues and batches."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable of prometheus_client: where processes put their figures together

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)

router = APIRouter()


class Metrics:
    """The figures of one process, or of all that share the folder which `FOLDER` names."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("torchclas_requests", "Requests answered", ["route", "status"], registry=registry)
        self._errors = Counter("torchclas_errors", "Requests refused, by kind", ["kind"], registry=registry)
        self._seconds = Histogram(
            "torchclas_request_seconds", "Time to an answer", ["route"], buckets=_SECONDS, registry=registry
        )
        self._images = Counter("torchclas_images", "Images answered", ["model", "status"], registry=registry)
        self._queue = Gauge(
            "torchclas_queue_images", "Images on their way", ["model"], registry=registry, multiprocess_mode="livesum"
        )
        self._batches = Histogram(
            "torchclas_batch_images", "Images the engine took at once", ["model"], buckets=_IMAGES, registry=registry
        )
        self._engine = Histogram(
            "torchclas_engine_seconds", "Time of the engine for a batch", ["model"], buckets=_SECONDS, registry=registry
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def error(self, kind: str) -> None:
        """Count a refusal."""
        self._errors.labels(kind).inc()

    def image(self, model: str, status: str, count: int = 1) -> None:
        """Count images: ok or error."""
        self._images.labels(model, status).inc(count)

    def queue(self, model: str, images: int) -> None:
        """Say how many images of a model are on their way."""
        self._queue.labels(model).set(images)

    def batch(self, model: str, images: int) -> None:
        """Count a batch of so many images."""
        self._batches.labels(model).observe(images)

    @contextmanager
    def engine(self, model: str) -> Generator[None, None, None]:
        """Time a run of the engine."""
        start = time.perf_counter()
        yield
        self._engine.labels(model).observe(time.perf_counter() - start)

    def text(self) -> bytes:
        """All figures, in the format of Prometheus."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)
        return generate_latest(together)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)
