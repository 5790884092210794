"""Which engine is the fastest for a network on this machine: measured once, then remembered."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from torchclas.atomic import atomic_path
from torchclas.engines import compiled
from torchclas.engines.engine import PRECISIONS, Engine, version
from torchclas.engines.turns import take_turns
from torchclas.errors import CheckpointError, DownloadError, OutputError
from torchclas.spec import ModelSpec
from torchclas.vocabulary import EngineName, Output, Precision
from torchclas.weights.exported import RUNTIMES

log = logging.getLogger(__name__)

# Not torch: its import alone takes longer than it could win over these two, and torch.compile takes up to minutes.
CANDIDATES: tuple[EngineName, ...] = ("openvino", "onnxruntime")

SECONDS, TURNS = 0.3, 3  # that each candidate is measured for, and in how many turns
BATCH = 8  # images at once that stand for any number above one

Times = dict[EngineName, float]  # milliseconds


def open_fastest(
    spec: ModelSpec,
    open_one: Callable[[EngineName], Engine],
    *,
    precision: Precision,
    threads: int | None,
    batch_size: int,
    outputs: tuple[Output, ...] = ("logits",),
) -> Engine:
    """Open, by `open_one`, the engine that is the fastest on this machine's CPU; torch where there is no other."""
    candidates: list[EngineName] = [name for name in CANDIDATES if version(name) and precision in PRECISIONS[name]]
    suffix = Path(spec.path or "").suffix
    if suffix == ".xml":
        candidates = ["openvino"]
    if suffix in RUNTIMES:
        return open_one(RUNTIMES[suffix])
    if spec.graph is None and precision != "int8" and not (candidates and _exported(spec, outputs)):
        return open_one("torch")
    if len(candidates) < 2:
        return open_one(candidates[0] if candidates else CANDIDATES[0])  # which then says what to install
    graph = compiled.int8_file(spec) if precision == "int8" else compiled.graph_file(spec, outputs)
    batch = 1 if batch_size == 1 else BATCH
    versions = [version(name) for name in candidates]
    remembered = compiled.derived(
        spec, graph, f"fastest-{precision}-batch{batch}.json", threads, *candidates, *versions
    )
    times = _read(remembered, candidates)
    if times is not None:
        engine = open_one(_shortest(times))
    else:
        engines: dict[EngineName, Engine] = {name: open_one(name) for name in candidates}
        times = measure(engines, _example(spec, batch))
        with suppress(OutputError):  # measured again next time
            _write(remembered, times)
        engine = engines.pop(_shortest(times))
        for other in engines.values():
            other.close()
    took = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
    log.info("%s is the fastest for %s here: %s for %d images at once", engine.name, spec.name, took, batch)
    return engine


def measure(engines: Mapping[EngineName, Engine], images: NDArray[Any]) -> Times:
    """The shortest time that each engine takes for `images`.

    Each runs many times in a row, since the caches hold what the last one left, and its threads wait for more to do
    for a while.
    """
    runs: dict[EngineName, Callable[[], object]] = {
        name: partial(engine.run, images) for name, engine in engines.items()
    }
    times = take_turns(runs, seconds=SECONDS, stretch=SECONDS / TURNS)
    return {name: 1e3 * min(values) for name, values in times.items()}


def _example(spec: ModelSpec, batch: int) -> NDArray[Any]:
    if spec.pixels:
        return np.zeros((batch, 375, 500, 3), np.uint8)  # as ImageNet's photographs are
    return np.zeros((batch, spec.in_channels, *spec.preset.size), np.float32)


def _exported(spec: ModelSpec, outputs: tuple[Output, ...]) -> bool:
    """Whether the network could be exported, now or before."""
    try:
        compiled.graph_file(spec, outputs)
    except (CheckpointError, DownloadError):
        raise  # torch would meet the same
    except Exception as error:  # a full disk, a missing package, whatever a new torch makes of the export
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"{spec.name} runs with torch, because it could not be exported: {reason}", stacklevel=2)
        return False
    return True


def _shortest(times: Times) -> EngineName:
    return min(times, key=lambda name: times[name])


def _read(path: Path, candidates: Sequence[EngineName]) -> Times | None:
    """The times of all candidates; None where there are none, or something else is in the file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    times: Times = {name: ms for name in candidates if type(ms := cast("dict[str, Any]", content).get(name)) is float}
    return times if len(times) == len(candidates) and all(0 < ms < float("inf") for ms in times.values()) else None


def _write(path: Path, times: Times) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(times), encoding="utf-8")
