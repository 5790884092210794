"""What every architecture must be able to do besides computing the right logits.

Tracing happens on the meta device, where it costs no arithmetic; the rest on images as small as the graph takes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.parity.golden import cases, golden
from torchclas import models
from torchclas.layers.network import Network, Stage

pytestmark = pytest.mark.sweep

ARCHITECTURES = models.architectures()
REFERENCED = {arch for arch, _ in cases()}
CLASSES = 4


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    torch.compiler.reset()
    gc.collect()


def published_size(arch: str) -> int:
    return golden(arch).input_shape[-1] if arch in REFERENCED else 224


def small_size(network: Network) -> int:
    """Where the graph takes any size, 96 pixels keep maps of 3 × 3 at stride 32."""
    return network.input_size or 96


def built(arch: str, device: str = "cpu") -> Network:
    with torch.device(device):
        return models.build(arch, num_classes=CLASSES)


def images(network: Network, batch: int = 2) -> Tensor:
    size = small_size(network)
    return torch.randn(batch, 3, size, size, device=next(network.parameters()).device)


def calibrate(network: Network, batch: Tensor) -> None:
    """Give batch norms the statistics of `batch`: without, a fresh deep network's outputs may overflow."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network(batch)
    for norm in norms:
        norm.momentum = 0.1


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


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_channels_last_autocast_training_and_checkpointing(arch: str) -> None:
    """One network serves all four, because the largest take gigabytes to build."""
    network = built(arch)
    batch = images(network)
    with torch.no_grad():
        calibrate(network, batch)
        network.eval()
        plain = network(batch)
        last = network.to(memory_format=torch.channels_last)(batch.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(network(batch)).all()

    network.train()
    for module in network.modules():
        if hasattr(module, "p"):  # every kind of dropout
            module.p = 0.0  # the second loss must be comparable with the first
    targets = torch.arange(len(batch)) % CLASSES
    network.set_gradient_checkpointing(any(isinstance(module, Stage) for module in network.modules()))
    losses: list[float] = []
    for _ in range(2):
        heads = network.forward_heads(batch)
        loss = torch.stack([nn.functional.cross_entropy(head, targets) for head in heads]).mean()
        losses.append(loss.item())
        network.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            gradients = [p for p in network.parameters() if p.grad is not None]
            assert len(gradients) > 0.9 * len(list(network.parameters()))
            norm = torch.stack([p.grad.norm() for p in gradients if p.grad is not None]).norm()
            for parameter in gradients:
                parameter -= 1e-2 / (norm + 1e-6) * parameter.grad
    assert losses[1] < losses[0]
