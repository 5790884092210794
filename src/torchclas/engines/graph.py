"""Whether a graph takes and gives what the metadata of its file says.

Engines run graphs that contradict it: with other channels or classes they compute something, or raise an exception of
their own in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import CheckpointError
from torchclas.spec import ModelSpec
from torchclas.vocabulary import Output

MAX_BATCH = 4096  # images that a graph may want at once: a file must not make us allocate as much as it likes

# What repeats or chooses parts of a graph: no classification network needs it, and it may never end.
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap", "TensorIterator"})


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: None for an axis of any length, and for a shape of any number of axes."""

    name: str
    dtype: str  # as NumPy calls it
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        axes = "any shape" if self.shape is None else f"[{', '.join('N' if n is None else str(n) for n in self.shape)}]"
        return f"{self.name} {self.dtype} {axes}"


@dataclass(frozen=True)
class Signature:
    """What a model's graph has to take and to give, by its metadata; nothing there says how long an embedding is.

    `image` is the shape of one: [channels, height, width], or, where the graph prepares `pixels` itself, [None, None,
    3].
    """

    model: str
    classes: int
    dtype: str
    image: tuple[int | None, ...]
    outputs: tuple[Output, ...] = ("logits",)

    @classmethod
    def of(cls, spec: ModelSpec, outputs: tuple[Output, ...] = ("logits",)) -> Signature:
        """The signature of a model with these outputs."""
        if spec.pixels:
            return cls(spec.name, spec.num_classes, "uint8", (None, None, 3), outputs)
        return cls(spec.name, spec.num_classes, "float32", (spec.in_channels, *spec.preset.size), outputs)

    def check(self, path: Path, inputs: Sequence[Port], outputs: Sequence[Port]) -> int | None:
        """Return how many images the graph takes at once, None for any number.

        Raises:
            CheckpointError: it takes or gives something else than this.
        """
        image = Port("images", self.dtype, (None, *self.image))
        given = [Port(name, "float32", self._output(name)) for name in self.outputs]
        for kind, ports, right in (("input", inputs, [image]), ("output", outputs, given)):
            if len(ports) != len(right) or not all(map(_fits, ports, right)):
                got, wanted = ("; ".join(map(str, some)) or "none" for some in (ports, right))
                raise CheckpointError(
                    f"{path}: its {kind} should be {wanted}, by its own metadata, and is {got}: export it again"
                )
        batch = inputs[0].shape[0] if inputs[0].shape else None
        if batch is not None and not 1 <= batch <= MAX_BATCH:
            raise CheckpointError(
                f"{path}: it takes {batch:,} images at once, between 1 and {MAX_BATCH:,} are possible"
            )
        return batch

    def checked(self, values: dict[Output, NDArray[Any]], images: int) -> dict[Output, NDArray[np.float32]]:
        """What was computed for `images` images, if that is what it should be."""
        for name, array in values.items():
            length = self.classes if name == "logits" or array.ndim != 2 else array.shape[1]
            if array.shape != (images, length) or array.dtype != np.float32:
                raise CheckpointError(
                    f"{self.model} gave {array.dtype} {list(array.shape)} for {images} images, not float32 "
                    f"[{images}, {length}]: its file contradicts its own metadata, export it again"
                )
        return values

    def _output(self, output: Output) -> tuple[int | None, ...] | None:
        """Its shape, where that is known."""
        return (None, self.classes) if output == "logits" else None


def check_operators(path: Path, operators: set[str]) -> None:
    """Raise `CheckpointError` where a graph has loops or branches, or operators that its format does not know."""
    strange = sorted(name for name in operators if name in CONTROL_FLOW or "." in name)
    if strange:
        raise CheckpointError(
            f"{path}: its graph has {', '.join(strange[:3])}, which `torchclas export` never writes and which could "
            "run for ever: it is not run"
        )


def _fits(port: Port, right: Port) -> bool:
    if port.name != right.name or port.dtype != right.dtype:
        return False
    if port.shape is None or right.shape is None:
        return True  # what comes is looked at
    if len(port.shape) != len(right.shape):
        return False
    # Axes that a graph leaves open take any length; the first is the number of images, which it may have fixed.
    return all(length in (None, wanted) for length, wanted in zip(port.shape[1:], right.shape[1:], strict=True))
