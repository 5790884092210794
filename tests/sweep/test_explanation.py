"""Heat maps of every family, with `SWEEP=all` of every architecture, with weights that nobody has trained."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.networks import SWEPT, fresh, room_for
from torchclas.explanation.relevance import relevance
from torchclas.layers.network import Network

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("one_thread")]

SIDE = 128  # pixels, of which every network leaves several places


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    gc.collect()


def settle(network: Network, images: Tensor) -> None:
    """Give batch norms the statistics of these images: with those of a fresh network maps would overflow."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a mean over all batches, of which there is one
    with torch.no_grad():
        network.train()(images)
    network.eval()


def classes_of(logits: Tensor) -> Tensor:
    return logits.topk(2).indices


@pytest.mark.parametrize("arch", SWEPT)
def test_maps(arch: str) -> None:
    with room_for(arch):
        network = fresh(arch)
        network.set_input_size(SIDE)
        images = torch.randn(2, 3, SIDE, SIDE)
        settle(network, images)
        check(network, images)


def check(network: Network, images: Tensor) -> None:
    before = {name: parameter.clone() for name, parameter in list(network.named_parameters())[:3]}
    logits, maps = relevance(network, images, classes_of)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(images))
    assert maps.shape == (2, 2, *network.feature_sizes(SIDE)[-1])
    assert maps.isfinite().all()
    assert (maps.amax((2, 3)) > maps.amin((2, 3))).all(), "places count alike"
    assert not torch.equal(maps[0, 0], maps[1, 0]), "all images have one map"
    again = relevance(network, images, classes_of)[1]
    assert torch.equal(maps, again)
    assert not maps.requires_grad
    for name, parameter in network.named_parameters():
        assert parameter.grad is None
        if name in before:
            assert torch.equal(parameter, before[name])
    averages = (nn.AdaptiveAvgPool2d, nn.Flatten, nn.Dropout)
    if all(isinstance(layer, averages) for layer in network.head.children()) and isinstance(
        network.head, nn.Sequential
    ):
        assert isinstance(network.classifier, nn.Linear)
        total = maps.sum((2, 3)) + network.classifier.bias[classes_of(logits)]
        torch.testing.assert_close(total, logits.gather(1, classes_of(logits)), rtol=1e-3, atol=1e-4)
