"""What every engine is, and which of them this installation has. Imports none of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import Error, UnknownNameError
from torchclas.vocabulary import ENGINES, OUTPUTS, EngineChoice, EngineName, Output, Precision

PACKAGES: dict[EngineName, str] = {name: "torch" if name == "compile" else name for name in ENGINES}

_OTHER_NAMES: dict[str, EngineName] = {
    "onnx": "onnxruntime",
    "ort": "onnxruntime",
    "ov": "openvino",
    "pytorch": "torch",
    "eager": "torch",
}

# What each computes with on a CPU. ONNX Runtime's CPU kernels know no bfloat16; int8 runs from a quantized graph, fp16
# from a file that was exported in it.
PRECISIONS: dict[EngineName, tuple[Precision, ...]] = {
    "torch": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "ncnn": ("fp32", "fp16"),
    "mnn": ("fp32", "fp16"),
    "executorch": ("fp32",),
}


class Engine(Protocol):
    """A network ready to run. Calls from several threads at once do not disturb each other."""

    name: EngineName
    precision: Precision
    outputs: tuple[Output, ...]

    def run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        """Images [N, channels, H, W], N ≥ 1 → each of `outputs`: logits [N, num_classes], embedding [N, features].

        A model with `ModelSpec.pixels` takes uint8 [N, H, W, 3], any other float32.
        """
        ...

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Images [N, channels, H, W] → logits [N, num_classes]."""
        return self.run(images)["logits"]

    def close(self) -> None:
        """Give its memory back; it must not be called after that."""
        ...


def engine_named(name: str) -> EngineChoice:
    """The engine of this name, or of one that people know it by: `onnx`, `ort`, `ov`, `pytorch`.

    Raises UnknownNameError: there is none.
    """
    name = _OTHER_NAMES.get(name.lower(), name.lower())
    for known in ("auto", *ENGINES):
        if name == known:
            return known
    raise UnknownNameError("engine", name, ("auto", *ENGINES), f"choose from auto, {', '.join(ENGINES)}")


def ordered(outputs: Sequence[str]) -> tuple[Output, ...]:
    """Outputs in the order in which graphs have them; raises `UnknownNameError`, or `Error` for none."""
    for name in outputs:
        if name not in OUTPUTS:
            raise UnknownNameError("output", name, OUTPUTS, f"choose from {', '.join(OUTPUTS)}")
    if not outputs:
        raise Error(f"no output was asked for: choose from {', '.join(OUTPUTS)}")
    return tuple(name for name in OUTPUTS if name in outputs)


def in_parts(images: NDArray[Any], size: int | None) -> Iterator[NDArray[Any]]:
    """Images for a graph that takes exactly `size` at once (None: any number); the last ones are filled up."""
    for start in range(0, len(images), size or len(images)):
        part = images[start : start + size] if size else images
        missing = (size or len(part)) - len(part)
        yield np.concatenate([part, *[part[:1]] * missing]) if missing else part


def joined(parts: Sequence[NDArray[np.float32]], images: int) -> NDArray[np.float32]:
    """What was computed part by part, without what filled up the last one."""
    return (parts[0] if len(parts) == 1 else np.concatenate(parts))[:images]


@cache
def version(engine: EngineName) -> str | None:
    """The version of the package behind `engine`; None where it is not installed."""
    try:
        return metadata.version(PACKAGES[engine])
    except metadata.PackageNotFoundError:
        return None


def installed() -> dict[EngineName, str]:
    """The engines that can run here → the versions of their packages."""
    return {name: found for name in ENGINES if (found := version(name)) is not None}
