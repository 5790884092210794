"""Files for phones: written, compared, described, and run here by their own runtimes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

from tests.unit.test_export_formats import CHANGED, METADATA, tiny
from torchclas import Classifier, cli
from torchclas.engines.graph import Signature
from torchclas.engines.runtime_file import RuntimeFileEngine
from torchclas.errors import CheckpointError, Error
from torchclas.exporting import formats, gate
from torchclas.exporting.formats import FORMATS
from torchclas.exporting.gate import DivergenceError
from torchclas.exporting.mnn import write_mnn
from torchclas.exporting.ncnn import write_ncnn
from torchclas.exporting.onnx import write_onnx
from torchclas.layers.fold import fold_batch_norms
from torchclas.layers.network import Network
from torchclas.spec import find_model
from torchclas.tasks import export as task
from torchclas.tasks.quantize import quantize
from torchclas.vocabulary import OUTPUTS, EngineName, ExportPrecision
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.exported import RUNTIMES, sidecar_of
from torchclas.weights.metadata import read_metadata
from torchclas.zoo import load_model

# ExecuTorch's files take most of a minute to write: tests/sweep/test_executorch.py.
RUNTIME_NAMES: list[EngineName] = [name for name in RUNTIMES.values() if name != "executorch"]
PRECISIONS: tuple[ExportPrecision, ...] = get_args(ExportPrecision)
BOTH = replace(METADATA, outputs=OUTPUTS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phones") / "pets.safetensors"
    save_checkpoint(tiny(), path, METADATA)
    return path


@pytest.fixture(scope="module", autouse=True)
def traced_once(checkpoint: Path) -> Iterator[None]:
    """Tracing takes seconds, and gives the same file each time."""
    graphs: dict[int | None, Path] = {}

    def write(network: object, path: Path, *_: object, batch: int | None, **__: object) -> None:
        if batch not in graphs:
            graphs[batch] = checkpoint.with_name(f"batch-{batch}.onnx")
            write_onnx(fold_batch_norms(load_model(find_model(checkpoint)).fuse()), graphs[batch], BOTH, batch=batch)
        shutil.copy(graphs[batch], path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "write_onnx", write)
        yield


@pytest.fixture(scope="module")
def written(checkpoint: Path) -> dict[tuple[EngineName, ExportPrecision], Path]:
    """A file of each runtime in each precision, with both outputs, as the command writes it."""
    found: dict[tuple[EngineName, ExportPrecision], Path] = {}
    for to in RUNTIME_NAMES:
        for precision in PRECISIONS:
            path = checkpoint.with_name(f"{precision}{FORMATS[to].suffix}")  # pyright: ignore[reportArgumentType]
            options = ["--outputs", "logits,embedding", "--precision", precision]
            assert cli.run(["export", str(checkpoint), "--to", to, "-o", str(path), *options]) == 0
            found[to, precision] = path
    return found


@pytest.fixture(params=RUNTIME_NAMES)
def runtime(request: pytest.FixtureRequest) -> EngineName:
    return request.param


def images(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).standard_normal((count, 3, 64, 64), np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_computes_what_the_network_does(
    runtime: EngineName, precision: ExportPrecision, written: dict[tuple[str, str], Path], checkpoint: Path
) -> None:
    classifier = Classifier(written[runtime, precision], outputs=None)
    assert classifier.engine_name == f"{runtime} {precision}"
    network, allowed = load_model(find_model(checkpoint)), 1e-5 if precision == "fp32" else 5e-3
    errors: list[float] = []
    for count in (1, 3):
        got, want = classifier.engine.run(images(count)), gate.compute(network, METADATA.preset, images(count), OUTPUTS)
        errors += [gate.relative_error(got[name], want[name]) for name in OUTPUTS]
    assert max(errors) < allowed
    assert (max(errors) > 1e-5) == (precision == "fp16")  # its numbers are rounded
    classifier.close()


def test_half_precision_is_half_as_large(runtime: EngineName, written: dict[tuple[str, str], Path]) -> None:
    def size(precision: ExportPrecision) -> int:
        return sum(part.stat().st_size for part in exported_parts(written[runtime, precision]))

    assert size("fp16") < 0.6 * size("fp32")


def exported_parts(path: Path) -> list[Path]:
    stem = path.name.removesuffix(".param")
    return [file for file in path.parent.iterdir() if file.name.startswith(stem) and file.suffix != ".json"]


def test_predict_runs_it_with_labels_and_preprocessing(
    runtime: EngineName,
    written: dict[tuple[str, str], Path],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)).save(picture)
    rows: list[dict[str, object]] = []
    for model, engine in ((written[runtime, "fp32"], ()), (checkpoint, ("--engine", "torch"))):
        assert cli.run(["predict", str(picture), "-m", str(model), "--format", "jsonl", *engine]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    engines = [row.pop("engine") for row in rows]
    scores = [row.pop("scores") for row in rows]
    assert engines[0] == f"{runtime} fp32"
    assert rows[0] == rows[1]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_a_file_says_what_it_is(runtime: EngineName, written: dict[tuple[str, str], Path]) -> None:
    path = written[runtime, "fp16"]
    origin = {"run": 7, "input": "float32", "precision": "fp16"}
    assert read_metadata(path) == replace(BOTH, origin=origin)
    described = json.loads(sidecar_of(path).read_text())
    assert described["labels"] == list(METADATA.class_names)
    assert described["class_ids"] == list(METADATA.class_ids)
    assert (described["runtime"], described["precision"]) == (runtime, "fp16")
    assert described["input"]["shape"][1:] == [3, 64, 64]


@pytest.mark.parametrize("damage", ["cut", "without description", "not json", "missing part"])
def test_what_is_damaged_never_reaches_its_runtime(
    runtime: EngineName, damage: str, written: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    source = written[runtime, "fp32"]
    for file in (*exported_parts(source), sidecar_of(source)):
        shutil.copy(file, tmp_path)
    path = tmp_path / source.name
    victim = exported_parts(path)[-1]
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-100])
    elif damage == "missing part":
        victim.unlink()
    elif damage == "not json":
        sidecar_of(path).write_text("[1, 2")
    else:
        sidecar_of(path).unlink()
    with pytest.raises(CheckpointError):
        Classifier(path)


def test_engines_are_for_their_own_files(
    runtime: EngineName, written: dict[tuple[str, str], Path], checkpoint: Path
) -> None:
    with pytest.raises(Error, match=f"use the engine {runtime}"):
        Classifier(written[runtime, "fp32"], engine="openvino")
    with pytest.raises(Error, match=f"--to {runtime}"):
        Classifier(checkpoint, engine=runtime)
    with pytest.raises(Error, match="was not exported in fp16"):
        Classifier(written[runtime, "fp32"], precision="fp16")
    with pytest.raises(CheckpointError, match="quantize the model it was exported from"):
        quantize(written[runtime, "fp32"], calibration=written[runtime, "fp32"].parent)
    with pytest.raises(Error, match="exported already"):
        task.export(written[runtime, "fp32"], to="onnx")


def test_a_graph_that_contradicts_its_description(runtime: EngineName, written: dict[tuple[str, str], Path]) -> None:
    path = written[runtime, "fp32"]
    other = replace(METADATA, num_classes=5, class_ids=(), class_names=())
    signature = Signature(other.name, other.num_classes, "float32", (3, 64, 64))
    engine = RuntimeFileEngine(path, runtime, precision="fp32", threads=1, outputs=("logits",), signature=signature)
    with pytest.raises(CheckpointError, match="contradicts its own metadata"):
        engine.run(images(1))


def test_a_file_that_differs_is_not_written(
    runtime: EngineName, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = formats.write_onnx

    def write_wrong(network: Network, path: Path, *rest: Any, **options: Any) -> None:
        traced(network, path, *rest, **options)
        model = onnx.load(str(path))
        tensor = next(item for item in model.graph.initializer if item.name == f"{CHANGED}.conv.weight")
        tensor.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(tensor), tensor.name))
        onnx.save(model, str(path))

    monkeypatch.setattr(formats, "write_onnx", write_wrong)
    folder = tmp_path / "out"
    name = f"pets{FORMATS[runtime].suffix}"  # pyright: ignore[reportArgumentType]
    with pytest.raises(DivergenceError, match="was not written"):
        task.export(checkpoint, to=runtime, output=folder / name, outputs=OUTPUTS)  # pyright: ignore[reportArgumentType]
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_process_goes_on_with_it(runtime: EngineName, written: dict[tuple[str, str], Path]) -> None:
    code = (
        "import os, sys, numpy; from torchclas import Classifier; "
        "engine = Classifier(sys.argv[1], threads=2).engine; images = numpy.ones((2, 3, 64, 64), numpy.float32); "
        "before = engine(images); child = os.fork(); after = engine(images); same = numpy.allclose(before, after); "
        "os._exit(not same) if child == 0 else sys.exit(os.waitpid(child, 0)[1] or not same)"
    )
    subprocess.run([sys.executable, "-c", code, written[runtime, "fp32"]], timeout=60, check=True)


def test_rows_are_alone_on_standard_output(
    runtime: EngineName, written: dict[tuple[str, str], Path], photographs: Path
) -> None:
    command = [sys.executable, "-m", "torchclas", "predict", photographs / "coffee.png", "--format", "jsonl"]
    done = subprocess.run([*command, "-m", written[runtime, "fp32"]], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["engine"] == f"{runtime} fp32"


def test_mnn_takes_any_number_of_images_or_a_fixed_one(
    checkpoint: Path, written: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    path = task.export(checkpoint, to="mnn", batch=2, output=tmp_path / "two.mnn", outputs=OUTPUTS).path
    assert json.loads(sidecar_of(path).read_text())["input"]["shape"] == [2, 3, 64, 64]
    for count in (1, 2, 5):
        got, want = (Classifier(file).engine(images(count)) for file in (path, written["mnn", "fp32"]))
        assert gate.relative_error(got, want) < 1e-5
    sidecar_of(path).write_text(sidecar_of(path).read_text().replace('"shape"', '"form"'))
    with pytest.raises(CheckpointError, match="not a description"):
        Classifier(path)


def test_mnn_without_a_layer(tmp_path: Path) -> None:
    graph = tmp_path / "strange.onnx"
    _write_strange(graph, "NoSuchOperator")
    with pytest.raises(Error, match="MNN's converter failed"):
        write_mnn(graph, tmp_path / "strange.mnn", precision="fp32")


def test_ncnn_takes_one_image(checkpoint: Path) -> None:
    with pytest.raises(Error, match="one at a time"):
        task.export(checkpoint, to="ncnn", batch=2)
    with pytest.raises(Error, match="one size"):
        task.export(checkpoint, to="ncnn", input="uint8")


def test_ncnn_without_a_layer(checkpoint: Path, tmp_path: Path) -> None:
    """An operation that pnnx hands on as it is."""

    graph = tmp_path / "strange.onnx"
    _write_strange(graph)
    with pytest.raises(Error, match=r"ncnn has no layer for|pnnx failed"):
        write_ncnn(graph, tmp_path / "strange.ncnn.param", ("logits",), precision="fp32")


def _write_strange(path: Path, operator: str = "NonZero") -> None:
    shape = [1, 3, 64, 64]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(operator, ["images"], ["logits"])],
        "strange",
        [value("images", onnx.TensorProto.FLOAT, shape)],
        [value("logits", onnx.TensorProto.INT64, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(path))
