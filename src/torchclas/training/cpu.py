"""What makes training faster on a CPU: two operations in bf16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FastBf16(TorchFunctionMode):
    """For the forward pass of a network in bf16 autocast; the backward pass follows it.

    Depthwise convolutions are computed in fp32 (the gradient of their weights takes several times as long in bf16), and
    attention by plain products of matrices (the gradient of the fused kernel is slower than theirs).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and _is_depthwise(*args, **kwargs):
            return _in_fp32(func, *args, **kwargs)
        if func is F.scaled_dot_product_attention and len(args) == 3 and kwargs.keys() <= {"scale"}:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _is_depthwise(x: Tensor, weight: Tensor, *rest: Any, **named: Any) -> bool:
    return weight.shape[1] == 1 and weight.shape[0] == x.shape[1] > 1


def _in_fp32(func: Callable[..., Tensor], x: Tensor, *rest: Any, **named: Any) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return func(x.float(), *rest, **named).bfloat16()


def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)
    return scores.softmax(-1) @ v
