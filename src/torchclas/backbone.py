"""Networks as backbones of detectors and segmenters: maps at several scales, without what only classifiers need."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import SupportsIndex

from torch import Tensor, nn
from typing_extensions import Never, Self

from torchclas.catalog import Preset
from torchclas.counterparts import refuse
from torchclas.errors import Error
from torchclas.layers.network import Network, count_of
from torchclas.sizes import Size
from torchclas.spec import preset_of
from torchclas.zoo import create_model


class Backbone(nn.Module):
    """Image [N, in_channels, H, W] → a list of maps [N, channels[i], H / strides[i], W / strides[i]].

    Made by `create_backbone`. `channels` and `strides` (in pixels) are those of the maps, in the order of the list;
    `sizes` gives the exact heights and widths. `preset` says how images were prepared for the weights: its `mean` and
    `std`, of RGB in 0..1, are what a detector needs of it. Of `network`, which this takes over, the layers behind the
    last of the maps are gone.
    """

    def __init__(self, network: Network, out_indices: Sequence[SupportsIndex] | None = None) -> None:
        super().__init__()
        infos = network.feature_info
        self.out_indices = _checked(network, out_indices)
        self.channels = tuple(infos[index].channels for index in self.out_indices)
        self.strides = tuple(infos[index].stride for index in self.out_indices)
        self.preset: Preset = preset_of(network)
        # Nothing may stay that has parameters and no gradient: DistributedDataParallel would wait for it.
        for name, _ in list(network.named_children()):
            if name not in ("stem", "stages"):
                setattr(network, name, nn.Identity())
        last = max(infos[index].stage for index in self.out_indices)
        for stage in range(last + 1, len(network.stages)):
            network.stages[stage] = nn.Identity()
        self.network = network

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.network.in_channels

    @property
    def input_size(self) -> Size | None:
        """The one image size, [height, width], that a transformer is set to; None where every size will do."""
        return self.network.input_size

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps; raises `ImageSizeError` for an image that is too small, or not of `input_size`."""
        maps = self.network.features(x)
        return [maps[index] for index in self.out_indices]

    def sizes(self, height: int, width: int | None = None) -> tuple[tuple[int, int], ...]:
        """Height and width of every map for an image of `height` × `width` pixels, or a square one.

        Raises `ImageSizeError` for an image that the network does not take.
        """
        sizes = self.network.feature_sizes(height, width)
        return tuple(sizes[index] for index in self.out_indices)

    def set_input_size(self, size: int | Size) -> None:
        """`Network.set_input_size`: what transformers need before they take images of another size."""
        self.network.set_input_size(size)

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Trade about a third more computation in training for memory that no longer grows with depth."""
        self.network.set_gradient_checkpointing(enabled)

    def fuse(self) -> Self:
        """Fold what only training needs into plain layers, in place; the maps stay."""
        self.network.fuse()
        return self


def create_backbone(
    name: str | Path,
    *,
    out_indices: Sequence[SupportsIndex] | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    in_channels: int | None = None,
    **others: Never,
) -> Backbone:
    """Build a network that returns a list of maps [N, C, H, W], in training mode.

    `out_indices` choose among the maps of `Network.features`, which are counted from 0, the finest, and from -1, the
    coarsest; they come in the order given, by default all of them, finest first. The other arguments are those of
    `create_model`.

    Raises:
        Error: there is no such map, or one is asked for twice.
        UnknownNameError, CheckpointError, DownloadError: as `create_model`.
        UnknownArgumentError: a word of timm or torchvision; the message says what it is called here.
    """
    refuse("create_backbone", others, inspect.signature(create_backbone).parameters)
    network = create_model(name, pretrained, weights=weights, num_classes=0, in_channels=in_channels)
    return Backbone(network, out_indices)


def _checked(network: Network, wanted: Sequence[SupportsIndex] | None) -> tuple[int, ...]:
    """Places in `feature_info`, counted from 0."""
    infos = network.feature_info
    if wanted is None:
        return tuple(range(len(infos)))
    chosen = [count_of("a map of out_indices", index, least=-len(infos)) for index in wanted]
    if not chosen or max(chosen) >= len(infos):
        strides = ", ".join(str(info.stride) for info in infos)
        what = f"not {max(chosen)}" if chosen else "and at least one is needed"
        raise Error(f"{network.arch} has the maps 0 to {len(infos) - 1} (strides {strides}), {what}")
    places = tuple(index % len(infos) for index in chosen)
    if len(set(places)) < len(places):
        raise Error(f"out_indices {tuple(chosen)} name a map of {network.arch} twice")
    return places
