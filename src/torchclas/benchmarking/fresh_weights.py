"""Weights to time a network with where the published ones are not on this machine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from torchclas import models
from torchclas.catalog import Entry
from torchclas.layers.network import Network
from torchclas.sizes import Size
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

SETTLING_IMAGES = 4


def write_fresh_weights(entry: Entry, path: Path) -> None:
    """Write a checkpoint of `entry`'s network with random weights.

    A plainly initialised network lets values grow or shrink from layer to layer, in the end to infinity or to denormal
    numbers, which some processors take a hundred times as long for. So every batch norm first sees a few random images
    and takes its statistics from them.
    """
    torch.manual_seed(0)
    network = models.build(entry.arch, num_classes=entry.num_classes).eval()
    network.set_input_size(entry.preset.size)
    _settle(network, entry.preset.size)
    save_checkpoint(network, path, Metadata.published(entry, source="random weights, for timing alone"))


def _settle(network: Network, size: Size) -> None:
    norms = [module for module in network.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = None  # plain averages, of this one batch
    with torch.no_grad():
        network(torch.randn(SETTLING_IMAGES, network.in_channels, *size))
    network.eval()
