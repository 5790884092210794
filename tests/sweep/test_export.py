"""Every architecture as an ONNX file and as an OpenVINO model gives the reference's logits, whatever the batch."""

from __future__ import annotations

import gc

import pytest

from torchclas import models

pytestmark = pytest.mark.sweep

# `make exports` runs these alone: two workers at once have no memory for such weights, of 2 and 3 GB.
TOO_LARGE = ("ResNeXt101_32x32d_wsl", "ResNeXt101_32x48d_wsl")


@pytest.mark.parametrize("arch", [arch for arch in models.architectures() if arch not in TOO_LARGE])
def test_exports(arch: str) -> None:
    from tests.sweep.exports import check  # onnx and more, which collecting the default tests should not import

    outcome = check(arch)
    assert outcome.equal, outcome
    gc.collect()
