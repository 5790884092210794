"""Networks as files of `torch.export`: for AOTInductor, converters, and C++."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchclas.exporting.trace import example, export_mode, traceable
from torchclas.layers.network import Network
from torchclas.weights.metadata import KEY, Metadata


def write_program(
    network: Network,
    path: str | Path,
    metadata: Metadata,
    *,
    batch: int | None = None,
    pixels: bool = False,
) -> None:
    """Write a network in evaluation mode; input and output are as `torchclas.exporting.onnx.write_onnx` has them."""
    images, free = example(metadata, batch=batch, pixels=pixels)
    with export_mode():
        program = torch.export.export(traceable(network, metadata, pixels=pixels), (images,), dynamic_shapes=free)
        torch.export.save(program, path, extra_files={KEY: metadata.to_json()})


class ProgramFile:
    """A `torch.export` file, run by PyTorch."""

    def __init__(self, path: Path) -> None:
        with export_mode():
            notes = {KEY: ""}
            self._module: Any = torch.export.load(path, extra_files=notes).module()
        self._outputs = Metadata.from_json(notes[KEY]).outputs

    @torch.no_grad()
    def __call__(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """What the program gives, by name."""
        values = self._module(torch.from_numpy(images))
        values = (values,) if isinstance(values, torch.Tensor) else values
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}

    def layers(self, images: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Module and value of every operation, in the order in which they run."""
        values: list[tuple[str, NDArray[Any]]] = []

        class Recorder(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                value = super().run_node(n)
                modules = n.meta.get("nn_module_stack")
                if modules and isinstance(value, torch.Tensor):
                    values.append((list(modules.values())[-1][0], value.numpy().copy()))
                return value

        with torch.no_grad():
            Recorder(self._module).run(torch.from_numpy(images))
        yield from values
