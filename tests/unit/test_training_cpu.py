"""Training on a CPU: the faster ways compute the same, and freed memory is kept."""

import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.training.cpu import FastBf16


def gradients(function: Callable[..., Any], *inputs: Tensor) -> list[Tensor]:
    leaves = [one.clone().requires_grad_() for one in inputs]
    result = function(*leaves)
    result.float().square().sum().backward()
    return [result.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def agree(fast: list[Tensor], exact: list[Tensor], tolerance: float) -> None:
    for one, other in zip(fast, exact, strict=True):
        assert (one.float() - other).abs().max() <= tolerance * other.abs().max()


@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention(scale: float | None) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 17, 16) for _ in range(3)]
    exact = gradients(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=scale), *inputs)

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16), FastBf16():
            return F.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), scale=scale)

    fast = gradients(attention, *inputs)
    assert fast[0].dtype == torch.bfloat16
    agree(fast, exact, 0.03)


@pytest.mark.parametrize("named", [{"attn_mask": torch.ones(17, 17, dtype=torch.bool).tril()}, {"is_causal": True}])
def test_other_attention_is_left_alone(named: dict[str, Any]) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 17, 16) for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, **named)
    with FastBf16():
        assert torch.equal(F.scaled_dot_product_attention(q, k, v, **named), expected)


def test_depthwise_convolutions_are_exact_but_for_the_rounding_of_their_result() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), torch.randn(2, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16), FastBf16():
        result = conv(x)
    assert torch.equal(result, conv(x).bfloat16())


@pytest.mark.parametrize("groups", [1, 4])
def test_other_convolutions_stay_in_bf16(groups: int) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(8, 8, 3, groups=groups), torch.randn(2, 8, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        expected = conv(x)
        with FastBf16():
            assert torch.equal(conv(x), expected)
    assert expected.dtype == torch.bfloat16


KEPT = """
import resource
import torch
from torchclas.allocator import keep_freed_memory

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(16 * 2**20)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = fresh_pages()
keep_freed_memory()
for _ in range(8):  # until blocks lie where they fit
    fresh_pages()
print(given_back, fresh_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_freed_memory_is_kept() -> None:
    """A step that needs as much memory as the one before it asks the system for no new pages."""
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert kept < given_back / 10
