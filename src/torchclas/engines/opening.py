"""From a model and an engine's name to the engine, ready to run."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from ctypes.util import find_library
from functools import partial
from pathlib import Path

from torchclas.engines import compiled
from torchclas.engines.engine import PRECISIONS, Engine, version
from torchclas.engines.forks import with_openmp
from torchclas.engines.graph import Signature
from torchclas.engines.machine import usable_threads
from torchclas.errors import CheckpointError, Error, UnknownNameError
from torchclas.spec import ModelSpec
from torchclas.vocabulary import EngineName, Output, Precision
from torchclas.weights.exported import RUNTIMES


def open_named(
    spec: ModelSpec,
    engine: EngineName,
    *,
    precision: Precision = "fp32",
    threads: int | None = None,
    batch_size: int = 1,
    device: str = "auto",
    outputs: tuple[Output, ...] = ("logits",),
) -> Engine:
    """Open one engine; see `torchclas.engines.open_engine`."""
    _check(spec, engine, precision, device)
    if engine in ("torch", "compile"):
        from torchclas.engines.eager import TorchEngine
        from torchclas.zoo import load_model

        return with_openmp(
            lambda: TorchEngine(
                load_model(spec),
                precision=precision,
                threads=threads,
                device=device,
                compiled=engine == "compile",
                outputs=outputs,
            )
        )
    path, given = _graph_with(outputs, spec, precision)
    if engine in RUNTIMES.values():
        from torchclas.engines.runtime_file import RuntimeFileEngine

        return RuntimeFileEngine(
            path,
            engine,
            precision=precision,
            threads=threads,
            outputs=outputs,
            signature=Signature.of(spec, given),
        )
    signature, before_reading = Signature.of(spec, given), partial(compiled.before_reading, spec, path)
    if engine == "onnxruntime":
        from torchclas.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(
            path,
            precision=precision,
            threads=threads,
            outputs=outputs,
            signature=signature,
            before_reading=before_reading,
        )
    from torchclas.engines.openvino import OpenVinoEngine, split

    threads = threads or usable_threads()

    def opened(size: int, for_single: Callable[[], OpenVinoEngine] | None = None) -> OpenVinoEngine:
        shape = split(size, threads)
        return OpenVinoEngine(
            path,
            precision=precision,
            threads=threads,
            batch_size=size,
            blob=compiled.derived(spec, path, f"openvino-{precision}.blob", version(engine), threads, *shape),
            outputs=outputs,
            signature=signature,
            before_reading=before_reading,
            for_single=for_single,
        )

    return opened(batch_size, None if batch_size == 1 else partial(opened, 1))


def _graph_with(outputs: tuple[Output, ...], spec: ModelSpec, precision: Precision) -> tuple[Path, tuple[Output, ...]]:
    """The graph of a model, and what it gives; raises `CheckpointError` where that is not all of `outputs`."""
    graph = compiled.int8_file(spec) if precision == "int8" else compiled.graph_file(spec, outputs)
    path = graph.absolute()
    given = compiled.graph_outputs(spec, path)
    if missing := [name for name in outputs if name not in given]:
        again = "quantize" if precision == "int8" else "export"
        raise CheckpointError(
            f"{path} gives {', '.join(given)}, and no {missing[0]}: {again} it again, with this output"
        )
    return path, given


def _check(spec: ModelSpec, engine: EngineName, precision: Precision, device: str) -> None:
    """Raise `Error` for a combination that cannot be."""
    if precision not in PRECISIONS[engine]:
        able = ", ".join(name for name, precisions in PRECISIONS.items() if precision in precisions)
        if not able:
            known = dict.fromkeys(known for precisions in PRECISIONS.values() for known in precisions)
            raise UnknownNameError("precision", precision, known, f"choose from {', '.join(known)}")
        raise Error(f"{engine} does not compute in {precision} here: use {able}, or another precision")
    runtime = RUNTIMES.get(Path(spec.path or "").suffix)
    if runtime is not None and engine != runtime:
        raise Error(f"{spec.path} is in {runtime}'s own format: use the engine {runtime}")
    if runtime is None and engine in RUNTIMES.values():
        raise Error(f"{engine} runs files of its own format: `torchclas export {spec.name} --to {engine}` writes one")
    if spec.graph is not None and engine in ("torch", "compile"):
        raise Error(f"{spec.path} is an exported model, which {engine} cannot run: use onnxruntime or openvino")
    if Path(spec.path or "").suffix == ".xml" and engine != "openvino":
        raise Error(f"{spec.path} is in OpenVINO's own format: use the engine openvino")
    if spec.graph == "int8" and precision != "int8":
        raise Error(f"{spec.path} is quantized, it does not compute in {precision}: use int8")
    if precision == "fp16" and spec.graph != "fp16":
        raise Error(f"{spec.path or spec.name} was not exported in fp16: use `torchclas export --precision fp16`")
    if engine in ("onnxruntime", "openvino") and device not in ("auto", "cpu"):
        raise Error(f"{engine} runs on the CPU: on {device} use the engine torch")


def on_gpu(device: str) -> bool:
    """Whether `device` is, or `auto` would find, another than the CPU; imports torch only where there may be one."""
    if device != "auto":
        return device != "cpu"
    if not _has_driver():
        return False
    from torchclas.engines.eager import find_device

    return find_device(device).type != "cpu"


def _has_driver() -> bool:
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return find_library("nvcuda") is not None
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
