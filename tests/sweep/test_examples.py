"""The programs in examples/: built and run by the commands that stand in them, they say what `predict` says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from torchclas import Classifier
from torchclas.exporting.openvino import write_openvino
from torchclas.tasks.export import export
from torchclas.weights.metadata import read_metadata

pytestmark = pytest.mark.sweep

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = "EfficientNet_lite0"
TOLERANCE = 1e-4  # of probabilities
HEADER = "onnxruntime_cxx_api.h"


@dataclass(frozen=True)
class Case:
    """A program, what else it needs, and the kind of pictures that it reads."""

    name: str
    programs: tuple[str, ...] = ()
    header: str = ""
    suffix: str = ".jpg"

    def missing(self) -> str:
        """Why it cannot be tried here; empty where it can."""
        if absent := [program for program in self.programs if shutil.which(program) is None]:
            return f"there is no {absent[0]} here: apt-get install g++ nodejs npm"
        search = ["g++", "-E", "-x", "c++", "-include", self.header, "-I/usr/include/onnxruntime", "-"]
        if self.header and subprocess.run(search, input=b"", capture_output=True, check=False).returncode:
            return (
                f"there is no {self.header} here: apt-get install libonnxruntime-dev (Debian 13), or CPLUS_INCLUDE_PATH"
            )
        return ""


CASES = (
    Case("classify_onnxruntime.py"),
    Case("classify_onnxruntime.mjs", ("node", "npm")),
    Case("classify_openvino.cpp", ("g++",), suffix=".ppm"),
    Case("classify_onnxruntime.cpp", ("g++",), HEADER, suffix=".ppm"),
)


def test_every_example_is_tried() -> None:
    assert {case.name for case in CASES} == {path.name for path in EXAMPLES.iterdir()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model.onnx`, and the same network as `model.xml`."""
    folder = tmp_path_factory.mktemp("models")
    graph = export(MODEL, to="onnx", input="uint8", output=folder / "model.onnx").path
    metadata = read_metadata(graph)
    assert metadata is not None
    write_openvino(graph, folder / "model.xml", metadata)
    return folder


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(MODEL, engine="torch")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_example_says_what_predict_says(
    case: Case, models: Path, classifier: Classifier, photographs: Path, tmp_path: Path
) -> None:
    if reason := case.missing():
        pytest.skip(reason)
    shutil.copy(EXAMPLES / case.name, tmp_path)
    for file in models.iterdir():
        (tmp_path / file.name).symlink_to(file)
    build, run = commands(tmp_path / case.name)
    photo = tmp_path / f"photo{case.suffix}"
    shell(build, tmp_path)
    for name in ("chelsea", "coffee", "astronaut"):
        write_picture(photographs / f"{name}.png", photo)
        lines = [line.partition(" ") for line in shell(run, tmp_path).splitlines()]
        (wanted,) = classifier.predict(photo)
        assert wanted.status == "ok"
        assert [label for _, _, label in lines] == list(wanted.labels)
        assert [float(score) for score, _, _ in lines] == pytest.approx(wanted.scores, abs=TOLERANCE)


def commands(program: Path) -> tuple[str, str]:
    """What builds a program and what runs it, from the comment that it begins with.

    The model has been exported, and Python's packages are installed.
    """
    mark = "    " if program.suffix == ".py" else "//     "
    comment = program.read_text(encoding="utf-8").partition("import" if program.suffix == ".py" else "\n\n")[0]
    lines = [line.removeprefix(mark) for line in comment.splitlines() if line.startswith(mark)]
    assert lines[0].startswith("torchclas export ")
    builds = [line for line in lines[1:-1] if not line.startswith("pip install ")]
    return "\n".join(["set -e", *builds]), lines[-1]


def shell(script: str, folder: Path) -> str:
    """What a script prints that finds this Python as `python`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_picture(source: Path, path: Path) -> None:
    """As a camera that was held upright writes it, where the format can say so."""
    image = Image.open(source).convert("RGB")
    if path.suffix != ".jpg":
        image.save(path)
        return
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90°
    image.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
