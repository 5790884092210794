"""What every engine is, and which of them this installation has. Imports none of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import UnknownNameError
from torchclas.vocabulary import ENGINES, EngineChoice, EngineName, Precision

PACKAGES: dict[EngineName, str] = {name: "torch" if name == "compile" else name for name in ENGINES}

_OTHER_NAMES: dict[str, EngineName] = {
    "onnx": "onnxruntime",
    "ort": "onnxruntime",
    "ov": "openvino",
    "pytorch": "torch",
    "eager": "torch",
}

# What each computes with on a CPU. ONNX Runtime's CPU kernels know no bfloat16; int8 runs from a quantized graph.
PRECISIONS: dict[EngineName, tuple[Precision, ...]] = {
    "torch": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
}


class Engine(Protocol):
    """A network ready to run. Calls from several threads at once do not disturb each other."""

    name: EngineName
    precision: Precision

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Images [N, channels, H, W], N ≥ 1 → logits [N, num_classes].

        A model with `ModelSpec.pixels` takes uint8 [N, H, W, 3], any other float32.
        """
        ...

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


def in_parts(images: NDArray[Any], size: int | None) -> Iterator[NDArray[Any]]:
    """Images for a graph that takes exactly `size` at once (None: any number); the last ones are filled up."""
    for start in range(0, len(images), size or len(images)):
        part = images[start : start + size] if size else images
        missing = (size or len(part)) - len(part)
        yield np.concatenate([part, *[part[:1]] * missing]) if missing else part


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
