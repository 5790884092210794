"""Twins: Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", arXiv 2104.13840.

`pcpvt_*` are the paper's Twins-PCPVT, `alt_gvt_*` its Twins-SVT.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.attention import Attention, merge_heads, split_heads
from torchclas.layers.conv import global_pool
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.norm import LayerNorm2d
from torchclas.layers.patch import from_windows, to_windows
from torchclas.layers.reduced_attention import ReducedAttention
from torchclas.layers.residual import Residual
from torchclas.layers.transformer import TransformerBlock, drop_path_rates, init_linear_layers

# Tables 1 and 2: keys and values come from a map this much smaller, per stage.
REDUCTIONS = (8, 4, 2, 1)
WINDOW = 7


def patches(in_channels: int, out_channels: int, size: int) -> nn.Module:
    """A linear layer over patches of `size` × `size` pixels, then a norm: what makes a map smaller."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, size, size), LayerNorm2d(out_channels))


class WindowAttention(Attention):
    """Attention among the 7×7 pixels of each window (the paper's LSA); a map that does not divide is padded."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] → the same shape."""
        height, width = x.shape[1:3]
        padding = (0, -width % WINDOW, 0, -height % WINDOW)
        mask = None
        if any(padding):  # nothing attends to what was padded
            inside = F.pad(torch.ones(1, height, width, 1, dtype=torch.bool, device=x.device), (0, 0, *padding))
            mask = to_windows(inside, WINDOW).mT[:, :, None]
            x = F.pad(x, (0, 0, *padding))
        q, k, v = (split_heads(to_windows(part, WINDOW), self.heads) for part in self.qkv(x).chunk(3, -1))
        y = merge_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        return self.project(from_windows(y, WINDOW, x.shape[1])[:, :height, :width])


class Block(TransformerBlock):
    """A transformer block over a map."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Twins(Network):
    """Four stages of transformer blocks that learn positions by a depthwise convolution after their first block.

    `windows=True` (Twins-SVT) lets every other block attend within windows, all others to a reduced map.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        heads: tuple[int, ...],
        depths: tuple[int, ...],
        mlp_ratios: tuple[int, ...] = (4, 4, 4, 4),
        windows: bool = False,
        drop_path: float,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels

        self.stem = patches(in_channels, channels[0], 4)
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        stages: list[Stage] = []
        for i, width in enumerate(channels):
            blocks: list[nn.Module] = [] if i == 0 else [patches(channels[i - 1], width, 2)]
            for j in range(depths[i]):
                if windows and j % 2 == 0:
                    attention = WindowAttention(width, heads[i])
                else:
                    reduction = REDUCTIONS[i]
                    attention = ReducedAttention(
                        width, heads[i], patches(width, width, reduction) if reduction > 1 else None
                    )
                blocks.append(Block(attention, width, mlp_ratios[i] * width, drop_path=next(rates)))
                if j == 0:
                    position = nn.Conv2d(width, width, 3, padding=1, groups=width)
                    blocks.append(Residual(position, act=None))
            stages.append(Stage(*blocks))
        self.stages = nn.Sequential(*stages)
        self.num_features = channels[-1]
        self.neck = LayerNorm2d(self.num_features, eps=1e-6)
        self.head = global_pool()
        self.feature_info = tuple(FeatureInfo(i, 4 << i, width) for i, width in enumerate(channels))
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        """Linear layers: normal with σ = 0.02; convolutions: He's normal over each filter's outputs."""
        init_linear_layers(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[:, 0].numel() // module.groups
                nn.init.normal_(module.weight, std=sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


PCPVT = dict(channels=(64, 128, 320, 512), heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4))

# Tables 1 (pcpvt) and 2 (alt_gvt).
VARIANTS: Variants = {
    "pcpvt_small": (Twins, dict(depths=(3, 4, 6, 3), drop_path=0.2, **PCPVT)),
    "pcpvt_base": (Twins, dict(depths=(3, 4, 18, 3), drop_path=0.3, **PCPVT)),
    "pcpvt_large": (Twins, dict(depths=(3, 8, 27, 3), drop_path=0.5, **PCPVT)),
    "alt_gvt_small": (
        Twins,
        dict(channels=(64, 128, 256, 512), heads=(2, 4, 8, 16), depths=(2, 2, 10, 4), drop_path=0.2, windows=True),
    ),
    "alt_gvt_base": (
        Twins,
        dict(channels=(96, 192, 384, 768), heads=(3, 6, 12, 24), depths=(2, 2, 18, 2), drop_path=0.3, windows=True),
    ),
    "alt_gvt_large": (
        Twins,
        dict(channels=(128, 256, 512, 1024), heads=(4, 8, 16, 32), depths=(2, 2, 18, 2), drop_path=0.5, windows=True),
    ),
}

RENAMES: Renames = {
    "current": (
        ("stem.0", "patch_embeds.0.proj"),
        ("stem.1", "patch_embeds.0.norm"),
        ("stages.0.0", "blocks.0.0"),
        ("stages.0.1.branch", "pos_block.0.proj.0"),
        ("stages.0.{b}", "blocks.0.{b-1}"),
        ("stages.{s}.0.0", "patch_embeds.{s}.proj"),
        ("stages.{s}.0.1", "patch_embeds.{s}.norm"),
        ("stages.{s}.1", "blocks.{s}.0"),
        ("stages.{s}.2.branch", "pos_block.{s}.proj.0"),
        ("stages.{s}.{b}", "blocks.{s}.{b-2}"),
        ("reduce.0", "sr"),
        ("reduce.1", "norm"),
        ("attention", "attn"),
        ("mlp.expand", "mlp.fc1"),
        ("mlp.project", "mlp.fc2"),
        ("project", "proj"),
        ("neck", "norm"),
        ("classifier", "head"),
    ),
}
