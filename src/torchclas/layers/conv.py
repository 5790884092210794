"""Convolution with what usually follows it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def relu() -> nn.Module:
    """ReLU in place."""
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    """min(max(x, 0), 6) in place."""
    return nn.ReLU6(inplace=True)


def hardswish() -> nn.Module:
    """x · relu6(x + 3) / 6 in place."""
    return nn.Hardswish(inplace=True)


def swish() -> nn.Module:
    """x · sigmoid(x) in place."""
    return nn.SiLU(inplace=True)


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, never below it and never more than 10 % below `channels`.

    The rule by which the MobileNets scale their widths (MobileNetV2's published code).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Padding (before, after) along one axis of `size` pixels, as TensorFlow's "SAME" means it."""
    total = max(kernel_size - (size % stride or stride), 0)
    return total // 2, total - total // 2


class ConvNormAct(nn.Module):
    """Convolution, batch norm, activation.

    `padding` is (before, after) or one number for both; by default half the kernel, which keeps the size
    at stride 1. `act=None` leaves the activation out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int = 1,
        *,
        padding: int | tuple[int, int] | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        act: Activation | None = relu,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.pad: nn.Module | None = None
        if padding is None:
            kernel_h, kernel_w = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
            symmetric = (dilation * (kernel_h - 1) // 2, dilation * (kernel_w - 1) // 2)
        elif isinstance(padding, int):
            symmetric = (padding, padding)
        elif padding[0] == padding[1]:
            symmetric = padding
        else:  # a convolution pads both sides alike, so the rest is padded before it
            self.pad = nn.ZeroPad2d((padding[0], padding[1], padding[0], padding[1]))
            symmetric = (0, 0)
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=symmetric,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum)
        self.act = act() if act is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        if self.pad is not None:
            x = self.pad(x)
        x = self.bn(self.conv(x))
        return x if self.act is None else self.act(x)


class NormActConv(nn.Module):
    """Batch norm, ReLU, convolution: the order of pre-activation networks."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, *, groups: int = 1
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.act = relu()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        return self.conv(self.act(self.bn(x)))


def global_pool() -> nn.Sequential:
    """Mean over height and width: [N, C, H, W] → [N, C]."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
