"""RedNet: Li et al., "Involution: Inverting the Inherence of Convolution for Visual Recognition", arXiv 2103.06255."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.network import Network, Renames, Variants, pyramid
from torchclas.layers.resnet import bottleneck, residual_stages, resnet_rows

# Blocks per stage (those of ResNet from 50 layers on); channels of the first one, as ResNet's.
DEPTHS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CHANNELS = 256
GROUP_CHANNELS, REDUCTION = 16, 4


class InvolutionNormAct(nn.Module):
    """Involution, batch norm, ReLU.

    An involution is a weighted sum over a window like a convolution's, but its weights are computed from each pixel
    and shared by the channels of a group.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = channels // GROUP_CHANNELS
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.reduce = ConvNormAct(channels, channels // REDUCTION, 1)
        self.span = nn.Conv2d(channels // REDUCTION, kernel_size**2 * self.groups, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, H / stride, W / stride]."""
        area = self.kernel_size**2
        kernels = self.span(self.reduce(self.pool(x)))  # [N, groups · area, height, width]
        height, width = kernels.shape[-2:]
        kernels = kernels.flatten(2)  # [N, groups · area, places]
        kernels = kernels.unflatten(1, (self.groups, 1, area))  # [N, groups, 1, area, places]
        windows = F.unfold(x, self.kernel_size, padding=self.kernel_size // 2, stride=self.stride)
        windows = windows.unflatten(1, (self.groups, GROUP_CHANNELS, area))  # [N, groups, 16, area, places]
        mixed = (kernels * windows).sum(3)  # [N, groups, 16, places]
        return self.act(self.bn(mixed.flatten(1, 2).unflatten(2, (height, width))))


class RedNet(Network):
    """ResNet with involutions for its 3×3 convolutions: 7×7 in the blocks, 3×3 in the stem."""

    def __init__(self, *, layers: int, num_classes: int = 1000, in_channels: int = 3) -> None:
        rows = resnet_rows(DEPTHS[layers], CHANNELS)

        def branch(channels: int, out_channels: int, stride: int) -> nn.Module:
            width = out_channels // 4
            return nn.Sequential(*bottleneck(channels, width, out_channels, middle=InvolutionNormAct(width, 7, stride)))

        super().__init__(
            stem=nn.Sequential(
                ConvNormAct(in_channels, 32, 3, 2),
                InvolutionNormAct(32, 3),
                ConvNormAct(32, 64, 3),
                nn.MaxPool2d(3, 2, padding=1),
            ),
            stages=residual_stages(64, rows, branch),
            scales=pyramid(4, [row.channels for row in rows]),
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "RedNet26": (RedNet, dict(layers=26)),
    "RedNet38": (RedNet, dict(layers=38)),
    "RedNet50": (RedNet, dict(layers=50)),
    "RedNet101": (RedNet, dict(layers=101)),
    "RedNet152": (RedNet, dict(layers=152)),
}

RENAMES: Renames = {
    "current": (
        ("branch.0.conv", "conv1"),
        ("branch.0.bn", "bn1"),
        ("branch.1.bn", "bn2"),
        ("branch.1", "conv2"),
        ("branch.2.conv", "conv3"),
        ("branch.2.bn", "bn3"),
        ("shortcut.1.conv", "downsample.0"),
        ("shortcut.1.bn", "downsample.1"),
        ("reduce", "conv1"),
        ("span", "conv2.conv"),
        ("stages.{s}", "layer{s+1}"),
        ("stem.2", "stem.4"),
        ("stem.1.bn", "stem.2"),
        ("classifier", "fc"),
    ),
}
