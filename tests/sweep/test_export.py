"""Of every family, exported files give the reference's logits, whatever the batch; `make exports` takes them all."""

from __future__ import annotations

import gc

import pytest

from tests.networks import REPRESENTATIVES

pytestmark = pytest.mark.sweep


@pytest.mark.parametrize("arch", REPRESENTATIVES)
def test_exports(arch: str) -> None:
    from tests.sweep.exports import check  # onnx and more, which collecting the default tests should not import

    outcome = check(arch)
    assert outcome.equal, outcome
    gc.collect()
