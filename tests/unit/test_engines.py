"""Engines: all compute the same, the fastest is found once, and what they compile is kept."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from torchclas.catalog import find
from torchclas.engines import choice, compiled, engine, installed, open_engine
from torchclas.engines.eager import TorchEngine
from torchclas.engines.graph import Signature
from torchclas.engines.machine import usable_threads
from torchclas.engines.openvino import OpenVinoEngine, split
from torchclas.errors import CheckpointError, Error, MissingDependencyError, OutputError
from torchclas.inference.classifier import Classifier
from torchclas.layers.network import Network
from torchclas.models import build
from torchclas.reporting.contact_sheet import open_montage
from torchclas.spec import ModelSpec, find_model
from torchclas.tasks.weights import clear
from torchclas.vocabulary import EngineName, Output, Precision
from torchclas.weights import cache
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import KEY, Metadata
from torchclas.zoo import load_model

ARCH, SIZE, CLASSES = "PPLCNet_x0_25", 64, 7
EXACT = 1e-4  # of the largest logit


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 3, SIZE, SIZE), np.float32)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHCLAS_CACHE", str(tmp_path_factory.mktemp("engines")))
        yield


def write_model(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = build(ARCH, num_classes=CLASSES)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as training leaves them, so that folding them shows
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    names = tuple(f"c{i}" for i in range(CLASSES))
    preset = replace(find(ARCH).preset, resize_short=SIZE, size=(SIZE, SIZE))
    save_checkpoint(network, path, Metadata(ARCH, CLASSES, preset, class_ids=names, class_names=names))
    return path


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return find_model(write_model(tmp_path_factory.mktemp("model") / "own.safetensors"))


@pytest.fixture(scope="module")
def reference(spec: ModelSpec) -> NDArray[np.float32]:
    with torch.inference_mode():
        return load_model(spec)(torch.from_numpy(images(5))).numpy()


def difference(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    assert logits.dtype == np.float32
    assert logits.shape == reference.shape
    return float(abs(logits - reference).max() / abs(reference).max())


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", ["auto", "torch", "onnxruntime", "openvino"])
def test_engines_agree_on_any_number_of_images(
    spec: ModelSpec, reference: NDArray[np.float32], name: EngineName, batch_size: int
) -> None:
    run = open_engine(spec, name, batch_size=batch_size, threads=1)
    assert run.precision == "fp32"
    for count in (1, 5, 2):
        assert difference(run(images(5)[:count]), reference[:count]) < EXACT
    run.close()


@pytest.mark.parametrize(
    ("batch_size", "threads", "expected"),
    [
        (1, 2, (1, 1)),  # all threads work on the one image
        (3, 2, (1, 3)),
        (8, 2, (2, 4)),
        (16, 2, (2, 4)),  # in two rounds
        (8, 64, (4, 2)),  # sixteen threads to a stream
        (64, 64, (32, 2)),
        (2, 1, (1, 2)),
    ],
)
def test_batches_are_split_over_streams(batch_size: int, threads: int, expected: tuple[int, int]) -> None:
    assert split(batch_size, threads) == expected


@pytest.mark.parametrize("count", [1, 2, 4, 5, 11, 16])
def test_streams_keep_the_order(spec: ModelSpec, count: int) -> None:
    some = images(count)
    run = open_engine(spec, "openvino", batch_size=4, threads=2)
    assert isinstance(run, OpenVinoEngine)
    assert (run.streams, run.part) == (2, 2)
    with torch.inference_mode():
        assert difference(run(some), load_model(spec)(torch.from_numpy(some)).numpy()) < EXACT


def test_single_images_are_not_computed_as_four(spec: ModelSpec, reference: NDArray[np.float32]) -> None:
    """From the second small batch in a row on; the last batch of a folder is not followed by another."""
    run = open_engine(spec, "openvino", batch_size=16, threads=2)
    assert isinstance(run, OpenVinoEngine)
    some = images(5)
    for count in (5, 3, 5, 1):
        assert difference(run(some[:count]), reference[:count]) < EXACT
    assert run.single is None
    for count in (1, 3, 5, 2):
        assert difference(run(some[:count]), reference[:count]) < EXACT
    assert run.single is not None
    assert run.single.part == 1
    run.close()


def test_a_file_for_batches_of_one_size_is_opened_once(spec: ModelSpec, tmp_path: Path) -> None:
    graph = onnx.load(compiled.graph_file(spec))
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    path = tmp_path / "four.onnx"
    onnx.save(graph, path)
    run = open_engine(find_model(path), "openvino", batch_size=16)
    assert isinstance(run, OpenVinoEngine)
    for _ in range(3):
        run(images(1))
    assert (run.part, run.single, run.for_single) == (4, None, None)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bf16_is_close(spec: ModelSpec, reference: NDArray[np.float32], name: EngineName) -> None:
    run = open_engine(spec, name, precision="bf16", batch_size=4)
    assert (run.name, run.precision) == (name, "bf16")
    assert difference(run(images(5)), reference) < 0.05


@pytest.mark.parametrize("arch", ["RepVGG_A0", "LeViT_128S"])
def test_torch_folds_all_that_only_training_needs(arch: str) -> None:
    torch.manual_seed(0)
    network = build(arch, num_classes=CLASSES).eval()
    size = network.input_size[0] if network.input_size else 64
    x = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        reference = network(x).numpy()
    run = TorchEngine(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in run.network.modules())
    assert difference(run(x.numpy()), reference) < EXACT


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_threads_never_mix_up_results(spec: ModelSpec, name: EngineName, batch_size: int) -> None:
    run = open_engine(spec, name, batch_size=batch_size, threads=min(2, batch_size))
    inputs = [images(1 + 4 * seed % 11, seed) for seed in range(8)]
    alone = [run(batch) for batch in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, inputs * 10))
    for index, logits in enumerate(together):
        np.testing.assert_allclose(logits, alone[index % 8], rtol=1e-5, atol=1e-6)


def test_threads_share_a_classifier(spec: ModelSpec) -> None:
    assert spec.path is not None
    classifier = Classifier(spec.path, batch_size=2, workers=1, threads=1)
    pictures = list(np.random.default_rng(0).integers(0, 256, (6, 80, 90, 3), np.uint8))
    alone = [row.scores for row in classifier.predict(pictures)]
    with ThreadPoolExecutor(2) as pool:
        for scores in pool.map(lambda _: [row.scores for row in classifier.predict(pictures)], range(10)):
            np.testing.assert_allclose(scores, alone, atol=1e-6)


def test_the_fastest_is_measured_once(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def measured(engines: dict[EngineName, Any], batch: NDArray[np.float32]) -> dict[EngineName, float]:
        calls.append(len(batch))
        return {name: 1.0 if name == "onnxruntime" else 2.0 for name in engines}

    monkeypatch.setattr(choice, "measure", measured)
    monkeypatch.setattr(choice, "SECONDS", 0)
    caplog.set_level(logging.INFO, "torchclas")
    for batch_size in (1, 1, 2, 16):
        assert open_engine(spec, batch_size=batch_size, threads=2).name == "onnxruntime"
    assert calls == [1, choice.BATCH], "once for one image, once for any more"
    assert "onnxruntime is the fastest for own here: openvino 2.0 ms, onnxruntime 1.0 ms" in caplog.text
    for kept in compiled.folder(spec).glob("fastest-*.json"):
        kept.write_text("{")
    assert open_engine(spec, batch_size=1, threads=2).name == "onnxruntime"
    assert calls == [1, choice.BATCH, 1], "what cannot be read is measured again"


def test_measuring_finds_the_faster_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sleeper:
        precision: Precision = "fp32"
        outputs: tuple[Output, ...] = ("logits",)

        def __init__(self, name: EngineName, seconds: float) -> None:
            self.name: EngineName = name
            self.seconds = seconds

        def run(self, images: NDArray[Any]) -> dict[Output, NDArray[np.float32]]:
            time.sleep(self.seconds)
            return {"logits": images}

        def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
            return self.run(images)["logits"]

        def close(self) -> None:
            pass

    monkeypatch.setattr(choice, "SECONDS", 0.05)
    times = choice.measure(
        {"torch": Sleeper("torch", 0.02), "openvino": Sleeper("openvino", 0.001)}, np.zeros(1, np.float32)
    )
    assert times["torch"] > times["openvino"] >= 1


def test_what_was_compiled_is_kept_and_replaced_when_damaged(
    spec: ModelSpec, reference: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_engine(spec, "openvino", batch_size=3)
    (blob,) = {*compiled.folder(spec).glob("openvino-fp32-*.blob")} - blobs_of_other_tests(spec)
    blob.write_bytes(b"\0" * 100)
    assert difference(open_engine(spec, "openvino", batch_size=3)(images(5)), reference) < EXACT
    assert blob.stat().st_size > 100
    module = sys.modules["torchclas.engines.openvino"]
    monkeypatch.setattr(module, "compile_model", None)  # must not be needed
    assert difference(open_engine(spec, "openvino", batch_size=3)(images(5)), reference) < EXACT


def blobs_of_other_tests(spec: ModelSpec) -> set[Path]:
    graph = compiled.graph_file(spec)
    version = installed()["openvino"]
    threads = usable_threads()
    mine = compiled.derived(spec, graph, "openvino-fp32.blob", version, threads, *split(3, threads))
    return {*compiled.folder(spec).glob("openvino-*.blob")} - {mine}


def test_the_second_start_imports_no_torch(spec: ModelSpec, photographs: Path) -> None:
    open_engine(spec, batch_size=16).close()
    unwanted = ["torch", "requests", "filelock", "onnx", "safetensors.torch", "PIL.ImageDraw", "rich.console"]
    code = (
        "import sys; from torchclas.cli import run; code = run(sys.argv[1:]); "
        f"sys.exit(code or ', '.join(name for name in {unwanted!r} if name in sys.modules) or None)"
    )
    arguments = ["predict", str(photographs / "coffee.png"), "-m", str(spec.path), "--format", "jsonl"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"engine": "o' in done.stdout


def test_signals_are_handled_whichever_engine_goes_first(spec: ModelSpec) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from torchclas.engines.openvino import OpenVinoEngine; "
        "signal.signal(signal.SIGTERM, lambda *_: print('handled')); "
        "first, second = (OpenVinoEngine(Path(sys.argv[1])) for _ in range(2)); "
        "first.close(); second.close(); signal.raise_signal(signal.SIGTERM)"
    )
    file = compiled.graph_file(spec)
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_file_that_changes_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_first_weight(network: Network, path: Path, metadata: Metadata) -> None:
        path.write_text(f"{next(network.parameters()).flatten()[0]}")
        path.with_suffix(".onnx.data").write_text("weights beyond 2 GB")

    monkeypatch.setattr("torchclas.exporting.onnx.write_onnx", write_first_weight)
    path, before = write_model(tmp_path / "trained [1].safetensors", seed=1), {*cache.entries()}
    first = compiled.graph_file(find_model(path))
    content = first.read_text()
    assert compiled.graph_file(find_model(path)) == first
    write_model(path, seed=2)
    os.utime(path, ns=(1, 1))
    second = compiled.graph_file(find_model(path))
    assert second.read_text() != content
    assert not first.parent.exists(), "what was made of the earlier contents is gone"
    assert {entry.path for entry in {*cache.entries()} - before} == {second, second.with_suffix(".onnx.data")}


def test_clearing_a_model_takes_what_was_compiled_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path))
    for name, stays in (("ResNet18", False), ("ResNet18_vd", True)):
        file = compiled.folder(find_model(name)) / "network.onnx"
        file.parent.mkdir(parents=True)
        file.write_text(name)
        assert clear(["ResNet18"], everything=False) == (0 if stays else len(name))
        assert file.exists() == stays
    assert [entry.path for entry in cache.entries()] == [file]
    assert cache.clear() == len("ResNet18_vd")
    assert not file.parent.exists()


def test_without_export_torch_runs(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(spec: ModelSpec, outputs: object) -> Path:
        raise RuntimeError("a new release\nhas a bug")

    monkeypatch.setattr(compiled, "graph_file", fail)
    with pytest.warns(UserWarning, match="own runs with torch, because it could not be exported: a new release has a"):
        assert open_engine(spec).name == "torch"
    monkeypatch.setattr(choice, "version", lambda name: None)
    assert open_engine(spec).name == "torch", "where nothing else is installed, without a word"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_exported_files_run_like_any_other(
    spec: ModelSpec, reference: NDArray[np.float32], tmp_path: Path, name: EngineName
) -> None:
    path = tmp_path / ("model.xml" if name == "openvino" else "model.onnx")
    graph = compiled.graph_file(spec)
    if name == "openvino":
        from torchclas.exporting.openvino import write_openvino

        write_openvino(graph, path, spec.metadata())
    else:
        path.write_bytes(graph.read_bytes())
    own = find_model(path)
    assert (own.arch, own.graph, own.classes.names()) == (ARCH, "fp32", spec.classes.names())
    for engine_name in ("auto", name):
        assert difference(open_engine(own, engine_name)(images(5)), reference) < EXACT
    (row,) = Classifier(None, weights=path).predict(np.zeros((80, 80, 3), np.uint8))
    assert row.engine is not None
    with pytest.raises(Error, match="is an exported model"):
        open_engine(own, "torch")
    with pytest.raises(Error, match="is an exported model"):
        open_engine(own, "compile")
    if name == "openvino":
        with pytest.raises(Error, match="OpenVINO's own format"):
            open_engine(own, "onnxruntime")


def test_a_graph_for_a_fixed_number_of_images_takes_any(
    spec: ModelSpec, reference: NDArray[np.float32], tmp_path: Path
) -> None:
    graph = onnx.load(compiled.graph_file(spec))
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    path = tmp_path / "four.onnx"
    onnx.save(graph, path)
    for name in ("onnxruntime", "openvino"):
        run = open_engine(find_model(path), name)
        for count in (1, 5, 4):
            assert difference(run(images(5)[:count]), reference[:count]) < EXACT


@pytest.mark.parametrize("name", ["auto", "onnxruntime", "openvino"])
def test_a_graph_that_prepares_images_itself(tmp_path: Path, name: EngineName) -> None:
    """The three classes are the colours; the logits are their means, so the largest tells which image it was."""
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Cast", ["images"], ["floats"], to=onnx.TensorProto.FLOAT),
        node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "colours",
        [value("images", onnx.TensorProto.UINT8, ["batch", "height", "width", 3])],
        [value("logits", onnx.TensorProto.FLOAT, ["batch", 3])],
        [onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [1, 2])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    colours = ("red", "green", "blue")
    origin = {"input": "uint8"}
    metadata = Metadata(ARCH, 3, find(ARCH).preset, class_ids=colours, class_names=colours, origin=origin)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    path = tmp_path / "colours.onnx"
    onnx.save(model, path)
    pictures = [np.zeros((height, 50, 3), np.uint8) for height in (30, 60, 90)]
    for channel, picture in enumerate(pictures):
        picture[..., channel] = 200
    classifier = Classifier(path, engine=name, batch_size=16)
    with open_montage(tmp_path / "sheet.png", classifier) as sheet:
        for batch, colour in zip(classifier.batches([*pictures, b"?"]), (*colours, None), strict=True):
            (row,) = rows = list(classifier.rows(batch))
            assert (row.labels[0] if row.labels else None) == colour
            sheet.add(batch, rows)


def test_files_of_others(tmp_path: Path, spec: ModelSpec) -> None:
    graph = onnx.load(compiled.graph_file(spec))
    del graph.metadata_props[:]
    path = tmp_path / "foreign.onnx"
    onnx.save(graph, path)
    with pytest.raises(CheckpointError, match=r"foreign.onnx: .*without torchclas metadata.*torchclas export"):
        Classifier(path)
    path.write_bytes(compiled.graph_file(spec).read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"not a readable ONNX file .*truncated"):
        Classifier(path)
    (tmp_path / "foreign.xml").write_text("<net><layers")
    with pytest.raises(CheckpointError, match="not a readable OpenVINO file"):
        Classifier(tmp_path / "foreign.xml")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("auto", {"precision": "int8"}, r"has not been quantized: run `torchclas quantize .*own.safetensors"),
        ("openvino", {"precision": "int8"}, "torchclas quantize"),
        ("onnxruntime", {"precision": "bf16"}, "onnxruntime does not compute in bf16 here: use torch, compile, openv"),
        ("torch", {"precision": "int8"}, "torch does not compute in int8"),
        ("openvino", {"device": "cuda"}, "openvino runs on the CPU"),
        ("auto", {"device": "tpu"}, "device 'tpu' cannot be used here"),
    ],
)
def test_what_cannot_be(spec: ModelSpec, name: EngineName, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match=message):
        open_engine(spec, name, **options)


@pytest.mark.parametrize("name", ["auto", "torch", "onnxruntime"])
def test_weights_that_are_not_there(tmp_path: Path, name: EngineName) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pdparams: no such file"):
        open_engine(find_model(ARCH, weights=tmp_path / "gone.pdparams"), name)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_that_is_not_installed(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, name: EngineName) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'torchclas\[{name}\]'"):
        open_engine(spec, name)


def test_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from torchclas.engines import installed; print(*installed()); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["torch", "compile", "onnxruntime", "openvino", "ncnn", "mnn", "executorch"]
    monkeypatch.setitem(engine.PACKAGES, "openvino", "no-such-package")
    engine.version.cache_clear()
    assert "openvino" not in installed()
    engine.version.cache_clear()


def tiny_graph(
    path: Path,
    *,
    inputs: Sequence[tuple[str, int, list[int | str]]] = (("images", onnx.TensorProto.FLOAT, ["N", 3, SIZE, SIZE]),),
    outputs: Sequence[tuple[str, list[int | str]]] = (("logits", ["N", CLASSES]),),
    origin: dict[str, object] | None = None,
    extra: Sequence[onnx.NodeProto] = (),
    classes: int = CLASSES,
) -> Path:
    """An ONNX file with our metadata, whose graph is as given: each logit is the mean of what comes in."""
    tensor = onnx.TensorProto
    make, values, nodes = onnx.helper.make_node, [], list(extra)
    for name, kind, shape in inputs:
        nodes += [make("Cast", [name], [f"{name}_f"], to=tensor.FLOAT), make("Flatten", [f"{name}_f"], [f"{name}_2"])]
        values.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    source = f"{inputs[0][0]}_2" if inputs else "constant"
    for name, shape in outputs:
        width = shape[-1] if shape and isinstance(shape[-1], int) else CLASSES
        nodes += [
            make("ReduceMean", [source, "axes"], [f"{name}_m"], keepdims=1),
            make("Tile", [f"{name}_m", f"{name}_n"], [name]),
        ]
        values.append(onnx.helper.make_tensor(f"{name}_n", tensor.INT64, [2], [1, width]))
    constants = [value for value in values if isinstance(value, tensor)]
    constants += [onnx.helper.make_tensor("axes", tensor.INT64, [1], [1])]
    constants += [onnx.helper.make_tensor("constant", tensor.FLOAT, [1, 4], [1.0] * 4)]
    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [value for value in values if not isinstance(value, tensor)],
        [onnx.helper.make_tensor_value_info(name, tensor.FLOAT, shape) for name, shape in outputs],
        constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    names = tuple(f"c{i}" for i in range(classes))
    preset = replace(find(ARCH).preset, resize_short=SIZE, size=(SIZE, SIZE))
    metadata = Metadata(ARCH, classes, preset, class_ids=names, class_names=names, origin=origin or {})
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.save(model, path)
    return path


FLOAT, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
IMAGES: tuple[str, int, list[int | str]] = ("images", FLOAT, ["N", 3, SIZE, SIZE])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"inputs": [("images", FLOAT, ["N", 4, SIZE, SIZE])]}, r"input should be .*3, 64, 64\].*and is .*4, 64, 64\]"),
        ({"inputs": [("images", FLOAT, ["N", 3, 96, 96])]}, r"3, 64, 64\].*and is images float32 \[N, 3, 96, 96\]"),
        ({"inputs": [("images", UINT8, ["N", 3, SIZE, SIZE])]}, r"and is images uint8"),
        ({"inputs": [("images", onnx.TensorProto.INT64, ["N", 3, SIZE, SIZE])]}, r"input should be"),
        ({"inputs": [("pictures", FLOAT, ["N", 3, SIZE, SIZE])]}, r"and is pictures float32"),
        ({"inputs": [("images", FLOAT, ["N", 3 * SIZE * SIZE])]}, r"input should be"),
        ({"inputs": [IMAGES, ("more", FLOAT, ["N", 1])]}, r"input should be .*; more|input should be .*more"),
        ({"inputs": []}, r"input should be .*, and is none"),
        ({"inputs": [("images", FLOAT, [5000, 3, SIZE, SIZE])]}, r"takes 5,000 images at once"),
        ({"outputs": [("logits", ["N", 3])]}, r"output should be .*7\].*and is logits float32 \[.*3\]"),
        ({"outputs": [("scores", ["N", CLASSES])]}, r"and is scores"),
        ({"outputs": [("logits", ["N", CLASSES]), ("more", ["N", 2])]}, r"output should be .*more"),
        ({"classes": 10}, r"output should be logits float32 \[N, 10\].*and is .*7\]: export it again"),
        ({"origin": {"input": "uint8"}}, r"input should be images uint8 \[N, N, N, 3\].*and is images float32"),
        (
            {"origin": {"input": "uint8"}, "inputs": [("images", UINT8, ["N", 32, 32, 3])]},
            r"input should be images uint8",
        ),
    ],
)
def test_graphs_that_contradict_their_metadata(
    tmp_path: Path, name: EngineName, graph: dict[str, Any], message: str
) -> None:
    path = tiny_graph(tmp_path / "tiny.onnx", **graph)
    with pytest.raises(CheckpointError, match=message):
        open_engine(find_model(path), name)
    with pytest.raises(CheckpointError, match=message):
        open_engine(find_model(path), "auto", batch_size=4)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_graphs_that_leave_lengths_open(tmp_path: Path, name: EngineName) -> None:
    path = tiny_graph(
        tmp_path / "t.onnx", inputs=[("images", FLOAT, ["N", 3, "H", "W"])], outputs=[("logits", ["N", "C"])]
    )
    assert open_engine(find_model(path), name, batch_size=4)(images(5)).shape == (5, CLASSES)


def test_what_comes_out_is_looked_at_where_the_graph_does_not_say(spec: ModelSpec) -> None:
    signature = Signature.of(spec)
    right = np.zeros((5, CLASSES), np.float32)
    assert signature.checked({"logits": right}, 5)["logits"] is right
    for wrong in (
        np.zeros((5, 10), np.float32),
        np.zeros((1, CLASSES), np.float32),
        right[0],
        right.astype(np.float64),
    ):
        with pytest.raises(CheckpointError, match=r"own gave float.* for 5 images, not float32 \[5, 7\]: its file"):
            signature.checked({"logits": wrong}, 5)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_fails_while_it_runs_names_the_model(tmp_path: Path, name: EngineName) -> None:
    """A reshape that holds for no image."""
    node = onnx.helper.make_node
    shape = onnx.helper.make_tensor("s", onnx.TensorProto.INT64, [2], [-1, 1_000_003])
    extra = [node("Constant", [], ["shape"], value=shape), node("Reshape", ["images", "shape"], ["unused"])]
    path = tiny_graph(tmp_path / "tiny.onnx", inputs=[("images", FLOAT, ["N", 3, "H", "W"])], extra=extra)
    graph = onnx.load(path)
    graph.graph.node[-2].input[0] = "unused"  # so that it is not left out
    onnx.save(graph, path)
    with pytest.raises(Error, match=r"tiny(\.onnx)?: .*(failed on|cannot run it)"):
        open_engine(find_model(path), name, batch_size=4)(images(5))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "auto"])
def test_graphs_that_could_run_for_ever_are_not_run(tmp_path: Path, name: EngineName) -> None:
    node, tensor = onnx.helper.make_node, onnx.TensorProto
    info = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["x", "x"], ["y"])],
        "body",
        [info("i", tensor.INT64, []), info("go", tensor.BOOL, []), info("x", FLOAT, [1, 4])],
        [info("go_on", tensor.BOOL, []), info("y", FLOAT, [1, 4])],
    )
    extra = [
        node("Constant", [], ["times"], value=onnx.helper.make_tensor("t", tensor.INT64, [], [10**12])),
        node("Constant", [], ["yes"], value=onnx.helper.make_tensor("c", tensor.BOOL, [], [True])),
        node("Loop", ["times", "yes", "constant"], ["looped"], body=body),
    ]
    path = tiny_graph(tmp_path / "tiny.onnx", extra=extra)
    with pytest.raises(CheckpointError, match=r"tiny\.onnx: its graph has Loop, .*could run for ever: it is not run"):
        open_engine(find_model(path), name)
    path = tiny_graph(tmp_path / "other.onnx", extra=[node("BeamSearch", ["images"], ["_"], domain="com.microsoft")])
    with pytest.raises(CheckpointError, match=r"its graph has com\.microsoft\.BeamSearch"):
        open_engine(find_model(path), name)


def test_a_network_in_the_cache_that_changed_is_written_anew(
    spec: ModelSpec, reference: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compiled.graph_file(spec)
    content = path.read_bytes()

    def write(network: Network, path: Path, metadata: Metadata) -> None:  # as it did, but at once
        path.write_bytes(content)

    monkeypatch.setattr("torchclas.exporting.onnx.write_onnx", write)
    middle = len(content) // 2
    for damaged in (content[:1000], b"", content[:middle] + bytes(4096) + content[middle + 4096 :]):
        path.write_bytes(damaged)
        assert difference(open_engine(spec, "onnxruntime")(images(5)), reference) < EXACT
        assert path.read_bytes() == content
    path.write_bytes(content[:1000])
    assert difference(open_engine(spec, "openvino", batch_size=7)(images(5)), reference) < EXACT


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_what_was_compiled_and_changed_is_never_used(
    spec: ModelSpec, reference: NDArray[np.float32], where: float
) -> None:
    """One changed weight would pass for another class, without a word."""
    open_engine(spec, "openvino", batch_size=3)
    for blob in compiled.folder(spec).glob("openvino-fp32-*.blob"):
        content = bytearray(blob.read_bytes())
        at = int(len(content) * where)
        content[at : at + 4096] = bytes(4096)
        blob.write_bytes(content)
    assert difference(open_engine(spec, "openvino", batch_size=3)(images(5)), reference) < EXACT


def test_a_crash_while_reading_does_not_come_back(spec: ModelSpec, tmp_path: Path) -> None:
    """What cannot be survived twice is left alone; until then it is made anew, since a kill looks the same."""
    code = (
        "import os, sys; import torchclas.engines.openvino as module; from torchclas import Classifier; "
        "read, compile = module.import_model, module.compile_model; "
        "module.import_model = lambda *arguments: "
        "os.abort() if sys.argv[2] == 'crash' else print('read') or read(*arguments); "
        "module.compile_model = lambda *arguments: print('compiled') or compile(*arguments); "
        "import numpy; print(next(Classifier(sys.argv[1], engine='openvino', workers=0, batch_size=6)"
        ".predict(numpy.zeros((80, 80, 3), 'u1'))).status)"
    )

    def start(what: str) -> list[str]:
        command = [sys.executable, "-c", code, str(spec.path), what]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()

    assert start("") == ["compiled", "ok"]
    assert start("") == ["read", "ok"]
    assert start("crash") == []
    assert start("crash") == ["compiled", "ok"], "the second start"
    assert start("") == ["read", "ok"], "what was made anew"
    assert start("crash") == []
    assert start("crash") == ["compiled", "ok"]
    assert start("crash") == []
    assert start("crash") == ["compiled", "ok"]
    assert start("crash") == ["compiled", "ok"], "not read any more"


NO_TIMES = (
    *("", "[]", "{}", "5", "null", "\xff", "[" * 100_000, '{"openvino": 1.0}'),
    *('{"openvino": "1", "onnxruntime": 2.0}', '{"openvino": NaN, "onnxruntime": 2.0}'),
    *('{"openvino": -1.0, "onnxruntime": 2.0}', '{"openvino": true, "onnxruntime": 2.0}'),
)


@pytest.mark.parametrize("content", NO_TIMES)
def test_times_that_are_none_are_measured_again(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(choice, "SECONDS", 0)
    monkeypatch.setattr(choice, "measure", lambda engines, batch: dict.fromkeys(engines, 1.0))
    open_engine(spec, batch_size=1, threads=2)
    for kept in compiled.folder(spec).glob("fastest-*.json"):
        kept.write_text(content, encoding="latin-1")
    calls: list[int] = []
    monkeypatch.setattr(choice, "measure", lambda engines, batch: calls.append(1) or dict.fromkeys(engines, 1.0))
    open_engine(spec, batch_size=1, threads=2)
    open_engine(spec, batch_size=1, threads=2)
    assert calls == [1]


def test_a_read_only_cache_can_be_used_and_not_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path))
    kept = compiled.folder(find_model("ResNet18")) / "network.onnx"
    kept.parent.mkdir(parents=True)
    kept.write_text("network")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    for names, everything in ((["ResNet18"], False), ([], True)):
        with pytest.raises(OutputError, match=r"cannot be deleted \(Read-only file system\)"):
            clear(names, everything=everything)
