"""Squeeze-and-excitation (arXiv 1709.01507)."""

from __future__ import annotations

from torch import Tensor, nn

from torchclas.layers.conv import Activation, relu


class HardSigmoid(nn.Module):
    """clip(slope · x + 0.5, 0, 1). PyTorch's own has slope 1/6; PaddlePaddle's default is 0.2."""

    def __init__(self, slope: float = 0.2) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return (x * self.slope + 0.5).clamp(0.0, 1.0)

    def extra_repr(self) -> str:
        """Shown by print."""
        return f"slope={self.slope}"


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the mean of all channels.

    `hidden` is the width of the bottleneck; `gate` maps its output to the factor.
    """

    def __init__(self, channels: int, hidden: int, *, act: Activation = relu, gate: Activation = nn.Sigmoid) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.act = act()
        self.expand = nn.Conv2d(hidden, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape."""
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
