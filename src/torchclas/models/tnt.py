"""TNT: Han et al., "Transformer in Transformer", arXiv 2103.00112.

An image is a grid of patches of 16×16 pixels, the outer tokens; a patch is one of 4×4 places, the inner tokens.

Departure of the published graph from the paper: a layer norm precedes every projection of inner tokens to outer ones,
and another follows the first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.attention import merge_heads, split_heads
from torchclas.layers.initialisation import Initialisation, fill_truncated_normal, truncated_normal
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.patch import LeadingTokens, resize_position_embedding, to_windows
from torchclas.layers.transformer import TransformerBlock
from torchclas.sizes import Size, to_size

INPUT_SIZE, PATCH = 224, 16
STRIDE = 4
SIDE = PATCH // STRIDE
MLP_RATIO = 4
EPS = 1e-5
# Blocks are grouped so that `features` has four depths to choose from, as dense prediction wants them.
STAGES = 4


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
    """A transformer block within each patch, whose result is added to the patch's token, then one over the patches."""

    def __init__(self, inner: int, outer: int, inner_heads: int, outer_heads: int) -> None:
        super().__init__()
        self.inner = TransformerBlock(Attention(inner, inner_heads), inner, MLP_RATIO * inner, eps=EPS)
        self.norm = nn.LayerNorm(inner)
        self.project = nn.Linear(SIDE**2 * inner, outer)
        self.outer = TransformerBlock(Attention(outer, outer_heads), outer, MLP_RATIO * outer, eps=EPS)

    def forward(self, tokens: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Inner [N · L, 16, inner] and outer [N, 1 + L, outer] → the same shapes."""
        inner, outer = tokens
        inner = self.inner(inner)
        patches = self.project(self.norm(inner).flatten(1)).unflatten(0, (outer.shape[0], -1))
        return inner, self.outer(outer + F.pad(patches, (0, 0, 1, 0)))


class TokenEmbedding(nn.Module):
    """Inner tokens from a 7×7 convolution, outer ones from all inner ones of a patch; each has its position added."""

    def __init__(self, in_channels: int, inner: int, outer: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, inner, 7, STRIDE, padding=3)
        self.inner_position = nn.Parameter(torch.zeros(1, inner, SIDE, SIDE))
        self.norm = nn.LayerNorm(SIDE**2 * inner)
        self.project = nn.Linear(SIDE**2 * inner, outer)
        self.project_norm = nn.LayerNorm(outer)
        self.class_token = nn.Parameter(torch.zeros(1, 1, outer))
        self.position = nn.Parameter(torch.zeros(1, 1 + side**2, outer))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, in, H, W] → inner tokens [N · L, 16, inner], outer ones [N, 1 + L, outer], the class token first."""
        places = to_windows(self.conv(x).permute(0, 2, 3, 1), SIDE) + self.inner_position.flatten(2).mT
        patches = self.project_norm(self.project(self.norm(places.flatten(2))))
        outer = torch.cat((self.class_token.expand(x.shape[0], -1, -1), patches), 1)
        return places.flatten(0, 1), outer + self.position


class TNT(Network):
    """Blocks over two sequences of tokens at a time; the outer one's class token is the image's vector.

    `forward_features` returns the outer tokens [N, 1 + H / 16 · W / 16, outer].
    """

    initial = Initialisation(linear=truncated_normal)

    stem: TokenEmbedding  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        *,
        inner: int,
        outer: int,
        inner_heads: int,
        outer_heads: int,
        depth: int = 12,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        stages = [
            Stage(*(Block(inner, outer, inner_heads, outer_heads) for _ in range(depth // STAGES)))
            for _ in range(STAGES)
        ]
        super().__init__(
            stem=TokenEmbedding(in_channels, inner, outer, INPUT_SIZE // PATCH),
            stages=stages,
            scales=[(PATCH, outer)] * STAGES,
            neck=nn.LayerNorm(outer),
            head=LeadingTokens(1),
            num_classes=num_classes,
        )
        self.input_size = to_size(INPUT_SIZE)
        self.feature_info = tuple(FeatureInfo(i, PATCH, outer) for i in range(STAGES))

    def forward_features(self, x: Tensor) -> Tensor:
        """Image [N, in_channels, H, W] → the last outer tokens, normalised."""
        self.check_image(x)
        _, outer = self.stages(self.stem(x))
        return self.neck(outer)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps [N, outer, H / 16, W / 16] of the outer tokens after each quarter of the blocks."""
        places = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        return [outer[:, 1:].mT.unflatten(2, places) for _, outer in super().features(x)]

    def resize(self, old: Size, new: Size) -> None:
        """Interpolate the outer position embeddings; both sides are multiples of 16."""
        self.require_multiples(new, PATCH)
        before, after = ((height // PATCH, width // PATCH) for height, width in (old, new))
        self.stem.position = resize_position_embedding(self.stem.position, before, after, prefix=1)

    def init_weights(self) -> None:
        """As `initial` says; tokens and positions begin like linear layers."""
        super().init_weights()
        for parameter in self.stem.parameters(recurse=False):
            fill_truncated_normal(parameter)


# Table 1 (TNT-S).
VARIANTS: Variants = {"TNT_small": (TNT, dict(inner=24, outer=384, inner_heads=4, outer_heads=6))}

_NAMES = (
    ("stem.inner_position", "pixel_pos"),
    ("stem.position", "patch_pos"),
    ("stem.class_token", "cls_token"),
    ("stem.conv", "pixel_embed.proj"),
    ("stem.norm", "norm1_proj"),
    ("stem.project", "proj"),
    ("stem.project_norm", "norm2_proj"),
    ("stages.{s}.{b}.norm", "blocks.{n}.norm1_proj"),
    ("stages.{s}.{b}", "blocks.{n}"),
    ("mlp.expand", "mlp.fc1"),
    ("mlp.project", "mlp.fc2"),
    ("project", "proj"),
    ("inner.norm1", "norm_in"),
    ("inner.attention", "attn_in"),
    ("inner.norm2", "norm_mlp_in"),
    ("inner.mlp", "mlp_in"),
    ("outer.norm1", "norm_out"),
    ("outer.attention", "attn_out"),
    ("outer.norm2", "norm_mlp"),
    ("outer.mlp", "mlp"),
    ("neck", "norm"),
    ("classifier", "head"),
)
RENAMES: Renames = {"current": _NAMES, "timm": _NAMES}
