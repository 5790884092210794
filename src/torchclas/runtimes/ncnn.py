"""ncnn: a text file with the layers, `NAME.ncnn.param`, and one with their weights, `NAME.ncnn.bin`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import CheckpointError, Error, MissingDependencyError
from torchclas.vocabulary import INPUT


class NcnnFile:
    """A network in ncnn's format, run image by image on the CPU.

    Nothing is rounded. With `half`, weights and values are stored in half precision, and computed with in float32,
    unless the processor computes in half precision.
    """

    def __init__(self, path: Path, *, half: bool = False, threads: int | None = None) -> None:
        """Raises MissingDependencyError, or CheckpointError: ncnn cannot read the file."""
        try:
            import ncnn
        except ImportError:
            raise MissingDependencyError("ncnn", "'torchclas[mobile]'") from None
        self._ncnn: Any = ncnn
        self._net: Any = self._ncnn.Net()
        options = self._net.opt
        options.use_vulkan_compute = False
        if threads is not None:
            options.num_threads = threads
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = half
        options.use_bf16_packed = options.use_bf16_storage = False
        weights = weights_beside(path)
        if self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise CheckpointError(f"{path}: ncnn cannot read it, or {weights.name} beside it")
        self.batch: int | None = 1
        self.inputs: list[str] = self._net.input_names()
        self.outputs: list[str] = self._net.output_names()

    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Images [N, channels, H, W] → what the file gives, by name."""
        rows = [self._one(image) for image in images]
        return {name: np.stack([row[name] for row in rows]) for name in self.outputs}

    def layers(self, images: NDArray[Any]) -> Iterable[tuple[str, NDArray[Any]]]:
        """None: ncnn's layers are not called after modules."""
        return ()

    def _one(self, image: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._ncnn.Mat(np.ascontiguousarray(image)).clone())
        values: dict[str, NDArray[np.float32]] = {}
        for name in self.outputs:
            failed, value = extractor.extract(name)
            if failed:
                raise Error(f"ncnn failed on an image of shape {list(image.shape)} (code {failed})")
            values[name] = np.array(value, np.float32).reshape(-1)
        return values


def weights_beside(path: Path) -> Path:
    """`NAME.ncnn.bin` of `NAME.ncnn.param`."""
    return path.with_suffix(".bin")
