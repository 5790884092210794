"""What the parameters of a fresh network are.

The published recipes were tuned for what PaddlePaddle gives a layer that asks for nothing: `Initialisation()`. A family
whose published network asks for something else names it in its `initial`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

from torch import Tensor, nn

from torchclas.layers.squeeze_excite import SqueezeExcite

Layer = nn.Conv2d | nn.Linear
# Sets a layer's weight; its bias is zero before.
Init = Callable[[Layer], object]


def he_normal(layer: Layer) -> None:
    """Normal of deviation √(2 / inputs), where the inputs of all groups count: PaddlePaddle's default."""
    nn.init.normal_(layer.weight, std=sqrt(2 / (_inputs(layer) * _groups(layer))))


def he_normal_of_group(layer: Layer) -> None:
    """Normal of deviation √(2 / inputs), where each group's own inputs count: PaddlePaddle's `KaimingNormal`."""
    nn.init.normal_(layer.weight, std=sqrt(2 / _inputs(layer)))


def he_normal_of_outputs(layer: Layer) -> None:
    """Normal of deviation √(2 / outputs), where the outputs of all groups count."""
    nn.init.normal_(layer.weight, std=sqrt(2 / _outputs(layer)))


def he_normal_of_group_outputs(layer: Layer) -> None:
    """Normal of deviation √(2 / outputs), where each group's own outputs count."""
    nn.init.normal_(layer.weight, std=sqrt(2 * _groups(layer) / _outputs(layer)))


def glorot_uniform(layer: Layer) -> None:
    """Uniform within √(6 / (inputs + outputs)): PaddlePaddle's default for linear layers."""
    nn.init.xavier_uniform_(layer.weight)


def uniform(layer: Layer) -> None:
    """Uniform within 1 / √inputs."""
    fill_uniform(layer.weight, 1 / sqrt(_inputs(layer)))


def lecun_uniform(layer: Layer) -> None:
    """Uniform within √(3 / inputs)."""
    fill_uniform(layer.weight, sqrt(3 / _inputs(layer)))


def truncated_normal(layer: Layer) -> None:
    """Normal of deviation 0.02 without what lies more than two deviations away: the vision transformers' choice."""
    fill_truncated_normal(layer.weight)


def near_zero(layer: Layer) -> None:
    """Normal of deviation 0.01: what a classifier for other classes begins with."""
    nn.init.normal_(layer.weight, std=0.01)


def fill_uniform(parameter: Tensor, bound: float) -> None:
    """Uniform within ± `bound`."""
    nn.init.uniform_(parameter, -bound, bound)


def fill_truncated_normal(parameter: Tensor, std: float = 0.02) -> None:
    """Normal of deviation `std` without what lies more than two deviations away."""
    nn.init.trunc_normal_(parameter, std=std, a=-2 * std, b=2 * std)


@dataclass(frozen=True)
class Initialisation:
    """How layers initialise, by kind; biases are zero, and norms pass on what they normalised.

    `gate` is for squeeze-and-excitation, by default as other convolutions; `classifier` for the last layer, by default
    as other linear layers.
    """

    conv: Init = he_normal
    linear: Init = glorot_uniform
    gate: Init | None = None
    classifier: Init | None = None

    def apply(self, network: nn.Module) -> None:
        """Initialise every convolution and linear layer of `network`."""
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                initialise(module, self.conv)
            elif isinstance(module, nn.Linear):
                initialise(module, self.linear)
        if self.gate is not None:
            for module in network.modules():
                if isinstance(module, SqueezeExcite):
                    initialise(module.reduce, self.gate)
                    initialise(module.expand, self.gate)

    def apply_to_classifier(self, layer: nn.Linear) -> None:
        """Initialise the last layer."""
        initialise(layer, self.classifier or self.linear)


def initialise(layer: Layer, init: Init) -> None:
    """Zero the bias, then set the weight; on the meta device, where there are no values, this takes no time."""
    if layer.weight.is_meta:  # drawing there loads torch's compiler, and takes longer than the network itself
        return
    if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        nn.init.zeros_(layer.bias)
    init(layer)


def _inputs(layer: Layer) -> int:
    """Inputs of one output: channels of its group × pixels of the kernel."""
    return layer.weight[0].numel()


def _outputs(layer: Layer) -> int:
    """Output channels × pixels of the kernel."""
    return layer.weight[:, 0].numel()


def _groups(layer: Layer) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1
