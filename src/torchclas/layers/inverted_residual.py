"""The block of the mobile networks (arXiv 1801.04381)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from torchclas.layers.conv import Activation, ConvNormAct, relu
from torchclas.layers.drop_path import DropPath


class StageRow(NamedTuple):
    """A stage of a table: what its blocks expand by, their output channels and number, the first one's stride."""

    expansion: int
    channels: int
    depth: int
    stride: int
    kernel_size: int = 3


class BlockRow(NamedTuple):
    """A block of a table; `se` says whether it has squeeze-and-excitation."""

    kernel_size: int
    hidden: int
    channels: int
    stride: int = 1
    se: bool = False
    act: Activation = relu

    def scaled(self, scale: Callable[[int], int]) -> BlockRow:
        """The row of a narrower or wider network."""
        return self._replace(hidden=scale(self.hidden), channels=scale(self.channels))


class InvertedResidual(nn.Module):
    """1×1 convolution to `hidden` channels, depthwise k×k, squeeze-and-excitation `se`, 1×1 to `out_channels`.

    The input is added where it has the output's shape. `expand=False` leaves the first convolution out, `padding` is
    the depthwise one's, `drop_path` the probability with which training leaves the branch out.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        *,
        act: Activation = relu,
        se: nn.Module | None = None,
        expand: bool = True,
        padding: tuple[int, int] | None = None,
        drop_path: float = 0.0,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.expand = (
            ConvNormAct(in_channels, hidden, 1, act=act, eps=eps, momentum=momentum) if expand else nn.Identity()
        )
        self.depthwise = ConvNormAct(
            hidden, hidden, kernel_size, stride, padding=padding, groups=hidden, act=act, eps=eps, momentum=momentum
        )
        self.se = nn.Identity() if se is None else se
        self.project = ConvNormAct(hidden, out_channels, 1, act=None, eps=eps, momentum=momentum)
        self.drop_path = DropPath(drop_path)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        y = self.project(self.se(self.depthwise(self.expand(x))))
        return x + self.drop_path(y) if self.residual else y
