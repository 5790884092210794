"""A Classifier in other processes: forked ones, as gunicorn --preload, multiprocessing and Celery start; copies."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from torchclas.errors import CheckpointError, Error, MissingDependencyError, UnknownNameError
from torchclas.inference.classifier import Classifier
from torchclas.vocabulary import EngineName

PICTURE = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)

# In a process of its own: pytest's has threads of other tests. A child that hangs is ended by its alarm.
FORKS = """
import os, signal, sys, threading
import numpy as np
from torchclas import Classifier, Error

def scores(classifier):
    return [row.scores for row in classifier.predict([picture] * 5)]

def check(classifier):
    np.testing.assert_allclose(scores(classifier), before, atol=1e-6)

def in_child(work, end=lambda: os._exit(0)):  # as multiprocessing ends its processes
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        work()
        end()
    assert os.waitpid(child, 0)[1] == 0, "the child failed, or hung and had to be ended"

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def go_on():
    try:
        list(begun)
    except Error as error:
        assert "another process" in str(error), error
    else:
        raise AssertionError("the threads that read images are not here")

engine, = sys.argv[1:]
picture = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
classifier = Classifier(engine=engine, workers=2, batch_size=4, threads=2)
before = scores(classifier)
begun = classifier.predict([picture] * 30)
next(begun)

in_child(lambda: check(classifier), sys.exit)  # as gunicorn's workers end
in_child(lambda: None, sys.exit)
in_child(lambda: in_thread(lambda: check(classifier)))
in_child(lambda: (check(classifier), in_child(lambda: check(classifier))))
in_child(lambda: (os.chdir("/"), check(classifier)))
in_child(lambda: check(Classifier(engine=engine, workers=2)))
in_child(classifier.engine.close)
in_child(go_on)
check(classifier)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_a_forked_process_goes_on_with_it(engine: EngineName) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, engine], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch", "auto"])
def test_copies_are_opened_with_the_same_arguments(engine: EngineName) -> None:
    classifier = Classifier(engine=engine, workers=0, top_k=3, lang="zh", batch_size=2)
    (expected,) = classifier.predict(PICTURE)
    for again in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier), copy.copy(classifier)):
        assert again.engine is not classifier.engine
        assert (again.top_k, again.batch_size, again.workers) == (3, 2, 0)
        (row,) = again.predict(PICTURE)
        assert row.labels == expected.labels
        np.testing.assert_allclose(row.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("name", ["own.safetensors", "run"])
def test_a_copy_of_a_model_of_ones_own_is_opened_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from torchclas.catalog import find
    from torchclas.spec import DEFAULT_MODEL
    from torchclas.weights.location import converted_path

    Classifier(engine="torch")  # converts it
    (tmp_path / "run").mkdir()
    for path in (tmp_path / "own.safetensors", tmp_path / "run" / "best.safetensors"):
        path.symlink_to(converted_path(find(DEFAULT_MODEL)))
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(Classifier(name, engine="torch", workers=0))
    monkeypatch.chdir("/")
    (row,) = pickle.loads(pickled).predict(PICTURE)
    assert row.status == "ok"


def classify(classifier: Classifier) -> tuple[str, ...]:
    return next(classifier.predict(PICTURE)).labels


def test_a_spawned_process_gets_a_copy() -> None:
    classifier = Classifier(engine="onnxruntime", workers=0)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply_async(classify, (classifier,)).get(120) == classify(classifier)


@pytest.mark.parametrize(
    "error",
    [
        Error("some words"),
        CheckpointError("some words"),
        UnknownNameError("model", "ResNet5", ["ResNet50"]),
        MissingDependencyError("onnx", "onnx"),
    ],
)
def test_errors_pass_between_processes(error: Error) -> None:
    """A pool whose worker raises what cannot be unpickled waits for its result for ever."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_onnx_runtime_reports_nothing_to_its_maker() -> None:
    code = (
        "import os; before = len(os.listdir('/proc/self/task')); import numpy; "
        "from torchclas.onnxruntime_guest import forbid_telemetry; forbid_telemetry(); "
        "numpy_threads = len(os.listdir('/proc/self/task')); import onnxruntime; "
        "assert len(os.listdir('/proc/self/task')) == numpy_threads, 'a thread that sends'"
    )
    if not Path("/proc/self/task").is_dir():
        pytest.skip("threads are counted as Linux lists them")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "CI", "GITHUB"))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
