"""What tracing a network for export takes: example images, which of their axes are free, and quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchclas.exporting.preprocess import FromPixels
from torchclas.layers.network import Network
from torchclas.vocabulary import Output
from torchclas.weights.metadata import Metadata

BATCH = "batch"  # what the first axis is called where it takes any number


def traceable(network: Network, metadata: Metadata, *, pixels: bool) -> nn.Module:
    """The network with the metadata's outputs, behind its preprocessing where its input is `pixels`."""
    module = network if metadata.outputs == ("logits",) else _Outputs(network, metadata.outputs).eval()
    return FromPixels(module, metadata.preset).eval() if pixels else module


class _Outputs(nn.Module):
    """A network with other outputs, whose modules keep their names: the graph's nodes are called after them."""

    def __init__(self, network: Network, outputs: tuple[Output, ...]) -> None:
        super().__init__()
        for name, child in network.named_children():
            self.add_module(name, child)
        self._compute = partial(network.outputs, wanted=outputs)
        self._single = len(outputs) == 1

    def forward(self, images: Tensor) -> Any:
        outputs = self._compute(images)
        return outputs[0] if self._single else outputs


def example(metadata: Metadata, *, batch: int | None, pixels: bool) -> tuple[Tensor, tuple[Any, ...] | None]:
    """Images to trace with, and their free axes as `torch.export` wants them; without `batch` that is one of them."""
    count = batch or 2  # 1 would be taken for a constant
    dim = torch.export.Dim
    axes: dict[int, Any] = {} if batch else {0: dim(BATCH)}
    height, width = metadata.preset.size
    if not pixels:
        return torch.zeros(count, metadata.in_channels, height, width), (axes,) if axes else None
    axes |= {1: dim("height"), 2: dim("width")}
    return torch.zeros(count, height + 61, width + 87, 3, dtype=torch.uint8), (axes,)


@contextmanager
def export_mode() -> Generator[None, None, None]:
    """Trace without gradients, attention as plain arithmetic, and without remarks users cannot act on."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Fused attention has strides of its own choice, on which a traced graph would insist.
        with warnings.catch_warnings(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def out_of_place(network: nn.Module) -> Generator[None, None, None]:
    """Let no module overwrite its input: of what does, torch makes twice the work, and reshapes without an effect."""
    changed: list[Any] = [module for module in network.modules() if getattr(module, "inplace", False) is True]
    for module in changed:
        module.inplace = False
    try:
        yield
    finally:
        for module in changed:
            module.inplace = True
