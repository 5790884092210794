"""How much memory a training step takes, and how much there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from torchclas.layers.network import Network
from torchclas.sizes import Size

# Copies of the weights: themselves, gradients, two moments of AdamW, the moving average, what the optimizer works with.
COPIES = 6
# A step takes this many times what backpropagation keeps in fp32. On a CPU, networks of twelve families took 1.2 to 1.7
# times as much (gradients of activations, what kernels work with, gaps between blocks), in bf16 0.7 to 1.0.
TAKEN = {"32-true": 1.7, "bf16-mixed": 1.0, "16-mixed": 1.0}
SHARE = 0.8  # of what is free: the processes that read images want some too


@dataclass(frozen=True)
class StepMemory:
    """What a training step takes, in bytes: so much, and so much more for each image."""

    fixed: int
    image: int

    def of(self, images: int) -> int:
        """For so many at once."""
        return self.fixed + images * self.image

    def images(self, free: int) -> int:
        """How many at once `free` bytes allow for; may be 0."""
        return max(0, int(SHARE * free) - self.fixed) // self.image


def step_memory(network: Network, size: Size, precision: str) -> StepMemory:
    """An estimate for a network on the meta device, where nothing is computed, and images of `size`.

    `precision` is the recipe's. Raises what the network does for images that it cannot take.
    """
    own = {StorageWeakRef(tensor.untyped_storage()) for tensor in network.state_dict(keep_vars=True).values()}
    kept: dict[StorageWeakRef, int] = {}  # several tensors may share a storage

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[StorageWeakRef(storage)] = storage.nbytes()
        return tensor

    images = torch.empty(2, network.in_channels, *size, device="meta")  # batch norm wants two
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network.train().forward_heads(images)
        per_image = sum(size for storage, size in kept.items() if storage not in own) / len(images)
        del outputs  # what is kept lives as long as they do
    weights = sum(parameter.nbytes for parameter in network.parameters())
    return StepMemory(COPIES * weights, round(TAKEN[precision] * per_image))


def free_memory(device: str, processes: int = 1) -> int | None:
    """Bytes that each of the processes may take on "cuda:1", "mps", "cpu" … or, for "auto", the first kind there is.

    GPUs have a process each, the main memory is shared. None where it is not known.
    """
    kind, _, index = device.partition(":")
    if kind in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.mem_get_info(int(index or 0))[0]
    if kind in ("auto", "mps") and torch.backends.mps.is_available():
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if kind not in ("auto", "cpu"):
        return None
    import psutil

    free = psutil.virtual_memory().available
    limit = _container_limit(Path("/sys/fs/cgroup"))
    return (free if limit is None else min(free, limit)) // processes


def _container_limit(group: Path) -> int | None:
    """What a container may still take (control groups, version 2); None where it has no limit."""
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if limit == "max":
        return None
    # Pages of files that nobody uses just now count as used, and are given back when something wants them.
    return int(limit) - used + int(statistics.get("inactive_file", 0))
