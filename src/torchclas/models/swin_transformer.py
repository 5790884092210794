"""Swin Transformer: Liu et al., "Hierarchical Vision Transformer using Shifted Windows", arXiv 2103.14030.

Attention stays within windows, which every other block shifts by half their size. In every published network a window
is as large as the last map (7 for 224 px, 12 for 384 px), and other input sizes keep to that here.

The published graphs are the paper's. Names that end in `_22k` stand for training on ImageNet-22k's 21,841 classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.attention import Attention, merge_heads, split_heads
from torchclas.layers.initialisation import Initialisation, fill_truncated_normal, truncated_normal
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.patch import ChannelsFirst, PatchEmbedding, from_windows, resize_grid, to_windows
from torchclas.layers.transformer import BLOCK_RENAMES, TransformerBlock, drop_path_rates
from torchclas.sizes import Size, to_size

PATCH = 4
MLP_RATIO = 4
EPS = 1e-5
# What is added to the logits of two places that a shift brought into one window from opposite borders of the map.
APART = -100.0


class WindowAttention(Attention):
    """Attention within windows of `window`² places, with a learned bias for every offset between query and key.

    `resolution` is the map's height and width. With `shifted`, windows start half a window further and wrap around;
    `mask` then hides from each other the places that are neighbours only by wrapping.
    """

    index: Tensor
    mask: Tensor | None

    def __init__(self, channels: int, heads: int, resolution: int, window: int, *, shifted: bool) -> None:
        super().__init__(channels, heads)
        self.resolution = resolution
        self.window = window
        self.shifted = shifted
        self.biases = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.derive_buffers()
        self.derive_mask()

    @property
    def shift(self) -> int:
        """In places; none where one window covers the map."""
        return self.window // 2 if self.shifted and self.resolution > self.window else 0

    def derive_buffers(self) -> None:
        """Which bias belongs to (query, key) of a window."""
        # On the CPU, as arithmetic on the meta device would load torch's compiler.
        places = torch.arange(self.window, device="cpu")
        offset = places[:, None] - places + self.window - 1
        index = offset[:, None, :, None] * (2 * self.window - 1) + offset[None, :, None, :]
        self.register_buffer("index", index.flatten(2).flatten(0, 1).to(self.biases.device), persistent=False)

    def derive_mask(self) -> None:
        """What is added per window to the logits of (query, key). Published files bring it along, like a weight."""
        mask = self.tables().get("mask")
        self.register_buffer("mask", None if mask is None else mask.to(self.biases.device))

    def tables(self) -> dict[str, Tensor]:
        """What follows from the map's size and is published nevertheless; other libraries' files leave it out."""
        if not self.shift:
            return {}
        wrapped = torch.arange(self.resolution, device="cpu") >= self.resolution - self.shift
        regions = 2 * wrapped[:, None].int() + wrapped.int()
        regions = to_windows(regions[None, :, :, None], self.window)[0, :, :, 0]
        return {"mask": (regions[:, :, None] != regions[:, None, :]).to(self.biases.dtype) * APART}

    def set_resolution(self, resolution: int, window: int) -> None:
        """Interpolate the biases to a window of another size, for a map of another size."""
        self.biases = nn.Parameter(resize_grid(self.biases, to_size(2 * self.window - 1), to_size(2 * window - 1)))
        self.resolution = resolution
        self.window = window
        self.derive_buffers()
        self.derive_mask()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, H, W, C] → the same shape."""
        shift = self.shift
        windows = to_windows(x.roll((-shift, -shift), (1, 2)) if shift else x, self.window)
        # Windows count as heads: four dimensions are what the fused kernels take, and all images share one bias.
        # [N, windows · heads, places, width] each.
        q, k, v = (split_heads(part, self.heads).flatten(1, 2) for part in self.qkv(windows).chunk(3, -1))
        bias = self.biases[self.index].permute(2, 0, 1)  # [heads, queries, keys]
        # [windows, heads, queries, keys]
        bias = bias.expand(windows.shape[1], -1, -1, -1) if self.mask is None else bias + self.mask[:, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.flatten(0, 1)[None])
        windows = self.project(merge_heads(attended.unflatten(1, (-1, self.heads))))
        x = from_windows(windows, self.window, self.resolution)
        return x.roll((shift, shift), (1, 2)) if shift else x


class PatchMerging(nn.Module):
    """Four neighbouring pixels become one of twice the channels: what halves the map between stages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels, eps=EPS)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] → [N, H / 2, W / 2, 2C]."""
        x = x.unflatten(2, (-1, 2))  # [N, H, W / 2, 2 columns, C]
        x = x.unflatten(1, (-1, 2))  # [N, H / 2, 2 rows, W / 2, 2 columns, C]
        x = x.permute(0, 1, 3, 4, 2, 5)  # [N, H / 2, W / 2, 2 columns, 2 rows, C]
        return self.reduction(self.norm(x.flatten(3)))


