"""HRNet: Wang et al., "Deep High-Resolution Representation Learning for Visual Recognition", arXiv 1908.07919.

`W…_C` are the networks that the paper classifies images with, by the channels of their finest map. `SE_HRNet` adds
squeeze-and-excitation (arXiv 1709.01507) to every block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import count, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.conv import ConvNormAct, relu
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants, pyramid
from torchclas.layers.residual import Residual, projection
from torchclas.layers.resnet import StageRow, basic, bottleneck, residual_stages
from torchclas.layers.squeeze_excite import SqueezeExcite

# Appendix A: modules of the stages with two, three and four maps; residual blocks per map in each module.
MODULES = (1, 4, 3)
BLOCKS = 4
# Channels of the first stage, and those that the four maps are raised to and merged into for classification.
FIRST_CHANNELS, RAISED_CHANNELS, MERGED_CHANNELS = 256, (128, 256, 512, 1024), 2048
SE_REDUCTION = 16


class Parallel(nn.ModuleList):
    """A module for each map."""

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Each map through its own module."""
        return [module(x) for module, x in zip(self, maps, strict=True)]


class Transition(nn.Module):
    """Adds a map of half the last one's resolution; a map whose channels change gets a 3×3 convolution."""

    def __init__(self, channels: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__()
        self.keep = Parallel(
            nn.Identity() if before == after else ConvNormAct(before, after, 3)
            for before, after in zip(channels, out_channels, strict=False)
        )
        self.add = ConvNormAct(channels[-1], out_channels[-1], 3, 2)

    def forward(self, maps: Tensor | list[Tensor]) -> list[Tensor]:
        """The map of the first stage, or the maps of a later one → one map more."""
        maps = [maps] if isinstance(maps, Tensor) else maps
        return [*self.keep(maps), self.add(maps[-1])]


class Fusion(nn.Module):
    """Each map becomes the sum of all of them, brought to its channels and size."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            Parallel(_path(i - j, source, target) for j, source in enumerate(channels))
            for i, target in enumerate(channels)
        )
        self.act = relu()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the same shapes."""
        fused: list[Tensor] = []
        for i, paths in enumerate(self.paths):
            parts: list[Tensor] = paths(maps)
            size = maps[i].shape[-2:]
            finer, coarser = parts[: i + 1], parts[i + 1 :]
            enlarged = [F.interpolate(part, size=size, mode="nearest") for part in coarser]
            fused.append(self.act(reduce(torch.add, finer + enlarged)))
        return fused


def _path(halvings: int, channels: int, out_channels: int) -> nn.Module:
    """To a coarser map by 3×3 convolutions of stride 2; a 1×1 convolution where the map is enlarged after it."""
    if halvings < 0:
        return ConvNormAct(channels, out_channels, 1, act=None)
    if halvings == 0:
        return nn.Identity()
    convs = [ConvNormAct(channels, channels, 3, 2) for _ in range(halvings - 1)]
    return nn.Sequential(*convs, ConvNormAct(channels, out_channels, 3, 2, act=None))


class HighResolutionModule(nn.Module):
    """Residual blocks on every map, then an exchange between the maps."""

    def __init__(self, channels: Sequence[int], *, se: bool) -> None:
        super().__init__()
        self.branches = Parallel(
            nn.Sequential(
                *(Residual(nn.Sequential(*basic(width, width, width), *_gate(width, se))) for _ in range(BLOCKS))
            )
            for width in channels
        )
        self.fusion = Fusion(channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of the same shapes."""
        return self.fusion(self.branches(maps))


class Merge(nn.Module):
    """Raises the channels of all maps, then shrinks and adds them from the finest to the coarsest."""

    def __init__(self, channels: Sequence[int], *, se: bool) -> None:
        super().__init__()
        self.increase = Parallel(
            Residual(nn.Sequential(*bottleneck(width, out // 4, out), *_gate(out, se)), projection(width, out, 1))
            for width, out in zip(channels, RAISED_CHANNELS, strict=True)
        )
        self.shrink = nn.ModuleList(ConvNormAct(out, 2 * out, 3, 2) for out in RAISED_CHANNELS[:-1])
        self.last = ConvNormAct(RAISED_CHANNELS[-1], MERGED_CHANNELS, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps at strides 4 to 32 → [N, 2048, H / 32, W / 32]."""
        x, *others = self.increase(maps)
        for shrink, other in zip(self.shrink, others, strict=True):
            x = shrink(x) + other
        return self.last(x)


def _gate(channels: int, se: bool) -> list[nn.Module]:
    return [SqueezeExcite(channels, channels // SE_REDUCTION)] if se else []


class HRNet(Network):
    """Maps at strides 4, 8, 16 and 32 side by side, exchanging what they hold; `width` is the finest one's channels."""

    initial = Initialisation(gate=uniform, classifier=uniform)

    def __init__(self, *, width: int, se: bool = False, num_classes: int = 1000, in_channels: int = 3) -> None:
        def branch(channels: int, out_channels: int, stride: int) -> nn.Module:
            layers = bottleneck(channels, out_channels // 4, out_channels, stride)
            return nn.Sequential(*layers, *_gate(out_channels, se))

        stages = residual_stages(64, [StageRow(BLOCKS, FIRST_CHANNELS, stride=1)], branch)
        channels = [FIRST_CHANNELS]
        for i, modules in enumerate(MODULES):
            out_channels = [width * 2**scale for scale in range(i + 2)]
            exchanges = (HighResolutionModule(out_channels, se=se) for _ in range(modules))
            stages.append(Stage(Transition(channels, out_channels), *exchanges))
            channels = out_channels
        scales = pyramid(4, channels)
        super().__init__(
            stem=nn.Sequential(ConvNormAct(in_channels, 64, 3, 2), ConvNormAct(64, 64, 3, 2)),
            stages=stages,
            scales=scales,
            neck=Merge(channels, se=se),
            num_features=MERGED_CHANNELS,
            num_classes=num_classes,
        )
        self.feature_info = tuple(FeatureInfo(len(MODULES), *scale) for scale in scales)  # all of the last stage

    def features(self, x: Tensor) -> list[Tensor]:
        """All maps of the last stage, finest first."""
        return self.stages(self.stem(x))


VARIANTS: Variants = {
    "HRNet_W18_C": (HRNet, dict(width=18)),
    "HRNet_W30_C": (HRNet, dict(width=30)),
    "HRNet_W32_C": (HRNet, dict(width=32)),
    "HRNet_W40_C": (HRNet, dict(width=40)),
    "HRNet_W44_C": (HRNet, dict(width=44)),
    "HRNet_W48_C": (HRNet, dict(width=48)),
    "HRNet_W64_C": (HRNet, dict(width=64)),
    "SE_HRNet_W64_C": (HRNet, dict(width=64, se=True)),
}


def _numbered_paths() -> Iterator[tuple[str, str]]:
    """The current layout counts a fusion's convolutions in one row: by target, by source, by step of the path."""
    for stage in range(1, len(MODULES) + 1):
        numbers = count()
        for i, j in product(range(stage + 1), repeat=2):
            for step in [f".{k}" for k in range(i - j)] if i >= j else [""]:
                yield (
                    f"stages.{stage}.{{m}}.fusion.paths.{i}.{j}{step}",
                    f"stages.{stage}.{{m}}.fuse_func.residual_func_list.{next(numbers)}",
                )


_PARTS = (
    ("branch.{i}", "conv{i+1}"),
    ("shortcut.1", "conv_down"),
    ("stem.{i}", "conv_layer1_{i+1}"),
    ("neck.last", "conv_last"),
)
_OLD_MODULE = "st{s+1}.stage_st{s+1}_{m}"
_OLD_FUSION = f"{_OLD_MODULE}.fuse_func.residual_st{{s+1}}_{{m}}_layer"
RENAMES: Renames = {
    "current": (
        ("branch.{i}.reduce", "se.fc_squeeze", "linear"),
        ("branch.{i}.expand", "se.fc_excitation", "linear"),
        *_PARTS,
        ("stages.0", "layer1"),
        ("stages.1.0.keep.0", "conv_tr1_1"),
        ("stages.1.0.add", "conv_tr1_2"),
        ("stages.{s}.0.add", "conv_tr{s}"),
        ("branches", "basic_block_list"),
        *_numbered_paths(),
        ("stages.{s}.{m}", "st{s+1}.stage_func_list.{m-1}"),
        ("neck.increase", "last_cls.func_list"),
        ("neck.shrink", "cls_head_conv_list"),
        ("classifier", "fc"),
    ),
    "original": (
        ("branch.{i}.reduce", "se.squeeze", "linear"),
        ("branch.{i}.expand", "se.excitation", "linear"),
        *_PARTS,
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("stages.0.{b}", "la1.bb_layer2_{b+1}"),
        ("stages.1.0.keep.0", "tr1.transition_tr1_layer_1"),
        ("stages.{s}.0.add", "tr{s}.transition_tr{s}_layer_{s+1}"),
        (
            "stages.{s}.{m}.branches.{i}.{j}",
            f"{_OLD_MODULE}.branches_func.bb_st{{s+1}}_{{m}}_branch_layer_{{i+1}}_{{j+1}}",
        ),
        ("stages.{s}.{m}.fusion.paths.{i}.{j}.{k}", f"{_OLD_FUSION}_{{i+1}}_{{j+1}}_{{k+1}}"),
        ("stages.{s}.{m}.fusion.paths.{i}.{j}", f"{_OLD_FUSION}_{{i+1}}_{{j+1}}"),
        ("neck.increase.{i}", "last_cls.conv_cls_head_conv_{i+1}"),
        ("neck.shrink.{i}", "cls_head_add{i+1}"),
        ("classifier", "out"),
    ),
    "timm": (
        ("branch.{i}.conv", "conv{i+1}"),
        ("branch.{i}.bn", "bn{i+1}"),
        ("shortcut.1.conv", "downsample.0"),
        ("shortcut.1.bn", "downsample.1"),
        ("stem.{i}.conv", "conv{i+1}"),
        ("stem.{i}.bn", "bn{i+1}"),
        ("stages.0", "layer1"),
        ("stages.{s}.0.keep.0", "transition{s}.0"),
        ("stages.{s}.0.add", "transition{s}.{s}.0"),
        ("stages.{s}.{m}", "stage{s+1}.{m-1}"),
        ("fusion.paths", "fuse_layers"),
        ("neck.increase.{i}", "incre_modules.{i}.0"),
        ("neck.shrink.{i}", "downsamp_modules.{i}"),
        ("neck.last", "final_layer"),
        ("conv", "0"),
        ("bn", "1"),
    ),
}
