"""To PaddlePaddle and back: what it loads, exports, folds and trains of our files is what we read of its own.

Runs where `make peers` was, or with the Python of another environment in PADDLE_PYTHON, such as one of PaddlePaddle 3.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import torchclas
from tests.parity.check import loaded
from tests.parity.golden import golden, relative_error
from torchclas.errors import CheckpointError
from torchclas.weights.export import to_pdparams

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("PADDLE_PYTHON", ROOT / "benchmarks/.peers/paddle/bin/python"))
FAMILIES = (
    "DLA46_c",
    "DPN68",
    "DeiT_tiny_distilled_patch16_224",
    "DenseNet121",
    "EfficientNetB0",
    "GhostNet_x0_5",
    "GoogLeNet",
    "HarDNet39_ds",
    "LeViT_128S",
    "MobileNetV3_small_x0_35",
    "PPLCNet_x0_25",
    "RedNet26",
    "RepVGG_A0",
    "ResNet18_vd",
    "ShuffleNetV2_x0_25",
    "SqueezeNet1_1",
    "SwinTransformer_tiny_patch4_window7_224",
    "pcpvt_small",
)
# What PaddlePaddle makes of their linear layers before it runs them has other weights, or data flows in another way.
REARRANGED = ("LeViT_128S", "SwinTransformer_tiny_patch4_window7_224", "pcpvt_small")
TOLERANCE = 1e-4  # of the largest logit, in float32

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.skipif(not PYTHON.is_file(), reason="PaddlePaddle is not here: make peers"),
]


@pytest.mark.parametrize("arch", FAMILIES)
def test_there_and_back(arch: str, tmp_path: Path) -> None:
    case = golden(arch)
    case.write(tmp_path / "published.pdparams")
    to_pdparams(loaded(arch, tmp_path / "published.pdparams")[0], tmp_path / "ours.pdparams")
    np.save(tmp_path / "images.npy", case.images())
    peer = [PYTHON, Path(__file__).with_name("paddle_peer.py"), arch, str(case.num_classes)]
    files = [tmp_path / "ours.pdparams", tmp_path / "images.npy", tmp_path]
    done = subprocess.run([*peer, *files], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]

    theirs, tuned = np.load(tmp_path / "logits.npy"), np.load(tmp_path / "tuned.npy")
    assert relative_error(theirs, tuned) > 1e-3, "training changed something"
    assert relative_error(logits(arch, tmp_path), theirs) < TOLERANCE
    assert relative_error(logits(arch, tmp_path / "inference.pdiparams"), theirs) < TOLERANCE
    assert relative_error(logits(arch, tmp_path / "tuned.pdparams"), tuned) < TOLERANCE
    if not (tmp_path / "folded").is_dir():  # PaddlePaddle 3 folds when it runs
        return
    if arch in REARRANGED:
        with pytest.raises(CheckpointError, match="optimized"):
            logits(arch, tmp_path / "folded")
    else:
        assert relative_error(logits(arch, tmp_path / "folded"), theirs) < TOLERANCE


@torch.inference_mode()
def logits(arch: str, weights: Path) -> np.ndarray:
    network = torchclas.create_model(arch, weights=weights).eval()
    return network(torch.from_numpy(golden(arch).images())).numpy()
