"""Quantizing: integers where measurement allows them, float where it does not, and what is said of both."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

import torchclas
from torchclas import catalog
from torchclas.cli import run
from torchclas.data.opening import open_for_model, open_pictures
from torchclas.engines.compiled import graph_file, int8_path
from torchclas.engines.onnx_runtime import OnnxRuntimeEngine
from torchclas.errors import CheckpointError, DataError, Error
from torchclas.inference.classifier import Classifier
from torchclas.layers.network import Network
from torchclas.quantization import calibration, network, speed
from torchclas.quantization.graph import QuantizedGraph, is_transformer
from torchclas.quantization.images import split
from torchclas.quantization.judging import Judge
from torchclas.quantization.report import QuantizationReport
from torchclas.quantization.search import Noise, fewest, rank, relative_power
from torchclas.spec import find_model
from torchclas.tasks import quantize as task
from torchclas.tasks.quantize import quantize
from torchclas.vocabulary import OUTPUTS, EngineName, Precision
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

SIZE = 32
CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with three classes for small images."""
    model = lively("PPLCNet_x0_25", num_classes=3)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    preset = replace(catalog.find("PPLCNet_x0_25").preset, resize_short=SIZE, size=(SIZE, SIZE))
    save_checkpoint(model, path, Metadata(model.arch, 3, preset, class_ids=CLASSES, class_names=CLASSES))
    return path


