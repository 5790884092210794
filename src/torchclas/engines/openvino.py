"""OpenVINO on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.atomic import atomic_path
from torchclas.engines.engine import EngineName, Precision, in_parts
from torchclas.engines.machine import usable_threads
from torchclas.errors import CheckpointError, OutputError
from torchclas.openvino_core import openvino_core

# Left alone, OpenVINO computes in bfloat16 wherever the processor can.
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}

PART = 4  # images at most that one stream computes at once


def split(batch_size: int, threads: int) -> tuple[int, int]:
    """How to compute batches of that size: the number of streams, and of images that a stream takes at once.

    Threads that share a layer wait for each other at the end of every one; streams of a thread each do not, and keep
    what they compute in their own caches. With shapes that are known when it compiles, OpenVINO is faster too.
    """
    streams = max(1, min(threads, batch_size // 2))
    return streams, min(PART, -(-batch_size // streams))


class OpenVinoEngine:
    """An ONNX file, or one in OpenVINO's own format, run by OpenVINO.

    It is compiled for batches of `batch_size` and takes others as well; None is for files whose images may be of any
    number at once, all on one stream. `blob` keeps what is compiled: the first start writes it, the next ones read it
    in a fraction of the time.
    """

    name: EngineName = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
        batch_size: int | None = None,
        blob: Path | None = None,
    ) -> None:
        core = openvino_core()
        self.precision: Precision = precision
        threads = threads or usable_threads()
        self.streams, part = (1, None) if batch_size is None else split(batch_size, threads)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.streams,
            "ENABLE_CPU_PINNING": False,  # other work runs on the same cores: images are decoded meanwhile
        }
        self.model: Any = None
        self.memory: NDArray[np.uint8] | None = None
        if blob is not None:
            self.model, self.memory = _read(core, blob, settings)
        if self.model is None:
            self.model = _compile(core, path, settings, part)
            if blob is not None:
                with suppress(OutputError), atomic_path(blob) as temporary:
                    temporary.write_bytes(self.model.export_model().getbuffer())
        batch = self.model.inputs[0].get_partial_shape()[0]
        self.part = batch.get_length() if batch.is_static else None
        self.requests: deque[Any] = deque()

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Images [N, channels, H, W] → logits [N, num_classes]."""
        parts = list(in_parts(images, self.part))
        if len(parts) == 1:  # at once, which saves handing it to another thread
            request = self._request()
            request.infer(parts, share_inputs=True)
            return self._logits(request)[: len(images)]
        running: deque[Any] = deque()
        logits: list[NDArray[np.float32]] = []
        for part in parts:
            if len(running) > self.streams:  # one waits, so that no stream has to
                logits.append(self._finish(running.popleft()))
            running.append(self._request())
            running[-1].start_async([part], share_inputs=True)
        logits += [self._finish(request) for request in running]
        return np.concatenate(logits)[: len(images)]

    def _request(self) -> Any:
        try:
            return self.requests.pop()
        except IndexError:  # none yet, or all in use
            return self.model.create_infer_request()

    def _finish(self, request: Any) -> NDArray[np.float32]:
        request.wait()
        return self._logits(request)

    def _logits(self, request: Any) -> NDArray[np.float32]:
        logits = request.get_output_tensor(0).data.copy()  # the next call writes to the same memory
        self.requests.append(request)
        return logits

    def close(self) -> None:
        """Give its memory back."""
        self.requests.clear()
        del self.model, self.memory  # in this order: the model's weights may be in that memory


def _compile(core: Any, path: Path, settings: Mapping[str, Any], part: int | None) -> Any:
    try:
        model = core.read_model(path)
        shape = list(model.inputs[0].get_partial_shape())
        if part is not None and shape[0].is_dynamic:
            model.reshape([part, *shape[1:]])
        return core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: OpenVINO cannot run it ({str(error).strip().splitlines()[-1]})") from error


def _read(core: Any, blob: Path, settings: Mapping[str, Any]) -> tuple[Any, NDArray[np.uint8] | None]:
    """What was compiled before, and the memory its weights are in; None where there is nothing that can be used."""
    import openvino

    try:
        memory = np.memmap(blob, np.uint8, mode="c")  # not "r": OpenVINO takes no memory that is read-only
        return core.import_model(openvino.Tensor(memory, shared_memory=True), "CPU", settings), memory
    except (OSError, ValueError, RuntimeError):  # ValueError: it is empty
        return None, None
