"""OpenVINO on the CPU."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.atomic import locked
from torchclas.engines.engine import Engine, in_parts, joined
from torchclas.engines.forks import Reopening
from torchclas.engines.graph import Port, Signature, check_operators
from torchclas.engines.machine import usable_threads
from torchclas.engines.survival import Attempt
from torchclas.errors import CheckpointError, Error, OutputError
from torchclas.openvino_core import openvino_core
from torchclas.vocabulary import EngineName, Output, Precision
from torchclas.weights import cache

log = logging.getLogger(__name__)

# Left alone, OpenVINO computes in bfloat16 wherever the processor can.
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f32", "int8": "f32"}

_DTYPES: dict[str, str] = {
    "f32": "float32",
    "u8": "uint8",
}  # of OpenVINO's names those that graphs of ours have, as NumPy calls them

PART = 4  # images at most that one stream computes at once


def split(batch_size: int, threads: int) -> tuple[int, int]:
    """How to compute batches of that size: the number of streams, and of images that a stream takes at once.

    Threads that share a layer wait for each other at the end of every one; streams of a thread each do not, and keep
    what they compute in their own caches. With shapes that are known when it compiles, OpenVINO is faster too.
    """
    streams = max(1, min(threads, batch_size // 2))
    return streams, min(PART, -(-batch_size // streams))


class OpenVinoEngine(Reopening, Engine):
    """An ONNX file, or one in OpenVINO's own format, run by OpenVINO.

    It is compiled for batches of `batch_size` and takes others as well; None is for files whose images may be of any
    number at once, all on one stream. `blob` keeps what is compiled: the first start writes it, the next ones read it
    in a fraction of the time. `signature` is what the file has to be; `before_reading` is called before it is read.
    `for_single` opens the same file for one image at a time: a batch smaller than a part costs as much as a whole part,
    so such an engine takes over where they come one after the other, as they do in a loop over files or in a service.
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
        outputs: tuple[Output, ...] = ("logits",),
        signature: Signature | None = None,
        before_reading: Callable[[], object] | None = None,
        for_single: Callable[[], OpenVinoEngine] | None = None,
    ) -> None:
        self.precision: Precision = precision
        self.outputs = outputs
        threads = threads or usable_threads()
        self.streams, self.wished_part = (1, None) if batch_size is None else split(batch_size, threads)
        self.settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self.streams,
            "ENABLE_CPU_PINNING": False,  # other work runs on the same cores: images are decoded meanwhile
        }
        # Absolute: a process that was forked may have changed its folder when it opens them again.
        self.path, self.blob = path.absolute(), blob and blob.absolute()
        self.signature, self.before_reading = signature, before_reading
        self.for_single = for_single
        self.single: OpenVinoEngine | None = None
        self.smaller = 0  # batches in a row that were smaller than a part
        super().__init__()

    def _open(self) -> None:
        core = openvino_core()
        self.model, self.memory = self._kept(core) or self._compiled(core)
        batch = self.model.inputs[0].get_partial_shape()[0]
        if self.signature is not None:
            self.signature.check(self.path, _ports(self.model.inputs), _ports(self.model.outputs))
        self.part = batch.get_length() if batch.is_static else None
        self.requests: deque[Any] = deque()

    def run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        """Images [N, channels, H, W] → each of `outputs`."""
        self._ready()
        if (single := self._single(len(images))) is not None:
            return single.run(images)
        try:
            values = self._run(images)
        except (RuntimeError, MemoryError) as error:
            model = self.signature.model if self.signature else self.path
            raise Error(f"{model}: OpenVINO failed on {len(images)} images ({_last_line(error)})") from error
        return values if self.signature is None else self.signature.checked(values, len(images))

    def _run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
        parts = list(in_parts(images, self.part))
        if len(parts) == 1:  # at once, which saves handing it to another thread
            request = self._request()
            request.infer(parts, share_inputs=True)
            done = [self._values(request)]
        else:
            running: deque[Any] = deque()
            done: list[list[NDArray[np.float32]]] = []
            for part in parts:
                if len(running) > self.streams:  # one waits, so that no stream has to
                    done.append(self._finish(running.popleft()))
                running.append(self._request())
                running[-1].start_async([part], share_inputs=True)
            done += [self._finish(request) for request in running]
        return {name: joined([values[i] for values in done], len(images)) for i, name in enumerate(self.outputs)}

    def _single(self, count: int) -> OpenVinoEngine | None:
        """The engine for single images where batches of so many should be theirs; the last one of a folder is not."""
        self.smaller = self.smaller + 1 if self.part is not None and count < self.part else 0
        if self.smaller < 2 or self.for_single is None:
            return None
        if self.single is None:
            with self._opening:
                if self.single is None and self.for_single is not None:
                    self.single = self._opened(self.for_single)
                    if self.single is None:
                        self.for_single = None
        return self.single

    def _opened(self, for_single: Callable[[], OpenVinoEngine]) -> OpenVinoEngine | None:
        try:
            single = for_single()
        except Error as error:  # the file went meanwhile, or memory is short: this engine can do without
            log.info("%s is not opened for single images: %s", self.path, error)
            return None
        if single.part == 1:
            return single
        single.close()  # the file is for batches of one size
        return None

    def _request(self) -> Any:
        try:
            return self.requests.pop()
        except IndexError:  # none yet, or all in use
            return self.model.create_infer_request()

    def _finish(self, request: Any) -> list[NDArray[np.float32]]:
        request.wait()
        return self._values(request)

    def _values(self, request: Any) -> list[NDArray[np.float32]]:
        # Copies: the next call writes to the same memory.
        values = [request.get_tensor(name).data.copy() for name in self.outputs]
        self.requests.append(request)
        return values

    def close(self) -> None:
        """Give its memory back."""
        if self.single is not None:
            self.single.close()
        self.requests.clear()
        del self.model, self.memory  # in this order: the model's weights may be in that memory

    def _kept(self, core: Any) -> tuple[Any, NDArray[np.uint8]] | None:
        """What was compiled before, and the memory its weights are in; None where there is nothing to rely on."""
        if self.blob is None:
            return None
        try:
            memory = np.memmap(self.blob, np.uint8, mode="c")  # not "r": OpenVINO takes no memory that is read-only
        except (OSError, ValueError):  # ValueError: it is empty
            return None
        if not cache.is_as_recorded(self.blob, memory.data):
            return None
        with Attempt(self.blob) as attempt:
            if not attempt.advisable:
                return None
            with suppress(RuntimeError):
                return import_model(core, memory, self.settings), memory
        return None

    def _compiled(self, core: Any) -> tuple[Any, NDArray[np.uint8] | None]:
        if self.blob is None:
            return self._compile(core), None
        with suppress(OutputError), locked(self.blob):  # of workers that start together one compiles
            if (kept := self._kept(core)) is not None:
                return kept
            model = self._compile(core)
            if Attempt.may_be_kept(self.blob):
                with cache.recording(self.blob) as temporary:
                    temporary.write_bytes(model.export_model().getbuffer())
            return model, None
        return self._compile(core), None

    def _compile(self, core: Any) -> Any:
        if self.before_reading is not None:
            self.before_reading()
        try:
            model = core.read_model(self.path)
            if self.signature is not None:
                check_operators(self.path, {operation.get_type_name() for operation in model.get_ops()})
                self.signature.check(self.path, _ports(model.inputs), _ports(model.outputs))
            shape = list(model.inputs[0].get_partial_shape())
            if self.wished_part is not None and shape[0].is_dynamic:
                model.reshape([self.wished_part, *shape[1:]])
            return compile_model(core, model, self.settings)
        except (RuntimeError, MemoryError) as error:
            raise CheckpointError(f"{self.path}: OpenVINO cannot run it ({_last_line(error)})") from error


def import_model(core: Any, memory: NDArray[np.uint8], settings: Mapping[str, Any]) -> Any:
    """Have OpenVINO take what it compiled and exported before."""
    import openvino

    return core.import_model(openvino.Tensor(memory, shared_memory=True), "CPU", settings)


def compile_model(core: Any, model: Any, settings: Mapping[str, Any]) -> Any:
    """Have OpenVINO compile a model for this machine."""
    return core.compile_model(model, "CPU", settings)


def _ports(ports: Any) -> list[Port]:
    def port(value: Any) -> Port:
        kind: str = value.get_element_type().get_type_name()
        shape = value.get_partial_shape()
        axes = None
        if not shape.rank.is_dynamic:
            axes = tuple(axis.get_length() if axis.is_static else None for axis in shape)
        return Port(min(value.get_names(), default="without a name"), _DTYPES.get(kind, kind), axes)

    return [port(value) for value in ports]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
