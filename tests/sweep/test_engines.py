"""No engine leaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import torchclas
from torchclas.catalog import find
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

LOOKS = 32  # at the memory, and 7 runs of 94 images, on average, before each: 21,000 predictions
GROWTH = 0.08  # of the median from one half to the other. What allocators keep goes up and down by more at every look

# Prints the resident memory, in pages, again and again; batches of every size, on two threads.
CODE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from torchclas.inference.classifier import Classifier

classifier = Classifier(sys.argv[1], engine=sys.argv[2], batch_size=8, workers=1, threads=2)
pictures = list(np.random.default_rng(0).integers(0, 256, (100, 240, 240, 3), np.uint8))

def predict(run):
    assert len(list(classifier.predict(pictures[run % 13 :]))) == 100 - run % 13

with ThreadPoolExecutor(2) as pool:
    for look in range(int(sys.argv[3])):
        list(pool.map(predict, range(look, look + 7)))
        print(Path("/proc/self/statm").read_text().split()[1])
"""


@pytest.mark.sweep
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of memory")
@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_memory_is_flat(tmp_path: Path, engine: str) -> None:
    network = torchclas.create_model("PPLCNet_x0_25", num_classes=2)
    path = tmp_path / "own.safetensors"
    metadata = Metadata(network.arch, 2, find(network.arch).preset, class_ids=("a", "b"), class_names=("a", "b"))
    save_checkpoint(network, path, metadata)
    code = [sys.executable, "-c", CODE, str(path), engine]
    subprocess.run([*code, "1"], check=True)  # exports and compiles, which takes memory of its own
    done = subprocess.run([*code, str(LOOKS)], check=True, capture_output=True, text=True)
    pages = [int(line) for line in done.stdout.split()]
    assert median(pages[LOOKS // 2 :]) / median(pages[: LOOKS // 2]) < 1 + GROWTH
