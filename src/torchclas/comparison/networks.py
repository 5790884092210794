"""How networks of one architecture differ: other tensors, other modes, numbers that a precision cannot hold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from torchclas.layers.network import Network
from torchclas.spec import ModelSpec
from torchclas.zoo import load_model

FP16_LARGEST = 65_504.0
TOLERANCE = 1e-4  # of the largest value of a layer


@dataclass(frozen=True, eq=False)
class NetworkChange:
    """What the network gives, logits [N, classes], for the first N images when it is run in another way."""

    cause: str
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Parting:
    """The first layer whose outputs differ, by how much of its largest value, and the tensor behind it."""

    layer: str
    difference: float
    text: str


@torch.inference_mode()
def network_changes(spec: ModelSpec, tensors: NDArray[np.float32]) -> Iterator[NetworkChange]:
    """Ways to run the network of `spec` that other programs are found to use, on [N, channels, height, width]."""
    network, images = load_model(spec), torch.from_numpy(tensors)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if norms:
        training = copy.deepcopy(network)
        for module in training.modules():
            if isinstance(module, _BatchNorm):
                module.train()
        ways: tuple[tuple[str, Callable[[], Tensor]], ...] = (
            ("all images at once", lambda: training(images)),
            ("one image at a time", lambda: torch.cat([training(image[None]) for image in images])),
        )
        for how, compute in ways:
            try:
                logits = compute()
            except ValueError:  # one value per channel has no variance
                continue
            yield NetworkChange(f"B runs its batch norms in training mode, {how}", logits.numpy())
        for epsilon in sorted({1e-3, 1e-5} - {norms[0].eps}):
            other = copy.deepcopy(network)
            for module in other.modules():
                if isinstance(module, _BatchNorm):
                    module.eps = epsilon
            yield NetworkChange(
                f"B has batch norms with epsilon {epsilon:g}, A {norms[0].eps:g}", other(images).numpy()
            )


@torch.inference_mode()
def overflowing_layer(spec: ModelSpec, tensors: NDArray[np.float32]) -> str | None:
    """The first layer whose outputs fp16 cannot hold, of the network in fp32."""
    for name, output in _outputs(load_model(spec), tensors):
        if float(output.abs().max()) > FP16_LARGEST:
            return name
    return None


@torch.inference_mode()
def first_parting(a: ModelSpec, b: ModelSpec, tensors: NDArray[np.float32]) -> Parting | None:
    """Where two networks with the same names of layers part; None where neither tensors nor outputs differ."""
    mine, other = load_model(a), load_model(b)
    first, second = mine.state_dict(), other.state_dict()
    wrong = [
        name
        for name, tensor in first.items()
        if name not in second or tensor.shape != second[name].shape or not torch.equal(tensor, second[name])
    ]
    outputs = dict(_outputs(other, tensors))
    for name, output in _outputs(mine, tensors):
        theirs = outputs.get(name)
        if theirs is None or theirs.shape != output.shape:
            return Parting(name, float("inf"), f"B's network has another layer {name}")
        difference = float((output - theirs).abs().max() / output.abs().max().clamp(min=1e-30))
        if not difference <= TOLERANCE:  # NaN too
            return Parting(name, difference, _text(name, wrong, len(first)))
    return Parting("", 0.0, _text("", wrong, len(first))) if wrong else None


def _text(layer: str, wrong: list[str], total: int) -> str:
    if not wrong:
        return f"B computes layer {layer} otherwise, with the same tensors"
    here = next((name for name in wrong if layer and name.rpartition(".")[0] == layer), wrong[0])
    if len(wrong) == 1:
        return f"B's tensor {here} is not A's; the other {total - 1} are"
    return f"B has other weights: {len(wrong)} of {total} tensors differ, the first is {here}"


def _outputs(network: Network, tensors: NDArray[np.float32]) -> list[tuple[str, Tensor]]:
    """What each layer without parts gives, in the order in which they are run."""
    collected: list[tuple[str, Tensor]] = []

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                collected.append((name, output.detach().clone()))

        return hook

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if not list(module.children()):
                stack.callback(module.register_forward_hook(keep(name)).remove)
        network(torch.from_numpy(tensors))
    return collected
