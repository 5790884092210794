"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from torchclas.engines.engine import EngineName, Precision, in_parts
from torchclas.engines.machine import usable_threads
from torchclas.errors import CheckpointError, MissingDependencyError


class OnnxRuntimeEngine:
    """An ONNX file run by ONNX Runtime."""

    name: EngineName = "onnxruntime"

    def __init__(self, path: Path, *, precision: Precision = "fp32", threads: int | None = None) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise MissingDependencyError("onnxruntime", "'torchclas[onnxruntime]'") from None
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        # Threads that wait by spinning make small networks up to 1.7 times as fast. Between calls they leave the
        # cores to whoever decodes the next images.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base
            raise CheckpointError(f"{path}: ONNX Runtime cannot run it ({str(error).splitlines()[0]})") from error
        self.precision: Precision = precision
        images = self.session.get_inputs()[0]
        self.input: str = images.name
        self.batch = images.shape[0] if isinstance(images.shape[0], int) else None

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Images [N, channels, H, W] → logits [N, num_classes]."""
        logits = [self._run(part) for part in in_parts(images, self.batch)]
        return np.concatenate(logits)[: len(images)]

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        (logits,) = self.session.run(None, {self.input: images})
        return cast("NDArray[np.float32]", logits)

    def close(self) -> None:
        """Give its memory back."""
        del self.session
