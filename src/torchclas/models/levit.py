"""LeViT: Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference", arXiv 2104.01136.

Tokens stay maps here: what the published graph writes as a linear layer over tokens is a 1×1 convolution.
Departure of the published graphs from the paper: there is one head; the one for distillation is left out.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from torchclas.layers.conv import ConvNormAct, hardswish
from torchclas.layers.fold import fold_batch_norms
from torchclas.layers.initialisation import Initialisation, glorot_uniform, initialise, truncated_normal
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.residual import Residual
from torchclas.sizes import Size, to_size

# Figure 5: keys are this much narrower than values, where a stage shrinks and elsewhere; hidden over outer channels.
SHRINK_RATIO, VALUE_RATIO, MLP_RATIO = 4, 2, 2
INPUT_SIZE, STRIDE = 224, 16  # of images, of the first stage


class BiasedAttention(nn.Module):
    """Attention over a square map that learns, per head, a bias for every distance between query and key.

    `resolution` is the map's height and width. With `stride` 2 only every other row and column asks.
    """

    index: Tensor

    def __init__(self, heads: int, resolution: int, stride: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.resolution = resolution
        self.stride = stride
        self.biases = nn.Parameter(torch.zeros(heads, resolution**2))
        self.derive_buffers()

    def derive_buffers(self) -> None:
        """Which bias belongs to (query, key): rows apart × resolution + columns apart."""
        # On the CPU, as arithmetic on the meta device would load torch's compiler.
        places = torch.arange(self.resolution, device="cpu")
        apart = (places[:: self.stride, None] - places).abs()
        index = apart[:, None, :, None] * self.resolution + apart[None, :, None, :]
        self.register_buffer("index", index.flatten(2).flatten(0, 1).to(self.biases.device), persistent=False)

    def set_resolution(self, resolution: int) -> None:
        """Interpolate the biases to a map of another size."""
        old = self.biases.detach().reshape(1, self.heads, self.resolution, self.resolution)
        # Corners stay: the distance 0 remains 0, and the largest remains the largest.
        new = F.interpolate(old, size=(resolution, resolution), mode="bicubic", align_corners=True)
        self.biases = nn.Parameter(new[0].flatten(1))
        self.resolution = resolution
        self.derive_buffers()

    def by_head(self, x: Tensor) -> Tensor:
        """Map [N, heads · width, H, W] → [N, heads, width, H · W]."""
        return x.flatten(2).unflatten(1, (self.heads, -1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Three times [N, heads, width, H · W] → map [N, heads · width, H / stride, W / stride]."""
        biases = self.biases[:, self.index][None]  # [1, heads, queries, keys]
        x = F.scaled_dot_product_attention(q.mT, k.mT, v.mT, attn_mask=biases)  # [N, heads, queries, width]
        side = ceil(self.resolution / self.stride)
        return x.mT.reshape(x.shape[0], -1, side, side)


