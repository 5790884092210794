"""ResNet and the networks that share its graph.

- ResNet: He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385.
- ResNet_vc, ResNet_vd: He et al., "Bag of Tricks for Image Classification", arXiv 1812.01187, §4.1.
- ResNeXt: Xie et al., "Aggregated Residual Transformations", arXiv 1611.05431.
- SE_ResNet, SE_ResNeXt, SENet154: Hu et al., "Squeeze-and-Excitation Networks", arXiv 1709.01507.
- ResNeXt101_*_wsl: Mahajan et al., "Limits of Weakly Supervised Pretraining", arXiv 1805.00932.

Departures of the published graphs from the papers: the stride sits in the 3×3 convolution of a bottleneck
("ResNet v1.5"); the first block of every stage projects its shortcut, also where the shapes agree; `_vc` and
`_vd` replace the 7×7 stem by three 3×3 convolutions; `SENet154_vd` is a plain SE_ResNeXt_vd 64×4d of SENet-154's
depth, without that network's halved bottlenecks.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Variants, pyramid
from torchclas.layers.residual import projection
from torchclas.layers.resnet import basic, bottleneck, residual_stages, resnet_rows, resnet_stem
from torchclas.layers.squeeze_excite import SqueezeExcite

# Blocks per stage: ResNet table 1; 200 layers: arXiv 1603.05027; SENet-154: SENet table 9.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    154: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}
SE_REDUCTION = 16


class ResNet(Network):
    """Stem, four stages of residual blocks, mean pooling.

    `stem` lists the widths of the stem's 3×3 convolutions, or is empty for the 7×7 one. `groups` × `width` is the
    3×3 convolution's width in the first stage; it doubles with every stage.
    """

    initial = Initialisation(gate=uniform, classifier=uniform)

    def __init__(
        self,
        *,
        layers: int,
        stem: tuple[int, ...] = (),
        vd: bool = False,
        se: bool = False,
        groups: int = 1,
        width: int = 64,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        convs, expansion = (basic, 1) if layers < 50 else (bottleneck, 4)
        rows = resnet_rows(DEPTHS[layers], 64 * expansion)

        def branch(channels: int, out_channels: int, stride: int) -> nn.Module:
            hidden = groups * width * out_channels // (64 * expansion)
            gate = [SqueezeExcite(out_channels, out_channels // SE_REDUCTION)] if se else []
            return nn.Sequential(*convs(channels, hidden, out_channels, stride, groups=groups), *gate)

        super().__init__(
            stem=resnet_stem(in_channels, stem),
            stages=residual_stages(stem[-1] if stem else 64, rows, branch, shortcut=partial(projection, pooled=vd)),
            scales=pyramid(4, [row.channels for row in rows]),
            num_classes=num_classes,
        )


class WeaklySupervised(ResNet):
    """The `_wsl` networks, whose last layer begins as PaddlePaddle's default."""

    initial = Initialisation()


VC = {"stem": (32, 32, 64)}
VD = {"stem": (32, 32, 64), "vd": True}
SE_VD_WIDE = {"stem": (64, 64, 128), "vd": True, "se": True}

VARIANTS: Variants = {
    "ResNet18": (ResNet, dict(layers=18)),
    "ResNet34": (ResNet, dict(layers=34)),
    "ResNet50": (ResNet, dict(layers=50)),
    "ResNet101": (ResNet, dict(layers=101)),
    "ResNet152": (ResNet, dict(layers=152)),
    "ResNet50_vc": (ResNet, dict(layers=50, **VC)),
    "ResNet18_vd": (ResNet, dict(layers=18, **VD)),
    "ResNet34_vd": (ResNet, dict(layers=34, **VD)),
    "ResNet50_vd": (ResNet, dict(layers=50, **VD)),
    "ResNet101_vd": (ResNet, dict(layers=101, **VD)),
    "ResNet152_vd": (ResNet, dict(layers=152, **VD)),
    "ResNet200_vd": (ResNet, dict(layers=200, **VD)),
    "ResNeXt50_32x4d": (ResNet, dict(layers=50, groups=32, width=4)),
    "ResNeXt50_64x4d": (ResNet, dict(layers=50, groups=64, width=4)),
    "ResNeXt101_32x4d": (ResNet, dict(layers=101, groups=32, width=4)),
    "ResNeXt101_64x4d": (ResNet, dict(layers=101, groups=64, width=4)),
    "ResNeXt152_32x4d": (ResNet, dict(layers=152, groups=32, width=4)),
    "ResNeXt152_64x4d": (ResNet, dict(layers=152, groups=64, width=4)),
    "ResNeXt50_vd_32x4d": (ResNet, dict(layers=50, groups=32, width=4, **VD)),
    "ResNeXt50_vd_64x4d": (ResNet, dict(layers=50, groups=64, width=4, **VD)),
    "ResNeXt101_vd_32x4d": (ResNet, dict(layers=101, groups=32, width=4, **VD)),
    "ResNeXt101_vd_64x4d": (ResNet, dict(layers=101, groups=64, width=4, **VD)),
    "ResNeXt152_vd_32x4d": (ResNet, dict(layers=152, groups=32, width=4, **VD)),
    "ResNeXt152_vd_64x4d": (ResNet, dict(layers=152, groups=64, width=4, **VD)),
    "ResNeXt101_32x8d_wsl": (WeaklySupervised, dict(layers=101, groups=32, width=8)),
    "ResNeXt101_32x16d_wsl": (WeaklySupervised, dict(layers=101, groups=32, width=16)),
    "ResNeXt101_32x32d_wsl": (WeaklySupervised, dict(layers=101, groups=32, width=32)),
    "ResNeXt101_32x48d_wsl": (WeaklySupervised, dict(layers=101, groups=32, width=48)),
    "SE_ResNet18_vd": (ResNet, dict(layers=18, se=True, **VD)),
    "SE_ResNet34_vd": (ResNet, dict(layers=34, se=True, **VD)),
    "SE_ResNet50_vd": (ResNet, dict(layers=50, se=True, **VD)),
    "SE_ResNeXt50_32x4d": (ResNet, dict(layers=50, groups=32, width=4, se=True)),
    "SE_ResNeXt101_32x4d": (ResNet, dict(layers=101, groups=32, width=4, se=True)),
    "SE_ResNeXt50_vd_32x4d": (ResNet, dict(layers=50, groups=32, width=4, **SE_VD_WIDE)),
    "SENet154_vd": (ResNet, dict(layers=154, groups=64, width=4, **SE_VD_WIDE)),
}