class SwinTransformer(Network):
    """Four stages of shifted windows on maps of 1/4 to 1/32 of the image's size; channels double with every stage.

    `heads` of the first stage double too. `forward_features` returns the last map [N, C, H / 32, W / 32].
    """

    initial = Initialisation(linear=truncated_normal)

    def __init__(
        self,
        *,
        channels: int,
        heads: int,
        depths: tuple[int, ...] = (2, 2, 18, 2),
        input_size: int = 224,
        drop_path: float = 0.1,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        widths = [channels * 2**i for i in range(len(depths))]
        resolution = input_size // PATCH
        window = resolution // 2 ** (len(depths) - 1)
        stages: list[Stage] = []
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks: list[nn.Module] = [PatchMerging(width // 2)] if i > 0 else []
            for j in range(depth):
                attention = WindowAttention(width, heads * 2**i, resolution // 2**i, window, shifted=j % 2 == 1)
                blocks.append(TransformerBlock(attention, width, MLP_RATIO * width, drop_path=next(rates), eps=EPS))
            stages.append(Stage(*blocks))
        super().__init__(
            stem=PatchEmbedding(in_channels, channels, PATCH, norm=True),
            stages=stages,
            scales=pyramid(PATCH, widths),
            neck=nn.Sequential(nn.LayerNorm(widths[-1], eps=EPS), ChannelsFirst()),
            num_classes=num_classes,
        )
        self.input_size = to_size(input_size)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps at 1/4, 1/8, 1/16 and 1/32 of the image's size, without the last layer norm."""
        return [feature_map.permute(0, 3, 1, 2) for feature_map in super().features(x)]

    def resize(self, old: Size, new: Size) -> None:
        """Make windows, which are square, as large as the last map; the side is a multiple of its stride."""
        stride = self.feature_info[-1].stride
        self.require_square(new)
        self.require_multiples(new, stride)
        for info in self.feature_info:
            for module in self.stages[info.stage].modules():
                if isinstance(module, WindowAttention):
                    module.set_resolution(new[0] // info.stride, new[0] // stride)

    def init_weights(self) -> None:
        """As `initial` says; biases by offset begin like linear layers."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, WindowAttention):
                fill_truncated_normal(module.biases)


# Section 3.3. Stochastic depth is the published code's, which departs from the paper's for small (0.3) and base at 384.
TINY = {"channels": 96, "heads": 3, "depths": (2, 2, 6, 2), "drop_path": 0.2}
SMALL = {"channels": 96, "heads": 3}
BASE = {"channels": 128, "heads": 4, "drop_path": 0.5}
LARGE = {"channels": 192, "heads": 6}

VARIANTS: Variants = {
    "SwinTransformer_tiny_patch4_window7_224": (SwinTransformer, dict(**TINY)),
    "SwinTransformer_small_patch4_window7_224": (SwinTransformer, dict(**SMALL)),
    "SwinTransformer_base_patch4_window7_224": (SwinTransformer, dict(**BASE)),
    "SwinTransformer_base_patch4_window7_224_22k": (SwinTransformer, dict(**BASE)),
    "SwinTransformer_base_patch4_window12_384": (SwinTransformer, dict(**BASE, input_size=384)),
    "SwinTransformer_large_patch4_window7_224": (SwinTransformer, dict(**LARGE)),
    "SwinTransformer_large_patch4_window7_224_22k": (SwinTransformer, dict(**LARGE)),
    "SwinTransformer_large_patch4_window12_384": (SwinTransformer, dict(**LARGE, input_size=384)),
    "SwinTransformer_large_patch4_window12_384_22k": (SwinTransformer, dict(**LARGE, input_size=384)),
}

RENAMES: Renames = {
    "current": (
        ("stem.conv", "patch_embed.proj"),
        ("stem", "patch_embed"),
        ("stages.0.{b}", "layers.0.blocks.{b}"),
        ("stages.{s}.0", "layers.{s-1}.downsample"),
        ("stages.{s}.{b}", "layers.{s}.blocks.{b-1}"),
        ("attention.biases", "attn.relative_position_bias_table"),
        ("attention.index", "attn.relative_position_index"),
        ("attention.mask", "attn_mask"),
        *BLOCK_RENAMES,
        ("neck.0", "norm"),
        ("classifier", "head"),
    ),
    "timm": (
        ("stem.conv", "patch_embed.proj"),
        ("stem", "patch_embed"),
        ("stages.0.{b}", "layers.0.blocks.{b}"),
        ("stages.{s}.0", "layers.{s}.downsample"),
        ("stages.{s}.{b}", "layers.{s}.blocks.{b-1}"),
        ("attention.biases", "attn.relative_position_bias_table"),
        ("attention.index", "attn.relative_position_index"),
        ("attention.mask", "attn_mask"),
        *BLOCK_RENAMES,
        ("neck.0", "norm"),
        ("classifier", "head.fc"),
    ),
    # One row of stages and of what lies between them.
    "torchvision": (
        ("stem.conv", "features.0.0"),
        ("stem.norm", "features.0.2"),
        ("stages.0.{b}", "features.1.{b}"),
        ("stages.1.0", "features.2"),
        ("stages.1.{b}", "features.3.{b-1}"),
        ("stages.2.0", "features.4"),
        ("stages.2.{b}", "features.5.{b-1}"),
        ("stages.3.0", "features.6"),
        ("stages.3.{b}", "features.7.{b-1}"),
        ("attention.biases", "attn.relative_position_bias_table"),
        ("attention.index", "attn.relative_position_index"),
        ("attention.mask", "attn_mask"),
        ("mlp.expand", "mlp.0"),
        ("mlp.project", "mlp.3"),
        *BLOCK_RENAMES,
        ("neck.0", "norm"),
        ("classifier", "head"),
    ),
}
