"""The surface that every network of the zoo has in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from torchclas.errors import ImageSizeError

# A family's table: architecture → its class and what its constructor is given.
Variants = dict[str, tuple[type["Network"], dict[str, Any]]]

# A family's layouts: name → rules (ours, published[, "linear"]); see torchclas.weights.renames. A name may say which
# architectures it is for, as globs behind a colon; the first row that fits counts.
Renames = dict[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class FeatureInfo:
    """One map of `Network.features`: the stage it leaves, its stride in pixels, its channels."""

    stage: int
    stride: int
    channels: int


class Stage(nn.Sequential):
    """Blocks in a row; `Network.set_gradient_checkpointing` makes training recompute instead of store them."""

    checkpointing: bool = False

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the last block returns."""
        for block in self:
            recompute = self.checkpointing and self.training and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x


class Network(nn.Module):
    """A classifier made of stem → stages → neck → head → classifier.

    A family's constructor assigns those five modules and `feature_info`, then calls `init_weights`:

    - `stem`: image [N, in_channels, H, W] → first map.
    - `stages`: groups of blocks, as the paper's table has them.
    - `neck`: what stands between the last stage and pooling; often nothing.
    - `head`: last map → vector of `num_features` per image (pooling, dropout …).
    - `classifier`: vector → logits; the identity when `num_classes` is 0.

    `arch` is the name it was built under (empty when a class is used directly). `preset` says how images are prepared
    for its weights, a `torchclas.catalog.Preset` that `create_model` sets. `input_size` is the one image size
    that a network with position embeddings takes (see `set_input_size`); None where every size from `min_size` on will
    do. Unpadded convolutions and poolings leave nothing of smaller images.
    """

    stem: nn.Module
    stages: nn.Sequential
    neck: nn.Module
    head: nn.Module
    classifier: nn.Module
    feature_info: tuple[FeatureInfo, ...]
    num_features: int
    num_classes: int
    in_channels: int
    arch: str = ""
    preset: object = None
    input_size: int | None = None
    min_size: int = 1

    def forward_features(self, x: Tensor) -> Tensor:
        """Image [N, in_channels, H, W] → the last map, before pooling."""
        self.check_image(x)
        return self.neck(self.stages(self.stem(x)))

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at several scales, finest first, as `feature_info` lists them."""
        wanted = {info.stage for info in self.feature_info}
        maps: list[Tensor] = []
        self.check_image(x)
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in wanted:
                maps.append(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Last map → logits [N, num_classes], or the vector [N, num_features] before them."""
        x = self.head(x)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Image [N, in_channels, H, W] → logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))

    def forward_heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of every head that training supervises; the first is the main one. Most networks have just that."""
        return (self(x),)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a fresh one for `num_classes`; 0 makes the network return its vectors."""
        like = next(self.parameters())
        self.classifier = self.make_classifier(num_classes).to(device=like.device, dtype=like.dtype)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """A fresh last layer, initialised."""
        self.num_classes = num_classes
        if num_classes == 0:
            return nn.Identity()
        layer = nn.Linear(self.num_features, num_classes)
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
        return layer

    def set_input_size(self, size: int) -> None:
        """Prepare for square images of `size` pixels, keeping the weights.

        Only networks with an `input_size` need it: their position embeddings are interpolated. Raises `ImageSizeError`
        for a size that the graph cannot take.
        """
        least = max(self.min_size, self.feature_info[-1].stride)
        if size < least:
            raise ImageSizeError(f"{self.arch or type(self).__name__} needs images of at least {least} px, not {size}")

    def check_image(self, x: Tensor, *, min_size: int = 1) -> None:
        """Raise `ImageSizeError` for an image of another size than `input_size`, or too small.

        `min_size` is what the caller needs beyond the network's own.
        """
        height, width = x.shape[-2:]
        size, least = self.input_size, max(self.min_size, min_size)
        if size is not None and (height != size or width != size):
            raise ImageSizeError(
                f"{self.arch or type(self).__name__} is set to {size} px, this image has {height}×{width}: "
                "call set_input_size first, or resize the image"
            )
        if height < least or width < least:
            raise ImageSizeError(
                f"{self.arch or type(self).__name__} needs images of at least {least} px, this one has "
                f"{height}×{width}: resize it, or choose another network"
            )

    def fuse(self) -> Self:
        """Fold what only training needs into plain layers, in place; outputs stay. Most have nothing to fold."""
        return self

    def set_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Trade about a third more computation in training for memory that no longer grows with depth."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.checkpointing = enabled

    def init_weights(self) -> None:
        """Initialise for training from scratch; the default is He's normal over each filter's inputs."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
