"""Fully sharded training: each process holds a part of every tensor, and a whole block only while that computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from torchclas.compat import launch_by_spawning
from torchclas.layers.network import Network, Stage

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.distributed.device_mesh import DeviceMesh


def sharded_fabric(processes: int, *, spawn: bool, **settings: Any) -> Fabric:
    """A Fabric for `processes` that share networks; with `spawn` its `launch` starts them."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

    strategy = ModelParallelStrategy(_as_it_is, data_parallel_size=processes, tensor_parallel_size=1)
    fabric = Fabric(strategy=strategy, **settings)
    if spawn:
        launch_by_spawning(strategy)
    return fabric


def _as_it_is(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Networks are sharded before Fabric sees them, as their optimizer must be built in between."""
    return module


def data_mesh(fabric: Fabric) -> DeviceMesh | None:
    """The processes that share networks; None where each has its own."""
    mesh = getattr(fabric.strategy, "device_mesh", None)
    return None if mesh is None else mesh["data_parallel"]


def shard(network: Network, mesh: DeviceMesh) -> None:
    """Divide a network, block by block, among the processes; each must have the same one."""
    for stage in network.modules():
        if isinstance(stage, Stage):
            for block in stage:
                if next(block.parameters(), None) is not None:
                    fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(network, "forward_heads")


def gather(state: Any, *, keep: bool) -> Any:
    """Nested dicts and lists with whole tensors, on the CPU; None for those of processes that do not `keep` them.

    All processes must call this together.
    """
    if isinstance(state, DTensor):
        whole = state.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(state, Mapping):
        return {key: gather(value, keep=keep) for key, value in cast(Mapping[Any, Any], state).items()}
    if isinstance(state, list):
        return [gather(value, keep=keep) for value in cast(list[Any], state)]
    return state


def distribute(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `gather` for the state of a module, divided as that of `like` is."""
    return {name: _part(value, like[name]) if name in like else value for name, value in state.items()}


def distribute_optimizer(state: Mapping[str, Any], parameters: list[nn.Parameter]) -> dict[str, Any]:
    """Inverse of `gather` for the state of an optimizer; what has a parameter's shape is divided as that is."""
    parts = {
        index: {
            name: _part(value, parameters[index]) if value.shape == parameters[index].shape else value
            for name, value in values.items()
        }
        for index, values in state["state"].items()
    }
    return {**state, "state": parts}


def _part(value: Tensor, like: Tensor) -> Tensor:
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value
