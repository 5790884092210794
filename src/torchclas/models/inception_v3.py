"""Inception-v3: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv 1512.00567.

Departures of the published graph from the paper: no auxiliary head; in evaluation the dropout scales the features by
0.8; means at a border count its padding. Filters are those of the authors' code; the paper's table 1 has the outline.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.branches import Branches, convs
from torchclas.layers.conv import ConvNormAct
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid

# Input channels and the pooled branch's in the blocks of stage 0; the 7×7 branches' in those of stage 1; input channels
# in those of stage 2.
BLOCKS_A = ((192, 32), (256, 64), (288, 64))
BLOCKS_C = (128, 160, 160, 192)
BLOCKS_E = (1280, 2048)


def pooled(in_channels: int, out_channels: int) -> nn.Sequential:
    """Mean of 3×3 pixels, 1×1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, 1, padding=1), ConvNormAct(in_channels, out_channels))


def block_a(channels: int, pool: int) -> Branches:
    """Figure 5, except that one branch keeps its 5×5 convolution."""
    return Branches(
        ConvNormAct(channels, 64),
        convs(channels, (48, 1), (64, 5)),
        convs(channels, (64, 1), (96, 3), (96, 3)),
        pooled(channels, pool),
    )


def block_b() -> Branches:
    """Figure 10: halves the map, 288 to 768 channels."""
    return Branches(
        ConvNormAct(288, 384, 3, 2, padding=0),
        convs(288, (64, 1), (96, 3), (96, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


def block_c(width: int) -> Branches:
    """Figure 6: 7×7 as 1×7 and 7×1 convolutions; 768 channels."""
    wide, tall = (1, 7), (7, 1)
    return Branches(
        ConvNormAct(768, 192),
        convs(768, (width, 1), (width, wide), (192, tall)),
        convs(768, (width, 1), (width, tall), (width, wide), (width, tall), (192, wide)),
        pooled(768, 192),
    )


def block_d() -> Branches:
    """Halves the map, 768 to 1280 channels."""
    return Branches(
        convs(768, (192, 1), (320, 3, 2)),
        convs(768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)),
        nn.MaxPool2d(3, 2),
    )


def block_e(channels: int) -> Branches:
    """Figure 7: 1×3 and 3×1 convolutions side by side, to 2048 channels."""

    def fork() -> Branches:
        return Branches(ConvNormAct(384, 384, (1, 3)), ConvNormAct(384, 384, (3, 1)))

    return Branches(
        ConvNormAct(channels, 320),
        convs(channels, (384, 1)).append(fork()),
        convs(channels, (448, 1), (384, 3)).append(fork()),
        pooled(channels, 192),
    )


class InceptionV3(Network):
    """Convolutions, then three, four and two Inception blocks between reductions (table 1)."""

    initial = Initialisation(classifier=uniform)

    min_size = 75

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__(
            stem=nn.Sequential(
                ConvNormAct(in_channels, 32, 3, 2, padding=0),
                ConvNormAct(32, 32, 3, padding=0),
                ConvNormAct(32, 64, 3),
                nn.MaxPool2d(3, 2),
                ConvNormAct(64, 80),
                ConvNormAct(80, 192, 3, padding=0),
                nn.MaxPool2d(3, 2),
            ),
            stages=[
                Stage(*(block_a(channels, pool) for channels, pool in BLOCKS_A)),
                Stage(block_b(), *(block_c(width) for width in BLOCKS_C)),
                Stage(block_d(), *(block_e(channels) for channels in BLOCKS_E)),
            ],
            scales=pyramid(8, [288, 768, 2048]),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), DownscalingDropout(0.2)),
            num_classes=num_classes,
        )


VARIANTS: Variants = {"InceptionV3": (InceptionV3, dict())}

_BRANCHES = (
    ("stages.1.0.0", "stages.1.0.branch3x3"),
    ("stages.1.0.1.{i}", "stages.1.0.branch3x3dbl_{i+1}"),
    ("stages.2.0.0.{i}", "stages.2.0.branch3x3_{i+1}"),
    ("stages.2.0.1.{i}", "stages.2.0.branch7x7x3_{i+1}"),
    ("stages.{s}.{b}.0", "stages.{s}.{b}.branch1x1"),
    ("stages.0.{b}.1.{i}", "stages.0.{b}.branch5x5_{i+1}"),
    ("stages.0.{b}.2.{i}", "stages.0.{b}.branch3x3dbl_{i+1}"),
    ("stages.1.{b}.1.{i}", "stages.1.{b}.branch7x7_{i+1}"),
    ("stages.1.{b}.2.{i}", "stages.1.{b}.branch7x7dbl_{i+1}"),
    ("stages.2.{b}.1.1.0", "stages.2.{b}.branch3x3_2a"),
    ("stages.2.{b}.1.1.1", "stages.2.{b}.branch3x3_2b"),
    ("stages.2.{b}.1.0", "stages.2.{b}.branch3x3_1"),
    ("stages.2.{b}.2.2.0", "stages.2.{b}.branch3x3dbl_3a"),
    ("stages.2.{b}.2.2.1", "stages.2.{b}.branch3x3dbl_3b"),
    ("stages.2.{b}.2.{i}", "stages.2.{b}.branch3x3dbl_{i+1}"),
)
_PARTS = (
    ("stem.0", "inception_stem.conv_1a_3x3"),
    ("stem.1", "inception_stem.conv_2a_3x3"),
    ("stem.2", "inception_stem.conv_2b_3x3"),
    ("stem.4", "inception_stem.conv_3b_1x1"),
    ("stem.5", "inception_stem.conv_4a_3x3"),
    *_BRANCHES,
    ("stages.{s}.{b}.3.1", "stages.{s}.{b}.branch_pool_conv"),
)
RENAMES: Renames = {
    "current": (*_PARTS, ("stages.{s}.{b}", "inception_block_list.{n}"), ("classifier", "fc")),
    "original": (
        *_PARTS,
        ("bn", "batch_norm"),
        ("stages.0.{b}", "inception_a_{b+1}"),
        ("stages.1.0", "nception_b_1"),  # as published
        ("stages.1.{b}", "inception_c_{b}"),
        ("stages.2.0", "inception_d_1"),
        ("stages.2.{b}", "inception_e_{b}"),
        ("classifier", "out"),
    ),
    "timm": (
        ("bn", "bn", "eps 0.001"),
        ("stem.0", "Conv2d_1a_3x3"),
        ("stem.1", "Conv2d_2a_3x3"),
        ("stem.2", "Conv2d_2b_3x3"),
        ("stem.4", "Conv2d_3b_1x1"),
        ("stem.5", "Conv2d_4a_3x3"),
        *_BRANCHES,
        ("stages.{s}.{b}.3.1", "stages.{s}.{b}.branch_pool"),
        ("stages.0.0", "Mixed_5b"),
        ("stages.0.1", "Mixed_5c"),
        ("stages.0.2", "Mixed_5d"),
        ("stages.1.0", "Mixed_6a"),
        ("stages.1.1", "Mixed_6b"),
        ("stages.1.2", "Mixed_6c"),
        ("stages.1.3", "Mixed_6d"),
        ("stages.1.4", "Mixed_6e"),
        ("stages.2.0", "Mixed_7a"),
        ("stages.2.1", "Mixed_7b"),
        ("stages.2.2", "Mixed_7c"),
        ("classifier.weight", "fc.weight", "×0.8"),  # its dropout leaves features as they are
        ("classifier", "fc"),
    ),
}
