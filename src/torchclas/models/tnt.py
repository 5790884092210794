"""TNT: Han et al., "Transformer in Transformer", arXiv 2103.00112."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.attention import merge_heads, split_heads
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.patch import resize_position_embedding
from torchclas.layers.transformer import TransformerBlock, init_linear_layers

# An image is a grid of patches (outer tokens) of 16 × 16 pixels; a patch one of 4 × 4 places (inner tokens).
PATCH, STRIDE = 16, 4
PLACES = PATCH // STRIDE
INNER_HEADS = 4
MLP_RATIO = 4
EPS = 1e-5


class Attention(nn.Module):
    """Multi-head self-attention; queries and keys share a layer, values have their own, both without bias."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(channels, 2 * channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, C] → the same shape."""
        q, k = (split_heads(part, self.heads) for part in self.qk(x).chunk(2, -1))
        v = split_heads(self.v(x), self.heads)
        return self.project(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class Block(nn.Module):
    """A transformer block within each patch, whose result is added to the patch's token, and one over the patches."""

    def __init__(self, inner: int, outer: int, heads: int) -> None:
        super().__init__()
        self.inner = TransformerBlock(Attention(inner, INNER_HEADS), inner, MLP_RATIO * inner, eps=EPS)
        self.norm = nn.LayerNorm(inner)
        self.project = nn.Linear(inner * PLACES**2, outer)
        self.outer = TransformerBlock(Attention(outer, heads), outer, MLP_RATIO * outer, eps=EPS)

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Inner tokens [N · L, 16, inner] and outer ones [N, 1 + L, outer], of the class first → the same shapes."""
        inner, outer = x
        inner = self.inner(inner)
        patches = self.project(self.norm(inner).reshape(outer.shape[0], outer.shape[1] - 1, -1))
        return inner, self.outer(outer + F.pad(patches, (0, 0, 1, 0)))


class Embedding(nn.Module):
    """Image → inner tokens by a 7×7 convolution, outer ones from all inner ones of a patch; both with positions."""

    def __init__(self, in_channels: int, inner: int, outer: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, inner, 7, STRIDE, padding=3)
        self.inner_positions = nn.Parameter(torch.zeros(1, inner, PLACES, PLACES))
        self.norm = nn.LayerNorm(inner * PLACES**2)
        self.project = nn.Linear(inner * PLACES**2, outer)
        self.project_norm = nn.LayerNorm(outer)
        self.class_token = nn.Parameter(torch.zeros(1, 1, outer))
        self.outer_positions = nn.Parameter(torch.zeros(1, 1 + (size // PATCH) ** 2, outer))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, in_channels, H, W] → inner tokens [N · L, 16, inner], outer ones [N, 1 + L, outer], L = H · W / 16²."""
        x = self.conv(x)
        n, channels, height, width = x.shape
        x = x.reshape(n, channels, height // PLACES, PLACES, width // PLACES, PLACES).permute(0, 2, 4, 3, 5, 1)
        positions = self.inner_positions.permute(0, 2, 3, 1)
        inner = (x.reshape(-1, PLACES, PLACES, channels) + positions).flatten(1, 2)
        outer = self.project_norm(self.project(self.norm(inner.reshape(n, -1, channels * PLACES**2))))
        outer = torch.cat((self.class_token.expand(n, -1, -1), outer), dim=1)
        return inner, outer + self.outer_positions


class ClassToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class TNT(Network):
    """Twelve blocks over two rows of tokens at a time; the class token of the outer one is classified."""

    def __init__(
        self, *, inner: int, outer: int, heads: int, depth: int = 12, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.input_size = 224
        self.stem = Embedding(in_channels, inner, outer, self.input_size)
        self.stages = nn.Sequential(Stage(*(Block(inner, outer, heads) for _ in range(depth))))
        self.num_features = outer
        self.neck = nn.LayerNorm(outer)
        self.head = ClassToken()
        self.feature_info = (FeatureInfo(0, PATCH, outer),)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def forward_features(self, x: Tensor) -> Tensor:
        """Image [N, in_channels, H, W] → normalised outer tokens [N, 1 + H · W / 16², outer], of the class first."""
        return self.neck(self.stages(self.stem(x))[1])

    def features(self, x: Tensor) -> list[Tensor]:
        """The outer tokens of the last block as a map."""
        tokens = self.stages(self.stem(x))[1][:, 1:]
        return [tokens.mT.reshape(x.shape[0], -1, x.shape[2] // PATCH, x.shape[3] // PATCH)]

    def init_weights(self) -> None:
        """Convolution: He's normal; the rest normal with σ = 0.02."""
        super().init_weights()
        init_linear_layers(self)
        for parameter in (self.stem.class_token, self.stem.inner_positions, self.stem.outer_positions):
            nn.init.trunc_normal_(parameter, std=0.02)


VARIANTS: Variants = {
    "TNT_small": (TNT, dict(inner=24, outer=384, heads=6)),  # table 1, TNT-S
}

RENAMES: Renames = {
    "current": (
        ("stem.inner_positions", "pixel_pos"),
        ("stem.outer_positions", "patch_pos"),
        ("stem.class_token", "cls_token"),
        ("stem.conv", "pixel_embed.proj"),
        ("stem.norm", "norm1_proj"),
        ("stem.project", "proj"),
        ("stem.project_norm", "norm2_proj"),
        ("inner.norm1", "norm_in"),
        ("inner.attention", "attn_in"),
        ("inner.norm2", "norm_mlp_in"),
        ("inner.mlp", "mlp_in"),
        ("outer.norm1", "norm_out"),
        ("outer.attention", "attn_out"),
        ("outer.norm2", "norm_mlp"),
        ("outer.mlp", "mlp"),
        ("expand", "fc1"),
        ("mlp.project", "fc2"),
        ("stages.{s}.{b}.norm", "blocks.{n}.norm1_proj"),
        ("stages.{s}.{b}.project", "blocks.{n}.proj"),
        ("stages.{s}.{b}", "blocks.{n}"),
        ("neck", "norm"),
        ("classifier", "head"),
    ),
}
