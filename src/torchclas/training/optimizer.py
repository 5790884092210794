"""Optimizers as the recipes mean them: which parameters decay, and an RMSProp that follows TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import SGD, AdamW

from torchclas import recipes
from torchclas.recipes import RecipeError


def build_optimizer(model: nn.Module, settings: recipes.Optimizer) -> torch.optim.Optimizer:
    """The optimizer of a recipe for the parameters of a model that are not frozen.

    They are in two groups at most: those that decay and those that `no_decay` and `decay_one_dim` spare. Raises
    `RecipeError` where all are frozen.
    """
    groups: dict[bool, list[Parameter]] = {True: [], False: []}
    for name, module, parameter in _trainable(model):
        groups[_decays(name, module, parameter, settings)].append(parameter)
    parameters = [
        {"params": group, "weight_decay": settings.weight_decay if decays else 0.0}
        for decays, group in groups.items()
        if group
    ]
    if not parameters:
        raise RecipeError("there is nothing to train: all parameters of the model are frozen")
    if settings.name == "sgd":
        return SGD(parameters, settings.lr, momentum=settings.momentum)
    if settings.name == "rmsprop":
        return RMSProp(parameters, settings.lr, alpha=settings.alpha, momentum=settings.momentum, eps=settings.eps)
    return AdamW(parameters, settings.lr, betas=settings.betas, eps=settings.eps)


@torch.no_grad()
def clip_each(parameters: Iterable[Parameter], most: float) -> None:
    """Scale the gradient of every parameter, in place, to a norm of `most` where it is larger."""
    for parameter in parameters:
        if parameter.grad is not None and (norm := parameter.grad.norm()) > most:
            parameter.grad *= most / norm


def spared(model: nn.Module, no_decay: Sequence[str], *, decay_one_dim: bool) -> set[str]:
    """The names of the parameters that no weight decay touches."""
    settings = recipes.Optimizer(no_decay=tuple(no_decay), decay_one_dim=decay_one_dim)
    return {name for name, module, each in _trainable(model) if not _decays(name, module, each, settings)}


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Module, Parameter]]:
    """Full name, owner and parameter; one that is shared counts for its first owner."""
    seen: set[Parameter] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(path, recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield name, module, parameter


def _decays(name: str, module: nn.Module, parameter: Parameter, settings: recipes.Optimizer) -> bool:
    if parameter.ndim <= 1 and not settings.decay_one_dim:
        return False
    described = f"{name} {type(module).__name__}".lower()
    return not any(part.lower() in described for part in settings.no_decay)


class RMSProp(torch.optim.Optimizer):
    """RMSProp whose epsilon is inside the root and whose momentum accumulates steps, not gradients.

    That is TensorFlow's, which PaddlePaddle follows and EfficientNet's settings are made for. With the same settings
    `torch.optim.RMSprop` takes much longer steps where gradients are small, and rescales past ones with the learning
    rate of the day.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        alpha: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, dict(lr=lr, alpha=alpha, momentum=momentum, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step; returns what `closure`, which computes the loss and its gradients again, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["square"] = torch.zeros_like(parameter)
                    state["velocity"] = torch.zeros_like(parameter)
                square: Tensor = state["square"]
                velocity: Tensor = state["velocity"]
                gradient: Tensor = parameter.grad.add(parameter, alpha=group["weight_decay"])
                square.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
                root = (square + group["eps"]).sqrt_()
                velocity.mul_(group["momentum"]).addcdiv_(gradient, root, value=group["lr"])
                parameter.sub_(velocity)
        return loss
