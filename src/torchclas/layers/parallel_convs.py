"""Convolutions side by side that fold into one once trained (structural re-parameterization, arXiv 2101.03697)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from torchclas.layers.conv import ConvNormAct


class ParallelConvs(nn.Module):
    """Sum of one convolution with batch norm per kernel size, the largest first.

    With `identity` the batch-normed input is added where it has the output's shape.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: tuple[int, ...],
        stride: int = 1,
        *,
        groups: int = 1,
        identity: bool = False,
    ) -> None:
        super().__init__()
        # A 1×1 convolution gets its pixels picked instead of a stride: with both, and fewer than 16 channels in
        # channels_last, oneDNN's gradient writes past its buffer and corrupts the heap (its issue 6035; torch 2.15).
        self.steps = tuple(stride if size == 1 < kernel_sizes[0] else 1 for size in kernel_sizes)
        self.branches = nn.ModuleList(
            ConvNormAct(in_channels, out_channels, size, stride // step, groups=groups, act=None)
            for size, step in zip(kernel_sizes, self.steps, strict=True)
        )
        same = stride == 1 and in_channels == out_channels
        self.identity = nn.BatchNorm2d(in_channels) if identity and same else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        maps = [branch(x[:, :, ::step, ::step]) for branch, step in zip(self.branches, self.steps, strict=True)]
        y: Tensor = maps[0]
        for other in maps[1:]:
            y = y + other
        return y if self.identity is None else y + self.identity(x)

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """The one convolution, with bias, that in evaluation equals the sum."""
        self.eval()  # fuse_conv_bn_eval insists
        pairs = [(branch.conv, branch.bn) for branch in self.branches if isinstance(branch, ConvNormAct)]
        largest = pairs[0][0]
        if self.identity is not None:
            unit = nn.Conv2d(largest.in_channels, largest.out_channels, 1, groups=largest.groups, bias=False)
            nn.init.dirac_(unit.weight, largest.groups)
            pairs.append((unit.to(largest.weight).eval(), self.identity))
        total, *others = (fuse_conv_bn_eval(conv, norm) for conv, norm in pairs)
        for other in others:
            assert total.bias is not None  # fuse_conv_bn_eval gives one to each
            assert other.bias is not None
            margin = (total.kernel_size[0] - other.kernel_size[0]) // 2
            total.weight += F.pad(other.weight, (margin,) * 4)
            total.bias += other.bias
        return total


def fold_parallel_convs(network: nn.Module) -> None:
    """Put one convolution in the place of every `ParallelConvs`."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, ParallelConvs):
                setattr(module, name, child.folded())
