"""Of every family, timm and torchvision compute the same logits; with SWEEP=all, of every architecture they share."""

from __future__ import annotations

import gc
import os

import pytest

from tests.networks import room_for
from torchclas import models
from torchclas.correspondence import LIBRARIES, Library, counterparts

pytestmark = pytest.mark.sweep

ROWS = [(library, arch) for library in LIBRARIES for arch in counterparts(library)]
FIRST = list({(library, models.family(arch)): (library, arch) for library, arch in reversed(ROWS)}.values())


@pytest.mark.parametrize(("library", "arch"), ROWS if os.environ.get("SWEEP") == "all" else FIRST)
def test_same_logits(library: Library, arch: str) -> None:
    from tests.sweep.timm_table import check

    with room_for(arch):
        outcome = check(library, arch)
    assert outcome.equal, outcome
    gc.collect()
