"""Gradients are right, and layouts and precisions agree; of every family, with `SWEEP=all` of every architecture.

Networks are fresh and images small. What cannot be compared so is compared otherwise: deep networks without training
amplify rounding, so memory formats are compared in float64 and bfloat16 block by block; and no step size suits all, so
the gradient is tried by going against it in ever smaller steps.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks import CLASSES, SWEPT, fresh, room_for
from torchclas.layers.network import Network, Stage

pytestmark = pytest.mark.sweep

HALVINGS = 12
BATCH = 4  # of fewer, the batch statistics of gates, which see one value per image, would mean nothing


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    gc.collect()


@pytest.mark.parametrize("arch", SWEPT)
def test_numerics(arch: str) -> None:
    with room_for(arch):
        network = fresh(arch).train()  # the statistics of a fresh network would let its maps overflow
        switch_dropout_off(network)
        images = small_images(network)
        with torch.no_grad():
            check_memory_formats(network, images)
            network.float()
            check_bfloat16(network, images)
        check_bfloat16_gradient(network, images)
        check_gradient(network, images)


def switch_dropout_off(network: nn.Module) -> None:
    for module in network.modules():
        if hasattr(module, "p"):  # every kind of it
            setattr(module, "p", 0.0)  # noqa: B010 - torch types a module's attributes as modules


def small_images(network: Network) -> Tensor:
    """Images that leave last maps of 2×2 pixels or so."""
    size = max(48, network.min_size + 32)
    if network.input_size is not None:
        size = 64
        network.set_input_size(size)
    # Each of its own colour: the batch norms of gates see one value per image, the mean of a map, and images of mere
    # noise have all the same.
    images = torch.randn(BATCH, 3, size, size) + torch.randn(BATCH, 3, 1, 1)
    return images.to(memory_format=torch.channels_last)


def loss_of(network: Network, images: Tensor) -> Tensor:
    """Mean over all heads that training supervises."""
    targets = torch.arange(BATCH) % CLASSES
    return torch.stack([F.cross_entropy(head, targets) for head in network.forward_heads(images)]).mean()


def backward(network: Network, images: Tensor) -> float:
    """Leave gradients in the parameters; returns the loss."""
    loss = loss_of(network, images)
    loss.backward()
    return loss.item()


def check_memory_formats(network: Network, images: Tensor) -> None:
    network, images = network.double(), images.double()
    plain = network(images.contiguous())
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    last = network(images)
    assert (last - plain).abs().max() <= 1e-6 * plain.abs().max()


def check_bfloat16(network: Network, images: Tensor) -> None:
    """The whole network stays finite, and each of its blocks near what float32 makes of the same input."""
    with torch.autocast("cpu", torch.bfloat16):
        assert network(images).isfinite().all()

    calls: list[tuple[nn.Module, Any, Any]] = []
    blocks = [block for stage in network.modules() if isinstance(stage, Stage) for block in stage]
    hooks = [
        # copies, because what comes next may work in place
        module.register_forward_hook(lambda *call: calls.append((call[0], copied(call[1]), copied(call[2]))))
        for module in (network.stem, *blocks, network.neck, network.head, network.classifier)
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    assert len(calls) >= len(blocks)
    for module, given, expected in calls:
        with torch.autocast("cpu", torch.bfloat16):
            got = module(*given)
        for one, other in zip(tensors(got), tensors(expected), strict=True):
            assert (one.float() - other).norm() <= 0.1 * other.norm(), module


def check_bfloat16_gradient(network: Network, images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(network, images)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    network.zero_grad()


def check_gradient(network: Network, images: Tensor) -> None:
    """It is the same when checkpointing recomputes what it needs, and it leads downhill."""
    before = backward(network, images)

    def compare(parameter: nn.Parameter, recomputed: Tensor) -> Tensor:
        torch.testing.assert_close(recomputed, parameter.grad)
        return torch.zeros_like(recomputed)  # what is added to the first gradient

    hooks = [parameter.register_hook(partial(compare, parameter)) for parameter in network.parameters()]
    network.set_gradient_checkpointing(True)
    backward(network, images)
    network.set_gradient_checkpointing(False)
    for hook in hooks:
        hook.remove()

    with torch.no_grad():
        gradients = [(parameter, parameter.grad) for parameter in network.parameters() if parameter.grad is not None]
        slope = sum(gradient.double().square().sum().item() for _, gradient in gradients)
        step, gone, lowered = 0.5 * before / slope, 0.0, 0.0
        for _ in range(HALVINGS):
            for parameter, gradient in gradients:
                parameter.sub_(gradient, alpha=step - gone)
            gone = step
            lowered = before - loss_of(network, images).item()
            if lowered >= 0.1 * step * slope:  # a tenth of what the gradient promises
                return
            step /= 2
    pytest.fail(f"going {gone:.1e} against the gradient lowers the loss of {before:.4f} by {lowered:.1e} only")


def copied(value: Any) -> Any:
    """A tensor or a tuple of such."""
    return value.clone() if isinstance(value, Tensor) else tuple(map(copied, value))


def tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [tensor for part in value for tensor in tensors(part)]
