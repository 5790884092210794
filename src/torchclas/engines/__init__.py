"""One interface over what runs networks: PyTorch, torch.compile, ONNX Runtime, OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence

from torchclas.engines.choice import open_fastest
from torchclas.engines.engine import Engine, engine_named, installed, ordered
from torchclas.engines.opening import on_gpu, open_named
from torchclas.spec import ModelSpec
from torchclas.vocabulary import EngineChoice, EngineName, Output, Precision

__all__ = ["Engine", "engine_named", "installed", "open_engine"]


def open_engine(
    spec: ModelSpec,
    engine: EngineChoice = "auto",
    *,
    precision: Precision = "fp32",
    threads: int | None = None,
    batch_size: int = 1,
    device: str = "auto",
    outputs: Sequence[Output] = ("logits",),
) -> Engine:
    """Make a model ready to run, about `batch_size` images at a time.

    `auto` is the fastest engine that is installed for this network on this machine's CPU: measured at the first call,
    remembered from then on. On a GPU it is torch. `device` is as for `torchclas.Classifier`.
    `outputs` are what it gives for each image: logits, embedding (the vector before the classifier), or both at once.

    Raises:
        UnknownNameError: no such engine or output.
        MissingDependencyError: the engine is not installed.
        CheckpointError, DownloadError: the weights cannot be had, or (int8) have not been quantized.
        Error: the engine cannot run this file, in this precision, on this device.
    """

    engine, wanted = engine_named(engine), ordered(outputs)
    if spec.graph is not None and precision == "fp32":
        precision = spec.graph  # fp32 is what callers ask for who say nothing: a quantized file has this one precision

    def open_one(name: EngineName) -> Engine:
        return open_named(
            spec, name, precision=precision, threads=threads, batch_size=batch_size, device=device, outputs=wanted
        )

    if engine != "auto":
        return open_one(engine)
    if spec.graph is None and precision != "int8" and on_gpu(device):
        return open_one("torch")
    return open_fastest(spec, open_one, precision=precision, threads=threads, batch_size=batch_size, outputs=wanted)
