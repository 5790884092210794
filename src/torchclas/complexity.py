"""Size and cost of a network, computed without allocating it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from torchclas import models
from torchclas.sizes import Size, to_size


@dataclass(frozen=True)
class Complexity:
    """What one RGB image costs.

    `params`: trainable parameters. `macs`: multiply–accumulates of convolutions and matrix products, attention's
    included, which papers call FLOPs. `published_macs`: what upstream's counter makes of the network, and so what the
    catalog's figures are to be compared with. It adds two operations per output of a batch norm, one per input and
    output of global pooling and one per bias of a convolution, leaves out attention's matrix products, and looks at the
    fused network.
    """

    params: int
    macs: int
    published_macs: int


def complexity(arch: str, *, num_classes: int = 1000, size: int | Size = 224) -> Complexity:
    """The cost of `arch` for images of `size` pixels, a side or [height, width]."""
    with torch.device("meta"):
        network = models.build(arch, num_classes=num_classes).eval()
        image = torch.empty(1, 3, *to_size(size))
        params = sum(parameter.numel() for parameter in network.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(image)
        fused = network.fuse()
    upstream = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal upstream
        if isinstance(module, nn.Conv2d):
            upstream += output.numel() * (module.weight[0].numel() + (module.bias is not None))
        elif isinstance(module, nn.Linear):
            upstream += output.numel() * module.in_features
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            upstream += 2 * output.numel()
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            upstream += inputs[0].numel() + output.numel()

    for module in fused.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        fused(image)
    return Complexity(params, counter.get_total_flops() // 2, upstream)


def parameters(arch: str, *, num_classes: int, in_channels: int = 3, size: int | Size = 224) -> int:
    """How many numbers `arch` learns, for images of `size` pixels, a side or [height, width]."""
    with torch.device("meta"):
        network = models.build(arch, num_classes=num_classes, in_channels=in_channels)
        network.set_input_size(to_size(size))
    return sum(parameter.numel() for parameter in network.parameters())
