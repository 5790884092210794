"""Every architecture compiles and exports. Tracing happens on the meta device, where it costs no arithmetic."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from torchclas import models
from torchclas.layers.network import Network

pytestmark = pytest.mark.sweep

ARCHITECTURES = models.architectures()
CLASSES = 4


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.compiler.reset()
    gc.collect()


def small_size(network: Network) -> int:
    """Where the graph takes any size, 96 pixels keep maps of 3 × 3 at stride 32."""
    return network.input_size or 96


def built(arch: str, device: str = "cpu") -> Network:
    with torch.device(device):
        return models.build(arch, num_classes=CLASSES)


def images(network: Network, batch: int = 2) -> Tensor:
    size = small_size(network)
    return torch.randn(batch, 3, size, size, device=next(network.parameters()).device)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_compiles_without_graph_breaks(arch: str) -> None:
    network = built(arch, "meta").eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert compiled(images(network)).shape == (2, CLASSES)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_exports_with_a_dynamic_batch(arch: str) -> None:
    network = built(arch, "meta").eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (images(network),), dynamic_shapes=({0: batch},))
    assert program.module()(images(network, batch=3)).shape == (3, CLASSES)
