"""A float network in 8-bit integers, but for the operations that must stay in float, as measurement says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from torchclas.atomic import atomic_path
from torchclas.engines.openvino import OpenVinoEngine
from torchclas.errors import MissingDependencyError
from torchclas.quantization.images import BATCH, Images
from torchclas.quantization.judging import Judge, Logits
from torchclas.quantization.search import Noise, fewest, rank
from torchclas.spec import ModelSpec
from torchclas.vocabulary import Precision
from torchclas.weights import cache
from torchclas.weights.metadata import KEY

if TYPE_CHECKING:
    import onnx


Stage: TypeAlias = Callable[[str, "int | None"], Callable[[int], None]]  # begins one of so many steps

RANKING_IMAGES = 16  # of the calibration's, on which each operation is measured by itself


@dataclass(frozen=True)
class FloatOperation:
    """An operation left in float; `noise_db` is how loud quantizing it alone is in the logits, relative to them."""

    name: str
    noise_db: float


@dataclass(frozen=True)
class Quantized:
    """A model in 8-bit integers, its logits, and `all_int8`: those before any operation was put back into float."""

    model: onnx.ModelProto
    logits: Logits  # of the checking images
    all_int8: Logits
    operations: int
    in_float: tuple[FloatOperation, ...]


def quantize_network(
    float_path: Path, calibrating: Images, checking: Images, judge: Judge, bound: float, candidate: Path, stage: Stage
) -> Quantized:
    """Quantize, and put back into float as few operations as bring the drop below `bound`."""
    try:
        import onnx
    except ImportError:
        raise MissingDependencyError("onnx", "'torchclas[int8]'") from None
    from torchclas.quantization.calibration import quantize_all
    from torchclas.quantization.graph import QuantizedGraph

    def run(model: onnx.ModelProto, images: Images) -> Logits:
        onnx.save(model, candidate)
        return logits_of(candidate, images, "int8")

    source = onnx.load(float_path)
    seen = partial(stage("calibrating", None), 1)
    graph = QuantizedGraph(source, quantize_all(source, calibrating, seen))
    model = graph.with_float(())
    logits = all_int8 = run(model, checking)
    in_float: Sequence[Noise] = ()
    if judge.drop(logits) > bound:
        some = calibrating[:RANKING_IMAGES]
        measured = partial(stage("measuring each layer", len(graph.operations)), 1)
        ranked = rank(graph, lambda model: run(model, some), logits_of(float_path, some, "fp32"), measured)
        tried = stage("choosing what stays in float", None)

        def suffices(noises: Sequence[Noise]) -> bool:
            tried(1)
            return judge.drop(run(graph.with_float({noise.operation for noise in noises}), checking)) <= bound

        in_float = fewest(ranked, suffices)
        model = graph.with_float({noise.operation for noise in in_float})
        logits = run(model, checking)
    floats = tuple(FloatOperation(noise.operation, 10 * math.log10(noise.power or 1e-30)) for noise in in_float)
    return Quantized(model, logits, all_int8, len(graph.operations), floats)


def logits_of(path: Path, images: Images, precision: Precision) -> Logits:
    """What a graph in a file computes of images that are prepared."""
    engine = OpenVinoEngine(path, precision=precision)
    logits = [engine(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
    engine.close()
    return np.concatenate(logits)


def write(found: Quantized, path: Path, spec: ModelSpec, images: int) -> None:
    """Write the model with what it has to say of itself; `images` calibrated it."""
    import onnx
    from onnx import helper

    metadata = replace(
        spec.metadata(
            precision="int8",
            model=spec.name if spec.path is None else spec.file_name,
            **{"from": "pretrained" if spec.path is None else spec.path.name},
            calibration_images=images,
            in_float=[operation.name for operation in found.in_float],
        ),
        outputs=spec.outputs,
    )
    properties = {entry.key: entry.value for entry in found.model.metadata_props}
    helper.set_model_props(found.model, {**properties, KEY: metadata.to_json()})
    in_cache = path.is_relative_to(cache.cache_dir())
    with cache.recording(path) if in_cache else atomic_path(path) as temporary:
        onnx.save(found.model, temporary)
