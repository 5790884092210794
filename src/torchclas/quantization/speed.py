"""How fast the quantized network is, against the float one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from torchclas.engines import Engine, installed
from torchclas.engines.onnx_runtime import OnnxRuntimeEngine
from torchclas.engines.openvino import OpenVinoEngine
from torchclas.engines.turns import take_turns
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
            runs = {index: partial(engine, some) for index, engine in enumerate(engines)}
            float_s, int8_s = take_turns(runs, seconds=TIMING_SECONDS / 2, least=MIN_ROUNDS).values()
            for engine in engines:
                engine.close()
            yield Speed(name, batch, 1e3 * median(float_s), 1e3 * median(int8_s))


def _open_openvino(path: Path, precision: Precision, batch: int) -> Engine:
    return OpenVinoEngine(path, precision=precision, batch_size=batch)


def _open_onnxruntime(path: Path, precision: Precision, batch: int) -> Engine:
    return OnnxRuntimeEngine(path, precision=precision)


_OPENERS: dict[EngineName, Callable[[Path, Precision, int], Engine]] = {
    "openvino": _open_openvino,
    "onnxruntime": _open_onnxruntime,
}
