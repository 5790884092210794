"""AlexNet: Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS 2012.

The published graph is the one-tower network of "One weird trick for parallelizing convolutional neural networks"
(arXiv 1404.5997), without response normalization. Its departures: in evaluation each dropout scales the features
by 0.5. The 6×6 grid that the first fully connected layer reads is pooled from maps of other sizes.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import relu
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.initialisation import Initialisation, Layer, fill_uniform
from torchclas.layers.network import Network, Renames, Stage, Variants

GRID, FEATURES = 6, 4096


def conv_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution with bias, ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2), relu())


def uniform_with_bias(layer: Layer) -> None:
    """Uniform within 1 / √inputs, the bias too; all linear layers take the first one's inputs, as published."""
    bound = (layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else 256 * GRID * GRID) ** -0.5
    fill_uniform(layer.weight, bound)
    fill_uniform(layer.bias, bound)  # pyright: ignore[reportArgumentType]


class AlexNet(Network):
    """Five convolutions with shrinking kernels, three max poolings, two wide fully connected layers."""

    initial = Initialisation(conv=uniform_with_bias, linear=uniform_with_bias)

    min_size = 63

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__(
            stem=nn.Sequential(nn.Conv2d(in_channels, 64, 11, stride=4, padding=2), relu(), nn.MaxPool2d(3, 2)),
            stages=[
                Stage(conv_relu(64, 192, 5), nn.MaxPool2d(3, 2)),
                Stage(conv_relu(192, 384, 3), conv_relu(384, 256, 3), conv_relu(256, 256, 3), nn.MaxPool2d(3, 2)),
            ],
            scales=[(16, 192), (32, 256)],
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(GRID),
                nn.Flatten(),
                DownscalingDropout(0.5),
                nn.Linear(256 * GRID * GRID, FEATURES),
                relu(),
                DownscalingDropout(0.5),
                nn.Linear(FEATURES, FEATURES),
                relu(),
            ),
            num_features=FEATURES,
            num_classes=num_classes,
        )


VARIANTS: Variants = {"AlexNet": (AlexNet, dict())}

RENAMES: Renames = {
    "current": (
        ("stem.0", "_conv1._conv"),
        ("stages.0.0.0", "_conv2._conv"),
        ("stages.1.0.0", "_conv3"),
        ("stages.1.1.0", "_conv4"),
        ("stages.1.2.0", "_conv5._conv"),
        ("head.3", "_fc6"),
        ("head.6", "_fc7"),
        ("classifier", "_fc8"),
    ),
    # Its dropouts leave features as they are.
    "torchvision": (
        ("stem.0", "features.0"),
        ("stages.0.0.0", "features.3"),
        ("stages.1.0.0", "features.6"),
        ("stages.1.1.0", "features.8"),
        ("stages.1.2.0", "features.10"),
        ("classifier", "classifier.6"),
        ("head.3.weight", "classifier.1.weight", "×0.5"),
        ("head.3", "classifier.1"),
        ("head.6.weight", "classifier.4.weight", "×0.5"),
        ("head.6", "classifier.4"),
    ),
}
