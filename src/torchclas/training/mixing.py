"""Mixup and CutMix, the same whenever a step is repeated and however many processes share its batch."""

from __future__ import annotations

from math import sqrt
from random import Random

import torch
from torch import Tensor

from torchclas.recipes import Augment


def mix(images: Tensor, targets: Tensor, settings: Augment, *, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """A batch mixed by Mixup (arXiv 1710.09412), by CutMix (arXiv 1905.04899) or not at all, as the recipe draws lots.

    `images` are [N, C, H, W] and `targets` probabilities [N, classes]; both are left as they are. Everything random
    depends on `seed` and `step` alone, and an image is mixed with its neighbour (batches come shuffled): processes that
    hold an even number of images each do together what one does. The last of an odd number stays as it is.
    """
    random = Random(f"{seed}/{step}")
    lot = random.random()
    if lot < settings.mixup_prob:
        share = random.betavariate(settings.mixup, settings.mixup)
        partners = _partners(images)
        return images.lerp(images[partners], 1 - share), targets.lerp(targets[partners], 1 - share)
    if lot < settings.mixup_prob + settings.cutmix_prob:
        share = random.betavariate(settings.cutmix, settings.cutmix)
        partners = _partners(images)
        height, width = images.shape[-2:]
        rows, columns = _box(height, width, share, random)
        pasted = images.clone()
        pasted[..., rows, columns] = images[partners][..., rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return pasted, targets.lerp(targets[partners], area)
    return images, targets


def _partners(images: Tensor) -> Tensor:
    """0 and 1 swap, 2 and 3 swap …"""
    indices = torch.arange(len(images), device=images.device)
    return (indices ^ 1).clamp(max=len(images) - 1)


def _box(height: int, width: int, share: float, random: Random) -> tuple[slice, slice]:
    """A box of 1 − share of the area with its centre anywhere, cut off at the border."""
    side = sqrt(1 - share)

    def extent(length: int) -> slice:
        centre, half = random.randrange(length), int(length * side) // 2
        return slice(max(0, centre - half), min(length, centre + half))

    return extent(height), extent(width)
