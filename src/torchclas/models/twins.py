"""Twins: Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", arXiv 2104.13840.

`pcpvt_*` are the paper's Twins-PCPVT, `alt_gvt_*` its Twins-SVT. The published ones take multiples of 32 and 224 px;
maps that do not divide are cut or padded here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.attention import Attention, merge_heads, split_heads
from torchclas.layers.initialisation import Initialisation, he_normal_of_group_outputs, truncated_normal
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.patch import ChannelsFirst, PatchEmbedding, from_windows, to_windows
from torchclas.layers.reduced_attention import ReducedAttention
from torchclas.layers.transformer import TransformerBlock, drop_path_rates

# Tables 1 and 2, one entry per stage: how much smaller the map is that keys and values come from.
REDUCTIONS = (8, 4, 2, 1)
WINDOW = 7


class WindowAttention(Attention):
    """Attention among the 7×7 pixels of each window (the paper's LSA); a map that does not divide is padded."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] → the same shape."""
        height, width = x.shape[1:3]
        padding = (0, 0, 0, -width % WINDOW, 0, -height % WINDOW)
        mask = None
        if any(padding):  # nothing attends to what was padded
            inside = F.pad(torch.ones(1, height, width, 1, dtype=torch.bool, device=x.device), padding)
            mask = to_windows(inside, WINDOW).mT.repeat_interleave(self.heads, 1)
            x = F.pad(x, padding)
        # Windows count as heads: four dimensions are what the fused kernels take.
        qkv = self.qkv(to_windows(x, WINDOW)).chunk(3, -1)
        q, k, v = (split_heads(part, self.heads).flatten(1, 2) for part in qkv)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        windows = self.project(merge_heads(attended.unflatten(1, (-1, self.heads))))
        return from_windows(windows, WINDOW, x.shape[1])[:, :height, :width]


class PositionEncoding(nn.Conv2d):
    """Adds a depthwise 3×3 convolution, whose zero padding tells pixels where they are (arXiv 2102.10882)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[N, H, W, C] → the same shape."""
        return x + super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Twins(Network):
    """Four stages of transformer blocks on maps of 1/4 to 1/32 of the image's size.

    Blocks attend to a reduced map; with `windows` (Twins-SVT) every other one attends within windows instead.
    """

    initial = Initialisation(conv=he_normal_of_group_outputs, linear=truncated_normal)

    min_size = 32

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        heads: tuple[int, ...],
        depths: tuple[int, ...],
        mlp_ratios: tuple[int, ...] = (4, 4, 4, 4),
        windows: bool = True,
        drop_path: float,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        rates = iter(drop_path_rates(drop_path, sum(depths)))

        def attention(stage: int, block: int) -> nn.Module:
            width, reduction = channels[stage], REDUCTIONS[stage]
            if windows and block % 2 == 0:
                return WindowAttention(width, heads[stage])
            reduce = PatchEmbedding(width, width, reduction, norm=True) if reduction > 1 else None
            return ReducedAttention(width, heads[stage], reduce)

        stages: list[Stage] = []
        for i, width in enumerate(channels):
            shrink: list[nn.Module] = []
            if i > 0:
                shrink.append(nn.Sequential(ChannelsFirst(), PatchEmbedding(channels[i - 1], width, 2, norm=True)))
            first, *others = (
                TransformerBlock(attention(i, j), width, mlp_ratios[i] * width, drop_path=next(rates))
                for j in range(depths[i])
            )
            stages.append(Stage(*shrink, first, PositionEncoding(width), *others))
        super().__init__(
            stem=PatchEmbedding(in_channels, channels[0], 4, norm=True),
            stages=stages,
            scales=pyramid(4, channels),
            neck=nn.Sequential(nn.LayerNorm(channels[-1], eps=1e-6), ChannelsFirst()),
            num_classes=num_classes,
        )

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image's size, without the last layer norm."""
        return [feature_map.permute(0, 3, 1, 2) for feature_map in super().features(x)]


PCPVT = {"channels": (64, 128, 320, 512), "heads": (1, 2, 5, 8), "mlp_ratios": (8, 8, 4, 4), "windows": False}
SVT_SMALL = {"channels": (64, 128, 256, 512), "heads": (2, 4, 8, 16)}
SVT_BASE = {"channels": (96, 192, 384, 768), "heads": (3, 6, 12, 24)}
SVT_LARGE = {"channels": (128, 256, 512, 1024), "heads": (4, 8, 16, 32)}

# Tables 1 (pcpvt) and 2 (alt_gvt).
VARIANTS: Variants = {
    "pcpvt_small": (Twins, dict(**PCPVT, depths=(3, 4, 6, 3), drop_path=0.2)),
    "pcpvt_base": (Twins, dict(**PCPVT, depths=(3, 4, 18, 3), drop_path=0.3)),
    "pcpvt_large": (Twins, dict(**PCPVT, depths=(3, 8, 27, 3), drop_path=0.5)),
    "alt_gvt_small": (Twins, dict(**SVT_SMALL, depths=(2, 2, 10, 4), drop_path=0.2)),
    "alt_gvt_base": (Twins, dict(**SVT_BASE, depths=(2, 2, 18, 2), drop_path=0.3)),
    "alt_gvt_large": (Twins, dict(**SVT_LARGE, depths=(2, 2, 18, 2), drop_path=0.5)),
}

_NAMES = (
    ("stem.conv", "patch_embeds.0.proj"),
    ("stem", "patch_embeds.0"),
    ("stages.0.0", "blocks.0.0"),
    ("stages.0.1", "pos_block.0.proj.0"),
    ("stages.0.{b}", "blocks.0.{b-1}"),
    ("stages.{s}.0.1.conv", "patch_embeds.{s}.proj"),
    ("stages.{s}.0.1", "patch_embeds.{s}"),
    ("stages.{s}.1", "blocks.{s}.0"),
    ("stages.{s}.2", "pos_block.{s}.proj.0"),
    ("stages.{s}.{b}", "blocks.{s}.{b-2}"),
    ("reduce.conv", "sr"),
    ("reduce.norm", "norm"),
    ("attention", "attn"),
    ("mlp.expand", "mlp.fc1"),
    ("mlp.project", "mlp.fc2"),
    ("project", "proj"),
    ("neck.0", "norm"),
    ("classifier", "head"),
)
RENAMES: Renames = {"current": _NAMES, "timm": _NAMES}
