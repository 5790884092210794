"""ViT and DeiT: an image as a row of 16×16 patches, read by a plain transformer.

- ViT: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929.
- DeiT: Touvron et al., "Training data-efficient image transformers & distillation through attention",
  arXiv 2012.12877. The distilled ones have a second token and a second head, which learns from a teacher.

Departures of the published graphs from the papers: there is no dropout; `ViT_small_patch16_224` is in neither paper
(8 blocks of 768 channels) and scales its attention by the root of all channels instead of one head's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchclas.layers.attention import Attention
from torchclas.layers.initialisation import Initialisation, fill_truncated_normal, truncated_normal
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.patch import LeadingTokens, PatchEmbedding, resize_position_embedding
from torchclas.layers.transformer import BLOCK_RENAMES, TransformerBlock, drop_path_rates
from torchclas.sizes import Size, to_size

# Blocks are grouped so that `features` has four depths to choose from, as dense prediction wants them.
STAGES = 4


class TokenEmbedding(nn.Module):
    """Patches in reading order behind the class token (and the distillation token), each with its position added."""

    def __init__(self, in_channels: int, channels: int, patch: int, side: int, *, distilled: bool) -> None:
        super().__init__()
        self.patches = PatchEmbedding(in_channels, channels, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, channels)) if distilled else None
        self.prefix = 2 if distilled else 1
        self.position = nn.Parameter(torch.zeros(1, self.prefix + side**2, channels))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, prefix + H / patch · W / patch, C]."""
        leading = self.class_token
        if self.distillation_token is not None:
            leading = torch.cat((leading, self.distillation_token), 1)
        leading = leading.expand(x.shape[0], -1, -1)  # [N, prefix, C]
        patches = self.patches(x).flatten(1, 2)  # [N, H / patch · W / patch, C]
        return torch.cat((leading, patches), 1) + self.position