def lively(arch: str, num_classes: int) -> Network:
    """Random weights, with batch norms that fit them: as initialised, small networks give next to nothing."""
    torch.manual_seed(6)  # a network that is sure of its classes
    network = torchclas.create_model(arch, num_classes=num_classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(torch.randn(16, 3, 64, 64))
        torch.nn.init.normal_(network.get_parameter("classifier.weight"))
    return network


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of noise that has the colour of its class."""
    return paint(tmp_path_factory.mktemp("pictures"), seed=0)


def paint(root: Path, *, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for index, name in enumerate(CLASSES):
        (root / name).mkdir()
        for number in range(8):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3))
            pixels[:, :, index] = 255 - pixels[:, :, index] // 4
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module", autouse=True)
def _short_timing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "TIMING_SECONDS", 0.05)
        yield


@pytest.fixture(scope="module")
def all_int8(checkpoint: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizationReport:
    """Quantized with nothing that would put a layer back into float."""
    output = tmp_path_factory.mktemp("int8") / "all.onnx"
    return quantize(checkpoint, calibration=pictures, max_drop=100, output=output)


def test_both_engines_run_it_and_come_close_to_the_float_network(
    all_int8: QuantizationReport, checkpoint: Path, pictures: Path
) -> None:
    images = sorted(pictures.rglob("*.png"))

    def scores(path: Path, engine: EngineName, precision: Precision) -> npt.NDArray[np.float32]:
        classifier = Classifier(path, engine=engine, precision=precision, workers=1)
        assert classifier.engine_name == f"{engine} {precision}"
        return np.concatenate([classifier.probabilities(batch) for batch in classifier.batches(images)])

    expected = scores(checkpoint, "torch", "fp32")
    np.testing.assert_allclose(scores(all_int8.path, "openvino", "int8"), expected, atol=0.05)
    np.testing.assert_allclose(scores(all_int8.path, "onnxruntime", "int8"), expected, atol=0.05)


def test_weights_are_integers_with_a_scale_for_every_filter(all_int8: QuantizationReport) -> None:
    graph = onnx.load(all_int8.path).graph
    constants = {value.name: value for value in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    makers = {node.output[0]: node for node in graph.node}
    for layer in layers:
        if "/se/" in layer.name.replace(".", "/"):
            continue  # gates are a small part of the work, and sensitive: NNCF leaves them out
        weight, scale, _ = makers[layer.input[1]].input
        assert constants[weight].data_type == TensorProto.INT8
        assert list(constants[scale].dims) == [constants[weight].dims[0]]
    assert len(layers) > 20
    assert all_int8.in_float == ()
    assert all_int8.int8_size < 0.5 * all_int8.fp32_size


def test_checking_images_are_others_than_the_calibrations(all_int8: QuantizationReport) -> None:
    assert (all_int8.calibration_images, all_int8.checking_images) == (12, 12)


def test_the_report_is_beside_the_file(all_int8: QuantizationReport) -> None:
    written = json.loads(all_int8.path.with_suffix(".json").read_text())
    assert written["int8"]["agreement"] == all_int8.int8.agreement
    assert {(row["engine"], row["batch"]) for row in written["speed"]} == {
        (engine, batch) for engine in ("openvino", "onnxruntime") for batch in (1, 8)
    }
    assert all(row["int8_ms"] > 0 for row in written["speed"])


def test_in_float_again_it_is_the_float_network(all_int8: QuantizationReport, checkpoint: Path, tmp_path: Path) -> None:
    source = graph_file(find_model(checkpoint), OUTPUTS)
    graph = QuantizedGraph(onnx.load(source), onnx.load(all_int8.path))
    assert len(graph.operations) == all_int8.operations
    images = np.random.default_rng(0).normal(size=(4, 3, SIZE, SIZE)).astype(np.float32)

    def error(*in_float: str) -> float:
        onnx.save(graph.with_float(in_float), tmp_path / "candidate.onnx")
        difference = OnnxRuntimeEngine(tmp_path / "candidate.onnx")(images) - expected
        return float(np.abs(difference).max() / np.abs(expected).max())

    expected = OnnxRuntimeEngine(source)(images)
    assert error(*graph.operations) < 1e-5
    assert error(*graph.operations[:-1]) > 1e-4, "the last one makes a difference"
    assert error() > error(*graph.operations[: len(graph.operations) // 2]) > 1e-4


def test_operations_are_ranked_by_what_they_do_to_the_logits(all_int8: QuantizationReport, checkpoint: Path) -> None:
    source = onnx.load(graph_file(find_model(checkpoint), OUTPUTS))
    graph = QuantizedGraph(source, onnx.load(all_int8.path))
    loud = graph.operations[1]
    everything = set(graph.operations)

    def run(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
        """Logits that only `loud` in int8 changes much."""
        kinds = {node.op_type for node in model.graph.node}
        assert "DequantizeLinear" in kinds
        changed = 0.5 if model == graph.with_float(everything - {loud}) else 0.01
        return np.full((2, 3), 1 + changed, np.float32)

    measured: list[None] = []
    ranked = rank(graph, run, np.ones((2, 3), np.float32), lambda: measured.append(None))
    assert ranked[0].operation == loud
    assert ranked[0].power == pytest.approx(0.25)
    assert len(measured) == len(ranked) == len(graph.operations)


def test_what_is_too_sensitive_stays_in_float(
    all_int8: QuantizationReport, checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = QuantizedGraph(
        onnx.load(graph_file(find_model(checkpoint), OUTPUTS)), onnx.load(all_int8.path)
    ).operations
    noises = [Noise(operation, 1 / (1 + index)) for index, operation in enumerate(operations)]
    monkeypatch.setattr(calibration, "quantize_all", lambda *_, **__: onnx.load(all_int8.path))
    monkeypatch.setattr(network, "rank", lambda *_: noises)  # a test has no time to measure each of them
    monkeypatch.setattr(Judge, "drop", lambda judge, logits: 100 * (1 - judge.figures(logits).cosine))
    bound = 100 * (1 - all_int8.int8.cosine) / 3
    report = quantize(checkpoint, calibration=pictures, max_drop=bound, output=tmp_path / "mixed.onnx")
    assert 0 < len(report.in_float) < report.operations
    assert [row.name for row in report.in_float] == list(operations[: len(report.in_float)])
    assert 100 * (1 - report.int8.cosine) <= bound < 100 * (1 - report.all_int8.cosine)
    assert report.in_float[0].noise_db == pytest.approx(0)


def test_no_image_is_both_for_calibrating_and_checking(checkpoint: Path, pictures: Path) -> None:
    spec = find_model(checkpoint)
    for val in (None, pictures, pictures / "." / ".." / pictures.name):
        others = None if val is None else open_for_model(val, spec.classes, spec.name)
        chosen, checked = split(open_pictures(pictures), others, 300)
        assert len(chosen) == len(checked) == 12
        assert not {Path(entry.name).resolve() for entry in chosen} & {Path(entry.name).resolve() for entry in checked}


def test_the_command_leaves_it_where_predict_finds_it(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="torchclas quantize"):
        Classifier(checkpoint, precision="int8")
    val = paint(tmp_path, seed=1)
    arguments = ["--calibration", str(pictures), "--val", str(val), "--images", "4", "--max-drop", "100"]
    assert run(["quantize", str(checkpoint), *arguments]) == 0
    shown = capsys.readouterr().out
    assert "4 to calibrate, 24 others to check" in shown

    classifier = Classifier(checkpoint, precision="int8", engine="openvino", workers=1)
    assert classifier.engine_name == "openvino int8"
    rows = list(classifier.predict(sorted(val.rglob("*.png"))))
    right = sum(row.labels[0] == Path(row.source).parent.name for row in rows)
    assert f"{100 * right / 24:.2f} %, fp32 " in shown
    assert "calibrated with 4 images" in shown
    assert "checked with 24 images" in shown
    report = json.loads(int8_path(find_model(checkpoint)).with_suffix(".json").read_text())
    assert "agreement with float32" in int8_path(find_model(checkpoint)).with_suffix(".md").read_text(encoding="utf-8")
    assert "95 % interval" in report["notes"][1]
    assert report["int8"]["top1"] == pytest.approx(100 * right / 24)

    made = int8_path(find_model(checkpoint))
    content = made.read_bytes()
    made.write_bytes(content[:-100] + bytes(100))
    with pytest.raises(CheckpointError, match="has changed since it was written: run `torchclas quantize` again"):
        Classifier(checkpoint, precision="int8", engine="onnxruntime")
    made.write_bytes(content)


def test_the_name_that_was_never_published(all_int8: QuantizationReport, pictures: Path) -> None:
    name = "MobileNetV3_large_x1_0_ssld_int8"
    with pytest.raises(CheckpointError, match=f"torchclas quantize {name} --calibration"):
        Classifier(name)
    spec, named, path = task.find_source(name.upper(), None, None)
    assert (spec.name, spec.path, named) == ("MobileNetV3_large_x1_0_ssld", None, name)

    path.parent.mkdir(exist_ok=True)  # as if it had been made: this network is too large for a quick test
    path.write_bytes(all_int8.path.read_bytes())
    classifier = Classifier(name)
    assert classifier.engine.precision == "int8"
    assert classifier.spec.path == path
    assert next(classifier.predict(pictures / "red" / "0.png")).status == "ok"
    path.unlink()


def test_what_cannot_be_quantized(
    all_int8: QuantizationReport, checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="quantized already"):
        quantize(all_int8.path, calibration=pictures)
    with pytest.raises(DataError, match="no such file or folder"):
        quantize(checkpoint, calibration=pictures / "none")
    (alone := tmp_path / "alone").mkdir()
    (alone / "0.png").write_bytes((pictures / "red" / "0.png").read_bytes())
    with pytest.raises(DataError, match="too few images"):
        quantize(checkpoint, calibration=alone)
    with pytest.raises(Error, match="must end in"):
        quantize(checkpoint, calibration=pictures, output=tmp_path / "model.xml")


@pytest.mark.parametrize("least", [1, 2, 3, 5, 8, 9, 10])
def test_the_fewest_that_suffice(least: int) -> None:
    ranked = [Noise(str(index), 1 / (1 + index)) for index in range(10)]
    asked: list[int] = []

    def suffices(noises: Sequence[Noise]) -> bool:
        asked.append(len(noises))
        return len(noises) >= least

    assert fewest(ranked, suffices) == ranked[:least]
    assert len(asked) <= 2 * math.log2(10) + 1


def test_noise_that_is_not_a_number_is_the_worst() -> None:
    signal = np.ones((2, 3), np.float32)
    assert relative_power(0.5 * signal, signal) == 0.25
    assert relative_power(np.nan * signal, signal) == math.inf


def test_attention_is_told_by_its_products() -> None:
    def model(*inputs: str) -> onnx.ModelProto:
        graph = helper.make_graph([helper.make_node("MatMul", inputs, ["z"])], "g", [], [])
        graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [1, 1], [1.0]))
        return helper.make_model(graph)

    assert is_transformer(model("x", "y"))
    assert not is_transformer(model("x", "w"))
