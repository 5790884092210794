"""A branch added to its input."""

from __future__ import annotations

from torch import Tensor, nn

from torchclas.layers.conv import Activation, ConvNormAct, relu
from torchclas.layers.drop_path import DropPath


class Residual(nn.Module):
    """act(branch(x) + shortcut(x)); `act=None` leaves the activation out.

    `drop_path` is the probability with which training leaves the branch out.
    """

    def __init__(
        self,
        branch: nn.Module,
        shortcut: nn.Module | None = None,
        *,
        act: Activation | None = relu,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.drop_path = DropPath(drop_path)
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.act = nn.Identity() if act is None else act()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride], as the branch makes it."""
        return self.act(self.drop_path(self.branch(x)) + self.shortcut(x))


def projection(
    in_channels: int, out_channels: int, stride: int, *, pooled: bool = False, bias: bool = False
) -> nn.Module:
    """1×1 convolution for a shortcut; with `pooled` (ResNet-D) a mean of 2×2 pixels halves the map."""
    pool, stride = (
        (nn.AvgPool2d(stride, stride, ceil_mode=True), 1) if pooled and stride > 1 else (nn.Identity(), stride)
    )
    return nn.Sequential(pool, ConvNormAct(in_channels, out_channels, 1, stride, bias=bias, act=None))
