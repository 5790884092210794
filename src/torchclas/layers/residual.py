"""A branch added to its input."""

from __future__ import annotations

from torch import Tensor, nn

from torchclas.layers.conv import Activation, ConvNormAct, relu


class Residual(nn.Module):
    """act(branch(x) + shortcut(x)); `act=None` leaves the activation out."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None = None, *, act: Activation | None = relu) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.act = nn.Identity() if act is None else act()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride], as the branch makes it."""
        return self.act(self.branch(x) + self.shortcut(x))


def projection(in_channels: int, out_channels: int, stride: int, *, pooled: bool = False) -> nn.Module:
    """1×1 convolution for a shortcut; with `pooled` (ResNet-D) a mean of 2×2 pixels halves the map."""
    if pooled and stride > 1:
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True)
        return nn.Sequential(pool, ConvNormAct(in_channels, out_channels, 1, act=None))
    return nn.Sequential(nn.Identity(), ConvNormAct(in_channels, out_channels, 1, stride, act=None))
