"""Size and cost of a network, computed without allocating it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from torchclas import models


@dataclass(frozen=True)
class Complexity:
    """`params`: trainable parameters. `macs`: multiply–accumulates of one image, which papers call FLOPs."""

    params: int
    macs: int


def complexity(arch: str, *, num_classes: int = 1000, size: int = 224) -> Complexity:
    """Parameters and multiply–accumulates of `arch` for one RGB image of `size` × `size` pixels.

    Convolutions and matrix products are counted, as the published tables do; norms, activations and pooling are not.
    """
    with torch.device("meta"):
        network = models.build(arch, num_classes=num_classes).eval()
        image = torch.empty(1, 3, size, size)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(image)
    params = sum(parameter.numel() for parameter in network.parameters())
    return Complexity(params, counter.get_total_flops() // 2)
