"""What makes training faster on a CPU: memory that is used again, and two operations in bf16."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for the next step needs as much again.

    As a rule glibc gives large blocks back at once, and then each step waits for the system to clear hundreds of
    megabytes of fresh pages: an eighth of the time of a ResNet18. The price is about a tenth more memory, as gaps
    arise in what is kept. Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


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
