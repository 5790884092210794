"""Networks for ExecuTorch, by its XNNPACK backend for the CPUs of phones."""

from __future__ import annotations

from pathlib import Path

import torch

from torchclas.exporting.trace import example, export_mode, traceable
from torchclas.layers.network import Network
from torchclas.weights.metadata import Metadata


def write_executorch(network: Network, path: Path, metadata: Metadata, *, batch: int) -> None:
    """Write a network in evaluation mode: float32 [batch, channels, height, width] → the metadata's outputs."""
    with export_mode():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        images, _ = example(metadata, batch=batch, pixels=False)
        program = torch.export.export(traceable(network, metadata, pixels=False), (images,))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        with path.open("wb") as file:
            lowered.write_to_file(file)