class SelfAttention(BiasedAttention):
    """Attention that keeps the map's shape."""

    def __init__(self, channels: int, key_width: int, heads: int, resolution: int) -> None:
        super().__init__(heads, resolution)
        self.widths = (key_width, key_width, VALUE_RATIO * key_width)
        self.qkv = ConvNormAct(channels, sum(self.widths) * heads, act=None)
        self.act = hardswish()
        self.project = ConvNormAct(VALUE_RATIO * key_width * heads, channels, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape."""
        q, k, v = self.by_head(self.qkv(x)).split(self.widths, dim=2)
        return self.project(self.act(self.attend(q, k, v)))


class ShrinkingAttention(BiasedAttention):
    """Attention whose queries are every other pixel: what halves the map between stages."""

    def __init__(self, in_channels: int, out_channels: int, key_width: int, heads: int, resolution: int) -> None:
        super().__init__(heads, resolution, stride=2)
        self.widths = (key_width, SHRINK_RATIO * key_width)
        self.q = ConvNormAct(in_channels, key_width * heads, act=None)
        self.kv = ConvNormAct(in_channels, sum(self.widths) * heads, act=None)
        self.act = hardswish()
        self.project = ConvNormAct(SHRINK_RATIO * key_width * heads, out_channels, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / 2, W / 2]."""
        q = self.by_head(self.q(x[:, :, :: self.stride, :: self.stride]))
        k, v = self.by_head(self.kv(x)).split(self.widths, dim=2)
        return self.project(self.act(self.attend(q, k, v)))


class LeViT(Network):
    """Four convolutions, then three stages of attention and perceptrons, batch norms throughout.

    `channels`, `heads` and `depths` have one entry per stage; a block is an attention and a perceptron.
    """

    initial = Initialisation(classifier=truncated_normal)

    def __init__(
        self,
        *,
        channels: tuple[int, ...],
        heads: tuple[int, ...],
        depths: tuple[int, ...] = (4, 4, 4),
        key_width: int = 32,
        drop_path: float = 0.0,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        widths = (in_channels, *(channels[0] // share for share in (8, 4, 2, 1)))
        stem = nn.Sequential(
            *(ConvNormAct(widths[i], widths[i + 1], 3, 2, act=hardswish if i < 3 else None) for i in range(4))
        )

        def perceptron(channels: int) -> Residual:
            hidden = MLP_RATIO * channels
            branch = nn.Sequential(
                ConvNormAct(channels, hidden, act=hardswish), ConvNormAct(hidden, channels, act=None)
            )
            return Residual(branch, act=None, drop_path=drop_path)

        resolution = INPUT_SIZE // STRIDE
        stages: list[Stage] = []
        for i, out_channels in enumerate(channels):
            blocks: list[nn.Module] = []
            if i > 0:
                before = channels[i - 1]
                blocks.append(ShrinkingAttention(before, out_channels, key_width, before // key_width, resolution))
                blocks.append(perceptron(out_channels))
                resolution = ceil(resolution / 2)
            for _ in range(depths[i]):
                attention = SelfAttention(out_channels, key_width, heads[i], resolution)
                blocks += [Residual(attention, act=None, drop_path=drop_path), perceptron(out_channels)]
            stages.append(Stage(*blocks))
        super().__init__(
            stem=stem,
            stages=stages,
            scales=pyramid(STRIDE, channels),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(channels[-1])),
            num_classes=num_classes,
        )
        self.input_size = to_size(INPUT_SIZE)

    def resize(self, old: Size, new: Size) -> None:
        """Interpolate the attention biases, which are those of a square map."""
        self.require_square(new)
        resolution = ceil(new[0] / STRIDE)
        for module in self.modules():
            if isinstance(module, BiasedAttention):
                module.set_resolution(resolution)
                resolution = ceil(resolution / module.stride)

    def fuse(self) -> Self:
        """Fold every batch norm behind a convolution into it: the form in which the paper measures speed."""
        return fold_batch_norms(self)

    def init_weights(self) -> None:
        """As `initial` says; layers over tokens begin as the linear ones they are, residual branches as zero."""
        super().init_weights()
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                initialise(module, glorot_uniform)
            elif isinstance(module, Residual):
                last = [m for m in module.branch.modules() if isinstance(m, nn.BatchNorm2d)][-1]
                nn.init.zeros_(last.weight)


# Table 1. Keys are 16 wide in the two smallest networks.
VARIANTS: Variants = {
    "LeViT_128S": (LeViT, dict(channels=(128, 256, 384), heads=(4, 6, 8), depths=(2, 3, 4), key_width=16)),
    "LeViT_128": (LeViT, dict(channels=(128, 256, 384), heads=(4, 8, 12), key_width=16)),
    "LeViT_192": (LeViT, dict(channels=(192, 288, 384), heads=(3, 5, 6))),
    "LeViT_256": (LeViT, dict(channels=(256, 384, 512), heads=(4, 6, 8))),
    "LeViT_384": (LeViT, dict(channels=(384, 512, 768), heads=(6, 9, 12), drop_path=0.1)),
}

RENAMES: Renames = {
    "current": (
        ("stem.1", "patch_embed.2"),
        ("stem.2", "patch_embed.4"),
        ("stem.3", "patch_embed.6"),
        ("stem", "patch_embed"),
        ("stages.{s}.{b}", "blocks.{n}"),
        ("branch.0", "m.0"),
        ("branch.1", "m.2"),
        ("branch", "m"),
        ("biases", "attention_biases"),
        ("index", "attention_bias_idxs"),
        ("q", "q.1"),
        ("project", "proj.1"),
        ("conv", "c", "linear"),
        ("head.2", "head.bn"),
        ("classifier", "head.l"),
    ),
    "timm": (
        *((f"stages.0.{2 * i}.branch", f"stages.0.blocks.{i}.attn") for i in range(4)),
        *((f"stages.0.{2 * i + 1}.branch", f"stages.0.blocks.{i}.mlp") for i in range(4)),
        ("stages.{s}.1.branch", "stages.{s}.downsample.mlp"),
        *((f"stages.{{s}}.{2 * i + 2}.branch", f"stages.{{s}}.blocks.{i}.attn") for i in range(4)),
        *((f"stages.{{s}}.{2 * i + 3}.branch", f"stages.{{s}}.blocks.{i}.mlp") for i in range(4)),
        ("stages.{s}.0", "stages.{s}.downsample.attn_downsample"),
        ("mlp.{i}", "mlp.ln{i+1}"),
        ("biases", "attention_biases"),
        ("index", "attention_bias_idxs"),
        ("q", "q.ln"),
        ("project", "proj.ln"),
        ("conv", "linear"),
        ("stem.{i}", "stem.conv{i+1}"),
        ("head.2", "head.bn"),
        ("classifier", "head.linear"),
    ),
}
