"""Which operations of a quantized graph must stay in float: those that disturb the result most, as few as will do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchclas.quantization.graph import QuantizedGraph

if TYPE_CHECKING:
    import onnx

Logits = NDArray[np.float32]  # [N, classes]


@dataclass(frozen=True)
class Noise:
    """How much quantizing one operation alone changes the logits: power of the change over power of the logits."""

    operation: str
    power: float


def rank(
    graph: QuantizedGraph,
    run: Callable[[onnx.ModelProto], Logits],
    reference: Logits,
    measured: Callable[[], None],
) -> list[Noise]:
    """Measure every operation by itself, all others in float; the noisiest first.

    `run` computes the logits for which the float network gives `reference`; `measured` is called after each.
    """
    everything = set(graph.operations)
    found: list[Noise] = []
    for operation in graph.operations:
        logits = run(graph.with_float(everything - {operation}))
        found.append(Noise(operation, relative_power(logits - reference, reference)))
        measured()
    return sorted(found, key=lambda noise: -noise.power)


def fewest(ranked: Sequence[Noise], suffices: Callable[[Sequence[Noise]], bool]) -> Sequence[Noise]:
    """The shortest beginning of `ranked` that `suffices`; the empty one is known not to, the whole to."""
    failed, passed = 0, min(1, len(ranked))
    while passed < len(ranked) and not suffices(ranked[:passed]):
        failed, passed = passed, min(2 * passed, len(ranked))
    while passed - failed > 1:
        middle = (failed + passed) // 2
        if suffices(ranked[:middle]):
            passed = middle
        else:
            failed = middle
    return ranked[:passed]


def relative_power(error: Logits, signal: Logits) -> float:
    """Mean square of `error` over that of `signal`; infinite where it is not a number."""
    power = float(np.square(error, dtype=np.float64).mean() / np.square(signal, dtype=np.float64).mean())
    return power if np.isfinite(power) else float("inf")
