"""Files of timm and torchvision: the same networks, where some graphs say the same with other parameters.

A family's `RENAMES` says in its layouts `timm` and `torchvision` what they call a parameter; where torchvision's names
are timm's, there is one. Whatever differs beyond names is exact arithmetic, done here in both directions:

- A bias before a batch norm is a part of the norm's mean. Where one of the two graphs has it, it moves there and back.
- What is linear in one and a convolution in the other holds the same numbers in the same order.
- `"identity"`, a rule's third element, stands for a projection that their graph leaves out: it projects nothing.
- `"×0.5"` says that their numbers are so many times ours: what was trained with a dropout that scales in evaluation.
- `"eps 0.001"` is what their batch norm adds to a variance, where ours adds less: the norm's weight makes up for it.
- A bias that only their graph has is zero; where theirs is not, its weights are no weights of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchclas import models
from torchclas.correspondence import LIBRARIES, Library, written_as
from torchclas.errors import CheckpointError
from torchclas.layers.conv import ConvNormAct
from torchclas.layers.network import Network, Renames
from torchclas.weights.renames import PublishedName, published_names


def layout_of(library: Library, arch: str) -> str:
    """The layout in which `library` names the parameters of `arch`."""
    layouts = models.renames(arch)
    return library if library in layouts else LIBRARIES[0]


def published(arch: str) -> Renames:
    """The layouts of `arch` that are not a library's."""
    return {name: rules for name, rules in models.renames(arch).items() if name not in LIBRARIES}


def ours(network: Network, names: Mapping[str, PublishedName], tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors of a library's file with all that the network here needs, and nothing of what it says otherwise."""
    found = dict(tensors)
    for name, target in network.state_dict().items():
        theirs = names[name]
        if theirs.name in found:
            tensor = found[theirs.name]
            if theirs.times != 1:
                tensor = tensor / theirs.times
            if tensor.shape != target.shape and tensor.numel() == target.numel():
                tensor = tensor.reshape(target.shape)
            found[theirs.name] = tensor
    for norm in _norms(network, names):
        if norm.weight not in found or norm.mean not in found:
            continue
        if norm.ours_has_bias:
            found.setdefault(norm.bias, torch.zeros_like(found[norm.mean]))
        elif norm.bias in found:
            found[norm.mean] = found[norm.mean] - found.pop(norm.bias)
    for name, tensor in (*_identities(network, names), *_tables(network, names)):
        found.setdefault(name, tensor)
    for norm, weight, variance, eps in _other_eps(network, names):
        if weight in found and variance in found:
            found[weight] = found[weight] * ((found[variance] + norm.eps) / (found[variance] + eps)).sqrt()
    return found


def theirs(network: Network, library: Library, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `network` under the names, and in the shapes, of the library's network `wanted`.

    Raises CheckpointError: the library has no such network, or the two do not agree.
    """
    counterpart = written_as(library, network.arch)
    if counterpart is None:
        raise CheckpointError(f"{library} has no network that computes what {network.arch} does")
    names = published_names(
        network.state_dict(), models.renames(network.arch)[layout_of(library, network.arch)], paddle=False
    )
    found: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        found[names[name].name] = tensor if names[name].times == 1 else tensor * names[name].times
    for norm in _norms(network, names):
        if norm.ours_has_bias and norm.bias not in wanted:
            found[norm.mean] = found[norm.mean] - found.pop(norm.bias)
    for norm, weight, variance, eps in _other_eps(network, names):
        found[weight] = found[weight] * ((found[variance] + eps) / (found[variance] + norm.eps)).sqrt()
    for name, _ in _tables(network, names):
        if name not in wanted:
            del found[name]
    for name, tensor in _derived(network, library):
        if name in wanted:
            found[name] = tensor
    for name in wanted.keys() - found.keys():
        if name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in found:
            found[name] = torch.zeros_like(wanted[name])
    odd = sorted(found.keys() ^ wanted.keys())
    odd += [name for name in found.keys() & wanted.keys() if found[name].numel() != wanted[name].numel()]
    if odd:
        raise CheckpointError(
            f"{counterpart.name} of {library} differs from {network.arch} in {len(odd)} tensors, such as {odd[0]}: "
            "this version of it is not known here"
        )
    return {name: found[name].reshape(tensor.shape).contiguous() for name, tensor in wanted.items()}


@dataclass(frozen=True)
class _Norm:
    """A batch norm behind a convolution: what the library calls the parts of both that a bias concerns."""

    weight: str
    bias: str
    mean: str
    ours_has_bias: bool


def _norms(network: Network, names: Mapping[str, PublishedName]) -> Iterator[_Norm]:
    for name, module in network.named_modules():
        if isinstance(module, ConvNormAct):
            weight = names[f"{name}.conv.weight"].name
            yield _Norm(
                weight,
                bias=f"{weight.removesuffix('weight')}bias",
                mean=names[f"{name}.bn.running_mean"].name,
                ours_has_bias=module.conv.bias is not None,
            )


def _other_eps(
    network: Network, names: Mapping[str, PublishedName]
) -> Iterator[tuple[nn.BatchNorm2d, str, str, float]]:
    """Batch norms that add something else to a variance there; what weight and variance are called, and what it is."""
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and (weight := names[f"{name}.weight"]).eps is not None:
            yield module, weight.name, names[f"{name}.running_var"].name, weight.eps


def _tables(network: Network, names: Mapping[str, PublishedName]) -> Iterator[tuple[str, Tensor]]:
    """What modules know of themselves."""
    for name, module in network.named_modules():
        tables: Callable[[], Mapping[str, Tensor]] | None = getattr(module, "tables", None)
        if tables is not None:
            for leaf, tensor in tables().items():
                yield names[f"{name}.{leaf}"].name, tensor


def _derived(network: Network, library: Library) -> Iterator[tuple[str, Tensor]]:
    """What follows from the architecture here, and some keep like a weight."""
    buffers = dict(network.named_buffers())
    rules = models.renames(network.arch)[layout_of(library, network.arch)]
    names = published_names([*network.state_dict(), *buffers], rules, paddle=False)  # blocks are counted over all
    for name in buffers.keys() - network.state_dict().keys():
        yield names[name].name, buffers[name]


def _identities(network: Network, names: Mapping[str, PublishedName]) -> Iterator[tuple[str, Tensor]]:
    """A convolution and a batch norm that leave their input as it is."""
    for name, module in network.named_modules():
        if not isinstance(module, ConvNormAct) or not names[f"{name}.conv.weight"].identity:
            continue
        channels, dtype = module.conv.out_channels, module.conv.weight.dtype
        ones, zeros = torch.ones(channels, dtype=dtype), torch.zeros(channels, dtype=dtype)
        yield names[f"{name}.conv.weight"].name, torch.diag(ones)[:, :, None, None]
        yield names[f"{name}.bn.weight"].name, ones
        yield names[f"{name}.bn.bias"].name, zeros
        yield names[f"{name}.bn.running_mean"].name, zeros
        yield names[f"{name}.bn.running_var"].name, ones - module.bn.eps
