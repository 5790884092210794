"""Files for ExecuTorch: written, compared, described, and run here by its runtime."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.test_export_formats import METADATA, tiny
from torchclas import Classifier, compat
from torchclas.errors import CheckpointError, Error, MissingDependencyError
from torchclas.exporting import gate
from torchclas.exporting.gate import compute
from torchclas.spec import find_model
from torchclas.tasks.export import export
from torchclas.vocabulary import OUTPUTS
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.exported import sidecar_of
from torchclas.weights.metadata import read_metadata
from torchclas.zoo import load_model

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.skipif(
        importlib.util.find_spec("executorch") is None, reason="there is no executorch here: pip install executorch"
    ),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("executorch") / "pets.safetensors"
    save_checkpoint(tiny(), path, METADATA)
    return path


@pytest.fixture(scope="module")
def single(checkpoint: Path) -> Path:
    return export(checkpoint, to="executorch", output=checkpoint.with_name("single.pte"), outputs=OUTPUTS).path


def images(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).standard_normal((count, 3, 64, 64), np.float32)


def test_a_file_computes_what_the_network_does(checkpoint: Path, single: Path) -> None:
    classifier = Classifier(single, outputs=None)
    assert classifier.engine_name == "executorch fp32"
    network = load_model(find_model(checkpoint))
    for count in (1, 3):
        got, want = classifier.engine.run(images(count)), compute(network, METADATA.preset, images(count), OUTPUTS)
        assert max(gate.relative_error(got[name], want[name]) for name in OUTPUTS) < 1e-5


def test_a_fixed_number_of_images(checkpoint: Path, single: Path) -> None:
    path = export(checkpoint, to="executorch", output=checkpoint.with_name("four.pte"), batch=4).path
    got, want = (Classifier(file).engine(images(5)) for file in (path, single))
    assert gate.relative_error(got, want) < 1e-5


def test_a_file_says_what_it_is(single: Path) -> None:
    assert read_metadata(single) == replace(METADATA, outputs=OUTPUTS, origin={"run": 7, "input": "float32"})
    described = json.loads(sidecar_of(single).read_text())
    assert described["runtime"] == "executorch"
    assert described["input"]["shape"] == [1, 3, 64, 64]


def test_what_is_damaged_never_reaches_its_runtime(single: Path, tmp_path: Path) -> None:
    path = tmp_path / single.name
    shutil.copy(sidecar_of(single), sidecar_of(path))
    path.write_bytes(single.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="has changed since"):
        Classifier(path)


def test_what_executorch_cannot_do(checkpoint: Path) -> None:
    with pytest.raises(Error, match="one size"):
        export(checkpoint, to="executorch", input="uint8")
    with pytest.raises(Error, match="float32 alone"):
        export(checkpoint, to="executorch", precision="fp16")


def test_it_is_missing(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch.extension.pybindings._C", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'torchclas\[executorch\]'"):
        Classifier(single)


def test_its_runtime_comes_without_what_writes_programs() -> None:
    code = (
        "import sys; from torchclas.compat import executorch_bindings; executorch_bindings()._load_for_executorch; "
        "assert 'executorch.exir' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], timeout=180, check=True)
    assert callable(compat.executorch_bindings()._unsafe_reset_threadpool)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_process_goes_on_with_it(single: Path) -> None:
    code = (
        "import os, sys, numpy; from torchclas import Classifier; "
        "engine = Classifier(sys.argv[1], threads=2).engine; images = numpy.ones((2, 3, 64, 64), numpy.float32); "
        "before = engine(images); child = os.fork(); after = engine(images); same = numpy.allclose(before, after); "
        "os._exit(not same) if child == 0 else sys.exit(os.waitpid(child, 0)[1] or not same)"
    )
    done = subprocess.run([sys.executable, "-c", code, single], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout == done.stderr == ""