class VisionTransformer(Network):
    """Patch embedding, `depth` equal blocks, layer norm, and the class token as the image's vector.

    `forward_features` returns tokens [N, 1 + H / patch · W / patch, C], `features` maps without the class token.
    """

    initial = Initialisation(linear=truncated_normal)

    stem: TokenEmbedding  # pyright: ignore[reportIncompatibleVariableOverride]
    distilled = False

    def __init__(
        self,
        *,
        channels: int,
        depth: int = 12,
        heads: int,
        mlp_ratio: int = 4,
        patch: int = 16,
        input_size: int = 224,
        qkv_bias: bool = True,
        scale: float | None = None,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        stem = TokenEmbedding(in_channels, channels, patch, input_size // patch, distilled=self.distilled)
        blocks = [
            TransformerBlock(
                Attention(channels, heads, qkv_bias=qkv_bias, scale=scale),
                channels,
                mlp_ratio * channels,
                drop_path=rate,
                eps=eps,
            )
            for rate in drop_path_rates(drop_path, depth)
        ]
        share = depth // STAGES
        super().__init__(
            stem=stem,
            stages=[Stage(*blocks[i * share : (i + 1) * share]) for i in range(STAGES)],
            scales=[(patch, channels)] * STAGES,
            neck=nn.LayerNorm(channels, eps=eps),
            head=LeadingTokens(stem.prefix),
            num_classes=num_classes,
        )
        self.input_size = to_size(input_size)
        self.patch = patch
        self.feature_info = tuple(FeatureInfo(i, patch, channels) for i in range(STAGES))

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps [N, C, H / patch, W / patch] after each quarter of the blocks."""
        places = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        return [tokens[:, self.stem.prefix :].mT.unflatten(2, places) for tokens in super().features(x)]

    def resize(self, old: Size, new: Size) -> None:
        """Interpolate the position embeddings; both sides are multiples of the patch's."""
        self.require_multiples(new, self.patch)
        before, after = ((height // self.patch, width // self.patch) for height, width in (old, new))
        self.stem.position = resize_position_embedding(self.stem.position, before, after, prefix=self.stem.prefix)

    def init_weights(self) -> None:
        """As `initial` says; tokens and positions begin like linear layers."""
        super().init_weights()
        for parameter in self.stem.parameters(recurse=False):
            fill_truncated_normal(parameter)


class DistilledVisionTransformer(VisionTransformer):
    """With a distillation token and a head for it; the prediction is the mean of both heads' logits."""

    distilled = True

    def head_outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Last tokens → logits [N, num_classes], and the mean [N, num_features] of both tokens."""
        return torch.stack(self._logits(x)).mean(0), self.head(x)

    def forward_heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of the class token, which learns from the labels, and of the one that learns from the teacher."""
        return self._logits(self.forward_features(x))

    def _logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(x[:, 0]), self.classifier_distilled(x[:, 1])

    def reset_classifier(self, num_classes: int) -> None:
        """Replace both heads."""
        super().reset_classifier(num_classes)
        like = self.stem.class_token
        self.classifier_distilled = self.make_classifier(num_classes).to(device=like.device, dtype=like.dtype)


# ViT table 1 and DeiT table 1. DeiT's recipe drops a tenth of the deepest branches.
BASE = {"channels": 768, "heads": 12}
LARGE = {"channels": 1024, "heads": 16, "depth": 24}
DEIT_TINY = {"channels": 192, "heads": 3, "drop_path": 0.1}
DEIT_SMALL = {"channels": 384, "heads": 6, "drop_path": 0.1}
DEIT_BASE = {**BASE, "drop_path": 0.1}

VARIANTS: Variants = {
    "ViT_small_patch16_224": (
        VisionTransformer,
        dict(channels=768, heads=8, depth=8, mlp_ratio=3, qkv_bias=False, scale=768**-0.5, eps=1e-5),
    ),
    "ViT_base_patch16_224": (VisionTransformer, dict(**BASE)),
    "ViT_base_patch16_384": (VisionTransformer, dict(**BASE, input_size=384)),
    "ViT_base_patch32_384": (VisionTransformer, dict(**BASE, input_size=384, patch=32)),
    "ViT_large_patch16_224": (VisionTransformer, dict(**LARGE)),
    "ViT_large_patch16_384": (VisionTransformer, dict(**LARGE, input_size=384)),
    "ViT_large_patch32_384": (VisionTransformer, dict(**LARGE, input_size=384, patch=32)),
    "DeiT_tiny_patch16_224": (VisionTransformer, dict(**DEIT_TINY)),
    "DeiT_small_patch16_224": (VisionTransformer, dict(**DEIT_SMALL)),
    "DeiT_base_patch16_224": (VisionTransformer, dict(**DEIT_BASE)),
    "DeiT_base_patch16_384": (VisionTransformer, dict(**DEIT_BASE, input_size=384)),
    "DeiT_tiny_distilled_patch16_224": (DistilledVisionTransformer, dict(**DEIT_TINY)),
    "DeiT_small_distilled_patch16_224": (DistilledVisionTransformer, dict(**DEIT_SMALL)),
    "DeiT_base_distilled_patch16_224": (DistilledVisionTransformer, dict(**DEIT_BASE)),
    "DeiT_base_distilled_patch16_384": (DistilledVisionTransformer, dict(**DEIT_BASE, input_size=384)),
}

_NAMES = (
    ("stem.patches.conv", "patch_embed.proj"),
    ("stem.class_token", "cls_token"),
    ("stem.distillation_token", "dist_token"),
    ("stem.position", "pos_embed"),
    ("stages.{s}.{b}", "blocks.{n}"),
    *BLOCK_RENAMES,
    ("neck", "norm"),
    ("classifier", "head"),
    ("classifier_distilled", "head_dist"),
)
RENAMES: Renames = {
    "current": _NAMES,
    "timm": _NAMES,
    "torchvision: ViT_*": (
        ("stem.patches.conv", "conv_proj"),
        ("stem.class_token", "class_token"),
        ("stem.position", "encoder.pos_embedding"),
        ("stages.{s}.{b}", "encoder.layers.encoder_layer_{n}"),
        ("norm1", "ln_1"),
        ("attention.qkv.weight", "self_attention.in_proj_weight"),
        ("attention.qkv.bias", "self_attention.in_proj_bias"),
        ("attention.project", "self_attention.out_proj"),
        ("norm2", "ln_2"),
        ("mlp.expand", "mlp.0"),
        ("mlp.project", "mlp.3"),
        ("neck", "encoder.ln"),
        ("classifier", "heads.head"),
    ),
}