_OLD_PARTS = (
    ("branch.{i}.reduce", "scale.squeeze", "linear"),
    ("branch.{i}.expand", "scale.excitation", "linear"),
    ("branch.{i}", "conv{i}"),
    ("shortcut.1", "short"),
    ("conv", "_conv"),
    ("bn", "_batch_norm"),
    ("classifier", "out"),
)
_GRID = (*_OLD_PARTS, ("stem.0", "conv"), ("stages.{s}.{b}", "bb_{s}_{b}"))
_GRID_VD = (*_OLD_PARTS, ("stem.{i}", "conv1_{i+1}"), ("stages.{s}.{b}", "bb_{s}_{b}"))
_LETTERS = (*_OLD_PARTS, ("stem.0", "conv"), ("stages.{s}.{b}", "res{s+2}{b:letter}"))
_TORCH_PARTS = (
    ("branch.{i}.reduce", "se.fc1"),
    ("branch.{i}.expand", "se.fc2"),
    ("branch.{i}.conv", "conv{i+1}"),
    ("branch.{i}.bn", "bn{i+1}"),
    ("stages.{s}.{b}", "layer{s+1}.{b}"),
    ("classifier", "fc"),
)
_TORCH = (
    ("stem.0.conv", "conv1"),
    ("stem.0.bn", "bn1"),
    ("shortcut.1.conv", "downsample.0"),
    ("shortcut.1.bn", "downsample.1"),
    *_TORCH_PARTS,
)
_TORCH_DEEP = (
    ("stem.0.conv", "conv1.0"),
    ("stem.0.bn", "conv1.1"),
    ("stem.1.conv", "conv1.3"),
    ("stem.1.bn", "conv1.4"),
    ("stem.2.conv", "conv1.6"),
    ("stem.2.bn", "bn1"),
)
_TORCH_VD = (*_TORCH_DEEP, ("shortcut.1.conv", "downsample.1"), ("shortcut.1.bn", "downsample.2"), *_TORCH_PARTS)
# The first block of the shallow networks projects its shortcut here alone.
_PASSED_ON = ("stages.0.0.shortcut.1", "passed_on", "identity")
# ResNet was rewritten once, and has the old names in its original files; its relatives kept them.
RENAMES: Renames = {
    "current: *_wsl": (
        ("branch.{i}.conv", "_conv{i}._conv"),
        ("branch.{i}.bn", "_conv{i}._bn"),
        ("shortcut.1.conv", "_short._conv._conv"),
        ("shortcut.1.bn", "_short._conv._bn"),
        ("stages.{s}.{b}", "_conv{s+1}_{b}"),
        ("stem.0.conv", "_conv_stem._conv"),
        ("stem.0.bn", "_conv_stem._bn"),
        ("classifier", "_out"),
    ),
    "current: ResNet50_vc ResNeXt*_vd_* SE_*_vd* SENet*": _GRID_VD,
    "current: *ResNeXt*": _GRID,
    "current": (
        ("branch.{i}", "conv{i}"),
        ("shortcut.1", "short"),
        ("stages.{s}.{b}", "blocks.{n}"),
        ("classifier", "fc"),
    ),
    "original: ResNet*_vd": _GRID_VD,
    "original: ResNet18 ResNet34 ResNet50": _LETTERS,
    "original: ResNet101 ResNet152": (("stages.2.0", "res4a"), ("stages.2.{b}", "res4b{b}"), *_LETTERS),
    "timm: ResNet18 ResNet34": (_PASSED_ON, *_TORCH),
    "timm: *ResNet18_vd *ResNet34_vd": (_PASSED_ON, *_TORCH_VD),
    "timm: ResNet50_vc": (*_TORCH_DEEP, *_TORCH),
    "timm: *_vd *_vd_*": _TORCH_VD,
    "timm": _TORCH,
}
