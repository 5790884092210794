"""OpenVINO on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.atomic import atomic_path
from torchclas.engines.engine import EngineName, Precision, run_in_batches
from torchclas.errors import CheckpointError, OutputError
from torchclas.openvino_core import openvino_core

# Left alone, OpenVINO computes in bfloat16 wherever the processor can.
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


class OpenVinoEngine:
    """An ONNX file, or one in OpenVINO's own format, run by OpenVINO.

    `static` compiles for one image at a time, which is a little faster for that. `blob` keeps what is compiled: the
    first start writes it, the next ones read it in a fraction of the time.
    """

    name: EngineName = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
        static: bool = False,
        blob: Path | None = None,
    ) -> None:
        core = openvino_core()
        self.precision: Precision = precision
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "ENABLE_CPU_PINNING": False,  # other work runs on the same cores: images are decoded meanwhile
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self.model: Any = None
        self.memory: NDArray[np.uint8] | None = None
        if blob is not None:
            self.model, self.memory = _read(core, blob, settings)
        if self.model is None:
            self.model = _compile(core, path, settings, static)
            if blob is not None:
                with suppress(OutputError), atomic_path(blob) as temporary:
                    temporary.write_bytes(self.model.export_model().getbuffer())
        batch = self.model.inputs[0].get_partial_shape()[0]
        self.batch = batch.get_length() if batch.is_static else None
        self.requests: deque[Any] = deque()

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Images [N, channels, H, W] → logits [N, num_classes]."""
        try:
            request = self.requests.pop()
        except IndexError:  # none yet, or all in use by other threads
            request = self.model.create_infer_request()
        logits = run_in_batches(partial(_run, request), images, self.batch)
        self.requests.append(request)
        return logits

    def close(self) -> None:
        """Give its memory back."""
        self.requests.clear()
        del self.model, self.memory  # in this order: the model's weights may be in that memory


def _run(request: Any, images: NDArray[Any]) -> NDArray[np.float32]:
    request.infer([images], share_inputs=True)
    return request.get_output_tensor(0).data.copy()  # the next call writes to the same memory


def _compile(core: Any, path: Path, settings: Mapping[str, Any], static: bool) -> Any:
    try:
        model = core.read_model(path)
        shape = list(model.inputs[0].get_partial_shape())
        if static and shape[0].is_dynamic:
            model.reshape([1, *shape[1:]])
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
