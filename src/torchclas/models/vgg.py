"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv 1409.1556.

Departures of the published graphs from the paper: convolutions have no bias; in evaluation each dropout scales the
features by 0.5. The 7×7 grid that the first fully connected layer reads is pooled from maps of other sizes.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import relu
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid

# Table 1: convolutions per stage (columns A, B, D, E), and their channels.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
GRID, FEATURES = 7, 4096


class VGG(Network):
    """Stages of 3×3 convolutions, each closed by a max pooling, and two wide fully connected layers."""

    min_size = 32

    def __init__(self, *, layers: int, num_classes: int = 1000, in_channels: int = 3) -> None:
        channels = in_channels
        stages: list[Stage] = []
        for depth, width in zip(DEPTHS[layers], WIDTHS, strict=True):
            blocks: list[nn.Module] = []
            for _ in range(depth):
                blocks.append(nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), relu()))
                channels = width
            stages.append(Stage(*blocks, nn.MaxPool2d(2, 2)))
        super().__init__(
            stem=nn.Identity(),
            stages=stages,
            scales=pyramid(2, WIDTHS),
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(GRID),
                nn.Flatten(),
                nn.Linear(channels * GRID * GRID, FEATURES),
                relu(),
                DownscalingDropout(0.5),
                nn.Linear(FEATURES, FEATURES),
                relu(),
                DownscalingDropout(0.5),
            ),
            num_features=FEATURES,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "VGG11": (VGG, dict(layers=11)),
    "VGG13": (VGG, dict(layers=13)),
    "VGG16": (VGG, dict(layers=16)),
    "VGG19": (VGG, dict(layers=19)),
}


def _torch_rules(depths: tuple[int, ...], head: tuple[str, str, str]) -> tuple[tuple[str, ...], ...]:
    """timm and torchvision number convolutions, ReLUs and poolings in one row; dropouts leave features as they are."""
    places = ((stage, block) for stage, depth in enumerate(depths) for block in range(depth))
    return (
        *((f"stages.{stage}.{block}.0", f"features.{2 * i + stage}") for i, (stage, block) in enumerate(places)),
        ("classifier.weight", f"{head[2]}.weight", "×0.5"),
        ("classifier.bias", f"{head[2]}.bias"),
        ("head.2", head[0]),
        ("head.5.weight", f"{head[1]}.weight", "×0.5"),
        ("head.5", head[1]),
    )


RENAMES: Renames = {
    "current": (
        ("stages.{s}.{b}.0", "conv_block_{s+1}.conv{b+1}"),
        ("head.2", "fc1"),
        ("head.5", "fc2"),
        ("classifier", "fc3"),
    ),
    "original": (
        ("stages.{s}.{b}.0", "_conv_block_{s+1}._conv_{b+1}"),
        ("head.2", "_fc1"),
        ("head.5", "_fc2"),
        ("classifier", "_out"),
    ),
    **{
        f"{library}: VGG{layers}": _torch_rules(depths, head)
        for library, head in (
            ("timm", ("pre_logits.fc1", "pre_logits.fc2", "head.fc")),
            ("torchvision", ("classifier.0", "classifier.3", "classifier.6")),
        )
        for layers, depths in DEPTHS.items()
    },
}
