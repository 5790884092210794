"""What is computed of a network agrees with what was published, or the catalog says why not."""

from __future__ import annotations

from functools import cache

import pytest

from torchclas import catalog
from torchclas.complexity import Complexity, complexity

pytestmark = pytest.mark.sweep

cached = cache(complexity)


def computed(entry: catalog.Entry) -> Complexity:
    return cached(entry.arch, num_classes=entry.num_classes, size=entry.preset.size)


@pytest.mark.parametrize("entry", [e for e in catalog.entries() if e.gflops is not None], ids=lambda e: e.name)
def test_flops(entry: catalog.Entry) -> None:
    assert entry.gflops is not None
    ratio = computed(entry).published_macs / 1e9 / entry.gflops
    assert abs(ratio - 1) < 0.015 or "FLOPs" in entry.note or "TensorFlow" in entry.note, ratio


@pytest.mark.parametrize("entry", [e for e in catalog.entries() if e.params_m is not None], ids=lambda e: e.name)
def test_params(entry: catalog.Entry) -> None:
    assert entry.params_m is not None
    ratio = computed(entry).params / 1e6 / entry.params_m
    assert abs(ratio - 1) < 0.02 or "params" in entry.note, ratio
