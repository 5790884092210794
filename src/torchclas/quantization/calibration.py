"""From a float ONNX model to one in which all that can be is quantized, by NNCF."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchclas.engines.machine import this_machine
from torchclas.errors import MissingDependencyError
from torchclas.openvino_core import forbid_telemetry
from torchclas.quantization.graph import copy_of, is_transformer

if TYPE_CHECKING:
    import onnx

# Processors that add up products of 8-bit numbers in 32 bits at once. Older ones use 16 in between.
NEVER_SATURATES = {"avx512_vnni", "avx_vnni", "amx_int8", "asimd"}


def quantize_all(
    model: onnx.ModelProto, images: NDArray[np.float32], seen: Callable[[], None] = lambda: None
) -> onnx.ModelProto:
    """Quantize weights per channel, and activations by the ranges that they take for `images` [N, channels, H, W].

    Where sums of 8-bit products may overflow on this processor, the weights of the first layers, which matter most, are
    kept to 7 bits. `seen` is called whenever an image has been run; NNCF goes over all of them more than once.

    Raises:
        MissingDependencyError: nncf is not installed.
    """
    forbid_telemetry()
    try:
        import nncf
        from nncf.quantization.advanced_parameters import (
            AdvancedQuantizationParameters,
            OverflowFix,
            QuantizationParameters,
        )
    except ImportError:
        raise MissingDependencyError("nncf", "'torchclas[int8]'") from None

    name = model.graph.input[0].name
    saturates = not NEVER_SATURATES.intersection(this_machine().flags)

    def inputs(image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        seen()
        return {name: image[None]}

    # NNCF quantizes nothing where a value is an output and is computed with as well, as embeddings are.
    single = copy_of(model)
    del single.graph.output[1:]
    with _quiet():
        quantized = nncf.quantize(
            single,
            nncf.Dataset(images, inputs),
            subset_size=len(images),
            # Ranges around zero: offsets would cost each convolution a correction for the padding.
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER if is_transformer(model) else None,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.FIRST_LAYER if saturates else OverflowFix.DISABLE,
                # A scale of its own for every channel that a depthwise convolution takes would be more exact, but
                # OpenVINO then computes that convolution in float.
                activations_quantization_params=QuantizationParameters(per_channel=False),
            ),
        )
    quantized.graph.output.extend(model.graph.output[1:])
    return quantized


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """NNCF draws bars of its own, and remarks on itself."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
