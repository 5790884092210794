"""What is written back has the published names and shapes, in every layout of every architecture."""

from __future__ import annotations

import pytest
import torch

from tests.networks import REPRESENTATIVES
from tests.parity.golden import cases, golden
from torchclas import models
from torchclas.weights.export import layouts, published_tensors

# All are built, written and loaded by `make parity`; each network here takes a tenth of a second.
EACH = [case if case[0] in REPRESENTATIVES else pytest.param(*case, marks=pytest.mark.sweep) for case in cases()]


@pytest.mark.parametrize(("arch", "layout"), EACH)
def test_published_names_and_shapes(arch: str, layout: str) -> None:
    case = golden(arch, layout)
    with torch.device("meta"):
        network = models.build(arch, num_classes=case.num_classes)
    got = {name: tuple(tensor.shape) for name, tensor in published_tensors(network, layout).items()}
    assert got == {name: shape for name, shape, dtype in case.tensors if "int" not in dtype}


def test_only_layouts_that_were_published() -> None:
    published = set(cases())
    for arch in {arch for arch, _ in published}:
        assert {(arch, layout) for layout in layouts(arch)} == {case for case in published if case[0] == arch}
