"""Inception-v4: Szegedy et al., "Inception-v4, Inception-ResNet and …", arXiv 1602.07261.

Departure of the published graph from the paper: in evaluation the dropout scales the features by 0.8.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.branches import Branches, convs
from torchclas.layers.conv import ConvNormAct
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid


def pooled(in_channels: int, out_channels: int) -> nn.Sequential:
    """Mean of 3×3 pixels, 1×1 convolution."""
    pool = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
    return nn.Sequential(pool, ConvNormAct(in_channels, out_channels))


def stem(in_channels: int) -> nn.Sequential:
    """Figure 3."""
    return nn.Sequential(
        ConvNormAct(in_channels, 32, 3, 2, padding=0),
        ConvNormAct(32, 32, 3, padding=0),
        ConvNormAct(32, 64, 3),
        Branches(nn.MaxPool2d(3, 2), ConvNormAct(64, 96, 3, 2, padding=0)),
        Branches(
            convs(160, (64, 1)).append(ConvNormAct(64, 96, 3, padding=0)),
            convs(160, (64, 1), (64, (7, 1)), (64, (1, 7))).append(ConvNormAct(64, 96, 3, padding=0)),
        ),
        Branches(ConvNormAct(192, 192, 3, 2, padding=0), nn.MaxPool2d(3, 2)),
    )


def block_a() -> Branches:
    """Figure 4: 384 channels at stride 8."""
    return Branches(
        pooled(384, 96),
        ConvNormAct(384, 96),
        convs(384, (64, 1), (96, 3)),
        convs(384, (64, 1), (96, 3), (96, 3)),
    )


def reduction_a() -> Branches:
    """Figure 7: 384 to 1024 channels."""
    return Branches(
        nn.MaxPool2d(3, 2),
        ConvNormAct(384, 384, 3, 2, padding=0),
        convs(384, (192, 1), (224, 3), (256, 3, 2)),
    )


def block_b() -> Branches:
    """Figure 5: 1024 channels at stride 16."""
    wide, tall = (1, 7), (7, 1)
    return Branches(
        pooled(1024, 128),
        ConvNormAct(1024, 384),
        convs(1024, (192, 1), (224, wide), (256, tall)),
        convs(1024, (192, 1), (192, wide), (224, tall), (224, wide), (256, tall)),
    )


def reduction_b() -> Branches:
    """Figure 8: 1024 to 1536 channels."""
    return Branches(
        nn.MaxPool2d(3, 2),
        convs(1024, (192, 1), (192, 3, 2)),
        convs(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2)),
    )


def block_c() -> Branches:
    """Figure 6: 1536 channels at stride 32."""

    def fork(in_channels: int) -> Branches:
        return Branches(ConvNormAct(in_channels, 256, (1, 3)), ConvNormAct(in_channels, 256, (3, 1)))

    return Branches(
        pooled(1536, 256),
        ConvNormAct(1536, 256),
        convs(1536, (384, 1)).append(fork(384)),
        convs(1536, (384, 1), (448, (1, 3)), (512, (3, 1))).append(fork(512)),
    )


class InceptionV4(Network):
    """Stem, then four, seven and three Inception blocks between reductions (figure 9)."""

    initial = Initialisation(classifier=uniform)

    min_size = 75

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__(
            stem=stem(in_channels),
            stages=[
                Stage(*(block_a() for _ in range(4))),
                Stage(reduction_a(), *(block_b() for _ in range(7))),
                Stage(reduction_b(), *(block_c() for _ in range(3))),
            ],
            scales=pyramid(8, [384, 1024, 1536]),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), DownscalingDropout(0.2)),
            num_classes=num_classes,
        )


VARIANTS: Variants = {"InceptionV4": (InceptionV4, dict())}


def _rules(ours: str, published: str, *branches: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Of one kind of block: what each branch is called, by its place."""
    return tuple((f"{ours}.{place}", f"{published}.{name}") for place, name in branches)


_POOLED, _POINTWISE = ("0.1", "_conv1"), ("1", "_conv2")
_CONVS, _MORE_CONVS = ("2.{i}", "_conv3_{i+1}"), ("3.{i}", "_conv4_{i+1}")
_FORK = (("2.0", "_conv3_0"), ("2.1.{i}", "_conv3_{i+1}"))
_LONG_FORK = (("3.0", "_conv4_0"), ("3.1", "_conv4_00"), ("3.2", "_conv4_000"), ("3.3.{i}", "_conv4_{i+1}"))
RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("stem.3.1", "_inception_stem._conv2"),
        ("stem.4.{i}.{j}", "_inception_stem._conv{i+1}_{j+1}"),
        ("stem.5.0", "_inception_stem._conv3"),
        ("stem.{i}", "_inception_stem._conv_{i+1}"),
        *_rules("stages.0.{b}", "_inceptionA_{b+1}", _POOLED, _POINTWISE, _CONVS, _MORE_CONVS),
        *_rules("stages.1.0", "_reductionA", _POINTWISE, _CONVS),
        *_rules("stages.1.{b}", "_inceptionB_{b}", _POOLED, _POINTWISE, _CONVS, _MORE_CONVS),
        *_rules("stages.2.0", "_reductionB", ("1.{i}", "_conv2_{i+1}"), _CONVS),
        *_rules("stages.2.{b}", "_inceptionC_{b}", _POOLED, _POINTWISE, *_FORK, *_LONG_FORK),
        ("classifier", "out"),
    ),
}
