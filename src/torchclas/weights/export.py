"""Back into published form: a network's weights as a `.pdparams` file for PaddlePaddle."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from torchclas import models
from torchclas.errors import CheckpointError, UnknownNameError
from torchclas.layers.network import Network
from torchclas.weights.pdparams import write_pdparams
from torchclas.weights.renames import PublishedName, published_names

PADDLE_LAYOUTS = ("current", "original")


def to_pdparams(model: Network, path: str | Path, *, layout: str = "current") -> None:
    """Write the weights of `model` under the names, and in the shapes, of a published checkpoint.

    `layout` is `current`, or `original` for the architectures that had other names once.

    Raises:
        CheckpointError: the model was changed (fused, for one), so that PaddleClas's would not take its weights.
        UnknownNameError: the architecture was never published in that layout.
        OutputError: the file cannot be written.
    """
    tensors = published_tensors(model, layout)
    write_pdparams(path, {name: _storable(tensor).numpy() for name, tensor in tensors.items()})


def layouts(arch: str) -> list[str]:
    """The PaddlePaddle layouts in which `arch` was published."""
    return [layout for layout in PADDLE_LAYOUTS if layout in models.renames(arch)]


def published_tensors(model: Network, layout: str) -> dict[str, Tensor]:
    """Published name → tensor as PaddlePaddle holds it; views where possible, and of a network on the meta device too.

    Tables that follow from the architecture, and batch norms' counters, have no place in it.
    """
    if layout not in layouts(model.arch):
        raise UnknownNameError(f"layout of {model.arch}", layout, layouts(model.arch))
    state = model.state_dict()
    with torch.device("meta"):
        original = models.build(model.arch, num_classes=model.num_classes, in_channels=model.in_channels)
    if changed := state.keys() ^ original.state_dict().keys():
        raise CheckpointError(
            f"this {model.arch} differs from the published one in {len(changed)} tensors, such as {min(changed)}: "
            "export the network as it was before fuse() or other changes"
        )
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names = published_names(state, models.renames(model.arch)[layout])
    return {
        names[name].name: _as_published(tensor, names[name], name.rpartition(".")[0] in linear)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


def _as_published(tensor: Tensor, published: PublishedName, of_linear: bool) -> Tensor:
    """Paddle's linear weights are [in, out]; some of our linear layers are 1×1 convolutions there, and vice versa."""
    if published.linear and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0].T
    if published.conv and tensor.ndim == 2:
        return tensor[:, :, None, None]
    return tensor.T if of_linear and tensor.ndim == 2 else tensor


def _storable(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu()
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor  # NumPy has no bfloat16
