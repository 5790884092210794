"""Every architecture has the common surface and compiles; test_export.py exports it.

All of it happens on the meta device, where it costs no arithmetic.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.networks import ARCHITECTURES, CLASSES, REPRESENTATIVES, SWEPT, fresh
from tests.parity.golden import cases
from tests.unit.test_backbone import KINDS, check_maps
from tests.unit.test_surface import check_parameter_count, check_surface
from torchclas.layers.network import Network

REFERENCED = {arch for arch, _ in cases()}
pytestmark = pytest.mark.sweep


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.compiler.reset()
    gc.collect()


def images(network: Network) -> Tensor:
    """Where the graph takes any size, 96 pixels keep maps of 3 × 3 at stride 32."""
    size = network.input_size[0] if network.input_size else 96
    return torch.empty(2, 3, size, size, device="meta")


@pytest.mark.parametrize("arch", sorted(set(ARCHITECTURES) - set(REPRESENTATIVES)))
def test_surface(arch: str) -> None:
    check_surface(arch)
    if arch in REFERENCED:
        check_parameter_count(arch)


@pytest.mark.parametrize("arch", sorted(set(SWEPT) - set(KINDS)))
def test_maps(arch: str) -> None:
    check_maps(arch)


@pytest.mark.parametrize("arch", SWEPT)
def test_compiles_without_graph_breaks(arch: str) -> None:
    network = fresh(arch, "meta").eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert compiled(images(network)).shape == (2, CLASSES)
