"""How fast the quantized network is, against the float one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from torchclas.engines import Engine, installed
from torchclas.engines.onnx_runtime import OnnxRuntimeEngine
from torchclas.engines.openvino import OpenVinoEngine
from torchclas.quantization.images import BATCH, Images
from torchclas.vocabulary import EngineName, Precision

TIMING_SECONDS, MIN_ROUNDS = 1.0, 5  # for each engine and number of images


@dataclass(frozen=True)
class Speed:
    """Medians of rounds in which both networks took turns, milliseconds for `batch` images at once."""

    engine: EngineName
    batch: int
    fp32_ms: float
    int8_ms: float


def times(float_path: Path, int8_file: Path, images: Images) -> Iterator[Speed]:
    """Both networks take turns in every engine, since other programs may interfere."""
    for name, open_file in _OPENERS.items():
        if name not in installed():
            continue
        for batch in (1, BATCH):
            some = np.resize(images, (batch, *images.shape[1:]))
            engines = open_file(float_path, "fp32", batch), open_file(int8_file, "int8", batch)
            seconds: tuple[list[float], list[float]] = [], []
            for engine in engines:
                engine(some)  # the first call allocates
            while sum(map(sum, seconds)) < TIMING_SECONDS or len(seconds[0]) < MIN_ROUNDS:
                for engine, own in zip(engines, seconds, strict=True):
                    start = time.perf_counter()
                    engine(some)
                    own.append(time.perf_counter() - start)
            for engine in engines:
                engine.close()
            yield Speed(name, batch, 1e3 * median(seconds[0]), 1e3 * median(seconds[1]))


def _open_openvino(path: Path, precision: Precision, batch: int) -> Engine:
    return OpenVinoEngine(path, precision=precision, batch_size=batch)


def _open_onnxruntime(path: Path, precision: Precision, batch: int) -> Engine:
    return OnnxRuntimeEngine(path, precision=precision)


_OPENERS: dict[EngineName, Callable[[Path, Precision, int], Engine]] = {
    "openvino": _open_openvino,
    "onnxruntime": _open_onnxruntime,
}
