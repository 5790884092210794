"""One training step of every network with a reference equals PaddleClas's, and so do fresh parameters."""

from __future__ import annotations

import pytest

from tests.parity.test_training import FRESH, STEPS
from tests.parity.training import check_fresh_parameters, references, step

pytestmark = pytest.mark.sweep


@pytest.mark.parametrize("arch", sorted(set(references("gradients")) - set(STEPS)))
def test_one_step_equals_the_reference(arch: str) -> None:
    errors = step(arch)
    assert errors.equal, errors


@pytest.mark.parametrize("arch", sorted(set(references("initialisation")) - set(FRESH)))
def test_fresh_parameters_are_distributed_as_published(arch: str) -> None:
    check_fresh_parameters(arch)
