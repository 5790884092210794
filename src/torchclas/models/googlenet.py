"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842.

Departures of the published graph from the paper: convolutions have no bias, and ReLU follows only the concatenations,
not each convolution; there is no local response normalisation; in evaluation the dropouts scale the features.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from torch import Tensor, nn

from torchclas.layers.branches import Branches
from torchclas.layers.conv import relu
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.initialisation import Initialisation, fill_uniform, lecun_uniform
from torchclas.layers.network import Network, Renames, Variants, stages_of_rows


class Row(NamedTuple):
    """Channels of a block's convolutions, in the order of table 1; `pool` halves the map before it."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    projected: int
    pool: bool = False

    @property
    def channels(self) -> int:
        """What the branches have together."""
        return self.one + self.three + self.five + self.projected


# A row of blocks is a stage here; after the second and the third, training attaches an auxiliary head.
STAGES = (
    (Row(64, 96, 128, 16, 32, 32), Row(128, 128, 192, 32, 96, 64)),
    (Row(192, 96, 208, 16, 48, 64, pool=True),),
    (Row(160, 112, 224, 24, 64, 64), Row(128, 128, 256, 24, 64, 64), Row(112, 144, 288, 32, 64, 64)),
    (Row(256, 160, 320, 32, 128, 128),),
    (Row(256, 160, 320, 32, 128, 128, pool=True), Row(384, 192, 384, 48, 128, 128)),
)
STRIDES = (8, 16, 16, 16, 32)


def conv(in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1) -> nn.Conv2d:
    """A convolution with nothing around it."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


class Inception(nn.Module):
    """1×1, 3×3 and 5×5 convolutions and max pooling side by side (figure 2b)."""

    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2) if row.pool else nn.Identity()
        self.branches = Branches(
            conv(in_channels, row.one),
            nn.Sequential(conv(in_channels, row.three_reduce), conv(row.three_reduce, row.three, 3)),
            nn.Sequential(conv(in_channels, row.five_reduce), conv(row.five_reduce, row.five, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(in_channels, row.projected)),
        )
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, sum of the branches' channels, H, W], or half of H and W."""
        return self.act(self.branches(self.pool(x)))


def auxiliary(in_channels: int, *, act: nn.Module) -> nn.Sequential:
    """What stands before an auxiliary classifier (section 5): map → [N, 1024].

    At 224 px the first pooling leaves 3×3 pixels; the second sees to that at other sizes.
    """
    return nn.Sequential(
        nn.AvgPool2d(5, 3),
        nn.AdaptiveAvgPool2d(3),
        conv(in_channels, 128),
        nn.Flatten(),
        nn.Linear(128 * 9, 1024),
        act,
        DownscalingDropout(0.7),
    )


class GoogLeNet(Network):
    """Nine Inception blocks. Training supervises two more classifiers halfway; they do nothing for predictions."""

    initial = Initialisation(linear=lecun_uniform)

    min_size = 61
    aux1: nn.Sequential
    aux2: nn.Sequential

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        widths = [rows[-1].channels for rows in STAGES]
        super().__init__(
            stem=nn.Sequential(
                conv(in_channels, 64, 7, 2), nn.MaxPool2d(3, 2), conv(64, 64), conv(64, 192, 3), nn.MaxPool2d(3, 2)
            ),
            stages=stages_of_rows(192, STAGES, Inception),
            scales=zip(STRIDES, widths, strict=True),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), DownscalingDropout(0.4)),
            auxiliary={
                "aux1": auxiliary(widths[1], act=relu()),
                "aux2": auxiliary(widths[2], act=nn.Identity()),  # without ReLU as published
            },
            num_classes=num_classes,
        )

    def forward_heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits of the main classifier, of the one after block 4a, of the one after block 4d."""
        self.check_image(x, min_size=93)  # what the auxiliary heads' pooling needs
        maps: list[Tensor] = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        aux1, aux2 = self.classifier_aux1(self.aux1(maps[1])), self.classifier_aux2(self.aux2(maps[2]))
        return self.forward_head(x), aux1, aux2

    def init_weights(self) -> None:
        """As `initial` says; the layers before the auxiliary classifiers as if they had 2,048 inputs, as published."""
        super().init_weights()
        for layer in (*self.aux1, *self.aux2):
            if isinstance(layer, nn.Linear):
                fill_uniform(layer.weight, sqrt(3 / 2048))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace all three last layers."""
        super().reset_classifier(num_classes)
        like = next(self.parameters())
        self.classifier_aux1 = self.make_classifier(num_classes).to(device=like.device, dtype=like.dtype)
        self.classifier_aux2 = self.make_classifier(num_classes).to(device=like.device, dtype=like.dtype)


VARIANTS: Variants = {"GoogLeNet": (GoogLeNet, dict())}

RENAMES: Renames = {
    "current": (
        ("branches.0", "_conv1._conv"),
        ("branches.1.0", "_conv3r._conv"),
        ("branches.1.1", "_conv3._conv"),
        ("branches.2.0", "_conv5r._conv"),
        ("branches.2.1", "_conv5._conv"),
        ("branches.3.1", "_convprj._conv"),
        ("stem.0", "_conv._conv"),
        ("stem.2", "_conv_1._conv"),
        ("stem.3", "_conv_2._conv"),
        ("stages.0.{b}", "_ince3{b:letter}"),
        ("stages.1.0", "_ince4a"),
        ("stages.2.0", "_ince4b"),
        ("stages.2.1", "_ince4c"),
        ("stages.2.2", "_ince4d"),
        ("stages.3.0", "_ince4e"),
        ("stages.4.{b}", "_ince5{b:letter}"),
        ("aux{i}.2", "_conv_o{i}._conv"),
        ("aux{i}.4", "_fc_o{i}"),
        ("classifier_aux{i}", "_out{i}"),
        ("classifier", "_fc_out"),
    ),
}
