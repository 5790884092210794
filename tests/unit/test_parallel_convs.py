"""Parallel convolutions fold into one that gives the same output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchclas import models
from torchclas.layers.parallel_convs import ParallelConvs


def randomize_norms(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "kernel_sizes", "stride", "groups"),
    [
        (8, 8, (3, 1), 1, 1),
        (8, 8, (3, 1), 1, 4),
        (8, 16, (3, 1), 1, 2),
        (8, 8, (5, 3), 2, 8),
        (8, 8, (5, 3, 1), 1, 8),
    ],
)
def test_folded_equals_the_sum(
    in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...], stride: int, groups: int
) -> None:
    torch.manual_seed(0)
    convs = ParallelConvs(in_channels, out_channels, kernel_sizes, stride, groups=groups, identity=True).double()
    randomize_norms(convs)
    assert (convs.identity is not None) == (stride == 1 and in_channels == out_channels)
    image = torch.randn(2, in_channels, 9, 10, dtype=torch.float64)
    folded = convs.folded()
    assert isinstance(folded, nn.Conv2d)
    torch.testing.assert_close(folded(image), convs.eval()(image))


def test_fusing_repvgg_keeps_its_logits_and_leaves_one_convolution_per_block() -> None:
    torch.manual_seed(0)
    network = models.build("RepVGG_A0", num_classes=5).double()
    randomize_norms(network)
    network.eval()
    image = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    with torch.inference_mode():
        before = network(image)
        after = network.fuse()(image)
    assert (after - before).abs().max() <= 1e-6 * before.abs().max()
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 1 + 2 + 4 + 14 + 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
