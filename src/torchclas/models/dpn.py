"""DPN: Chen et al., "Dual Path Networks", arXiv 1707.01629."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct, NormActConv, relu
from torchclas.layers.initialisation import Initialisation, fill_uniform
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid


class DualPath(nn.Module):
    """A bottleneck whose output is partly added to its input, partly appended to it.

    The first `width` channels are the residual path, the others the dense one, which grows by `growth`. With
    `project` the input first becomes `width` + 2 · `growth` channels.
    """

    def __init__(
        self, in_channels: int, hidden: int, width: int, growth: int, stride: int, groups: int, *, project: bool
    ) -> None:
        super().__init__()
        self.width = width
        self.shortcut = NormActConv(in_channels, width + 2 * growth, 1, stride) if project else nn.Identity()
        self.branch = nn.Sequential(
            NormActConv(in_channels, hidden),
            NormActConv(hidden, hidden, 3, stride, groups=groups),
            NormActConv(hidden, width + growth),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, in + growth, H / stride, W / stride]; with `project` [N, width + 3 · growth, …]."""
        x, y = self.shortcut(x), self.branch(x)
        added = x[:, : self.width] + y[:, : self.width]
        return torch.cat([added, x[:, self.width :], y[:, self.width :]], 1)


class DPN(Network):
    """Stem, four stages of dual path blocks, mean pooling.

    `stem` is its channels and kernel; `width` the residual path's in the first stage and `hidden` that of the grouped
    3×3 convolution, which both double with every stage; `growth` and `depths` have one entry per stage.
    """

    initial = Initialisation(classifier=lambda layer: fill_uniform(layer.weight, 0.01))

    def __init__(
        self,
        *,
        stem: tuple[int, int],
        hidden: int,
        groups: int,
        depths: tuple[int, ...],
        growth: tuple[int, ...],
        width: int = 256,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        first, kernel_size = stem
        channels = first
        stages: list[Stage] = []
        widths: list[int] = []
        for i, depth in enumerate(depths):
            stage_hidden, stage_width = hidden * 2**i, width * 2**i
            blocks: list[nn.Module] = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(DualPath(channels, stage_hidden, stage_width, growth[i], stride, groups, project=j == 0))
                channels = stage_width + (3 + j) * growth[i]
            stages.append(Stage(*blocks))
            widths.append(channels)
        super().__init__(
            stem=nn.Sequential(ConvNormAct(in_channels, first, kernel_size, 2), nn.MaxPool2d(3, 2, padding=1)),
            stages=stages,
            scales=pyramid(4, widths),
            neck=nn.Sequential(nn.BatchNorm2d(channels), relu()),
            num_classes=num_classes,
        )


# Table 1 has DPN92 and DPN98; the others are the authors' code.
VARIANTS: Variants = {
    "DPN68": (
        DPN,
        dict(stem=(10, 3), hidden=128, groups=32, depths=(3, 4, 12, 3), growth=(16, 32, 32, 64), width=64),
    ),
    "DPN92": (DPN, dict(stem=(64, 7), hidden=96, groups=32, depths=(3, 4, 20, 3), growth=(16, 32, 24, 128))),
    "DPN98": (DPN, dict(stem=(96, 7), hidden=160, groups=40, depths=(3, 6, 20, 3), growth=(16, 32, 32, 128))),
    "DPN107": (DPN, dict(stem=(128, 7), hidden=200, groups=50, depths=(4, 8, 20, 3), growth=(20, 64, 64, 128))),
    "DPN131": (DPN, dict(stem=(128, 7), hidden=160, groups=40, depths=(4, 8, 28, 3), growth=(16, 32, 32, 128))),
}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("branch.0", "c1x1_a_func"),
        ("branch.1", "c3x3_b_func"),
        ("branch.2", "c1x1_c_func"),
        ("shortcut", "c1x1_w_func"),
        ("stages.{s}.{b}", "dpn{n+1}"),
        ("stem.0", "conv1_x_1_func"),
        ("neck.0", "conv5_x_x_bn"),
        ("classifier", "out"),
    ),
    "timm": (
        ("bn", "bn", "eps 0.001"),
        ("stem.0", "features.conv1_1"),
        ("stages.0.{b}.shortcut", "stages.0.{b}.c1x1_w_s1"),
        ("shortcut", "c1x1_w_s2"),
        ("branch.0", "c1x1_a"),
        ("branch.1", "c3x3_b"),
        ("branch.2", "c1x1_c"),
        ("stages.{s}.{b}", "features.conv{s+2}_{b+1}"),
        ("neck.0", "features.conv5_bn_ac.bn", "eps 0.001"),
    ),
}
