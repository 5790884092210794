"""Exported files say what they are, compute what the network does, or do not come into being."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn

from torchclas import cli, models
from torchclas.catalog import find
from torchclas.data.preprocess import Preprocess
from torchclas.errors import Error, MissingDependencyError, OutputError
from torchclas.exporting import formats, gate, tensorrt
from torchclas.exporting.formats import FORMATS, Options
from torchclas.exporting.gate import DivergenceError
from torchclas.exporting.onnx import OnnxFile
from torchclas.exporting.openvino import write_openvino
from torchclas.exporting.preprocess import Axis, OpenCV, Pillow
from torchclas.exporting.trace import out_of_place, traceable
from torchclas.layers.fold import fold_batch_norms
from torchclas.layers.network import Network
from torchclas.spec import find_model
from torchclas.tasks import export as task
from torchclas.vocabulary import ExportFormat
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata, read_metadata
from torchclas.zoo import load_model

METADATA = Metadata(
    arch="MobileNetV1_x0_25",
    num_classes=3,
    preset=replace(find("MobileNetV1_x0_25").preset, resize_short=72, size=(64, 64)),
    name="pets",
    class_ids=("cat", "dog", "bird"),
    class_names=("猫", "dog", "a bird, flying"),
    origin={"run": 7},
)
CHANGED = "stages.3.5.pointwise"  # a layer in the middle


def tiny() -> Network:
    """Looks trained: batch norms have statistics, logits an order of one."""
    torch.manual_seed(0)
    network = models.build(METADATA.arch, num_classes=3).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    assert isinstance(network.classifier, nn.Linear)
    nn.init.normal_(network.classifier.weight)
    return network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "pets.safetensors"
    save_checkpoint(tiny(), path, METADATA)
    return path


def test_modules_overwrite_their_inputs_again_once_they_are_traced() -> None:
    network = models.build("PPLCNet_x0_25", num_classes=3)
    before = [getattr(module, "inplace", None) for module in network.modules()]
    assert True in before
    with out_of_place(network):
        assert not any(getattr(module, "inplace", False) for module in network.modules())
    assert [getattr(module, "inplace", None) for module in network.modules()] == before


def written(checkpoint: Path, name: str, to: ExportFormat, *options: str) -> Path:
    """A file beside the checkpoint, as the command writes it."""
    path = checkpoint.with_name(name)
    assert cli.run(["export", str(checkpoint), "--to", to, "-o", str(path), *options]) == 0
    return path


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path) -> Path:
    return written(checkpoint, "pets.onnx", "onnx")


@pytest.fixture(scope="module")
def openvino_file(checkpoint: Path, onnx_file: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:  # tracing takes seconds
        patch.setattr(formats, "write_onnx", lambda network, path, *_, **__: shutil.copy(onnx_file, path))
        return written(checkpoint, "pets.xml", "openvino")


@pytest.fixture(scope="module")
def program_file(checkpoint: Path) -> Path:
    return written(checkpoint, "pets.pt2", "torch-export")


@pytest.fixture(scope="module")
def pixels_file(checkpoint: Path) -> Path:
    return written(checkpoint, "pixels.onnx", "onnx", "--input", "uint8")


@pytest.fixture(params=["onnx", "openvino", "torch-export"])
def any_file(request: pytest.FixtureRequest) -> gate.ExportedFile:
    name = {"onnx": "onnx_file", "openvino": "openvino_file", "torch-export": "program_file"}[request.param]
    return FORMATS[request.param].open(request.getfixturevalue(name), Options())


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((90, 61, 3), (64, 64, 3), (72, 100, 3), (333, 130, 3), (20, 600, 3))
    noise = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    smooth = Image.fromarray(noise[0]).resize((500, 375), Image.Resampling.BICUBIC)
    return [*noise, np.asarray(smooth)]


def test_a_file_computes_what_the_network_does(any_file: gate.ExportedFile, checkpoint: Path) -> None:
    network = load_model(find_model(checkpoint))
    for count in (1, 2, 5):
        images = np.random.default_rng(count).standard_normal((count, 3, 64, 64), np.float32)
        want = gate.compute(network, METADATA.preset, images)["logits"]
        assert gate.relative_error(any_file(images)["logits"], want) < 1e-5


def test_a_file_brings_its_metadata(onnx_file: Path, openvino_file: Path) -> None:
    expected = replace(METADATA, origin={"run": 7, "input": "float32"})
    assert read_metadata(onnx_file) == read_metadata(openvino_file) == expected


def test_openvino_files_are_written_by_a_process_that_ran_networks_before(onnx_file: Path) -> None:
    code = (
        "import sys; from torchclas.openvino_core import convert_model, openvino_core, skip_converter; "
        "skip_converter(); openvino_core(); import openvino; assert not hasattr(openvino, 'convert_model'); "
        "print(*convert_model(sys.argv[1]).outputs[0].get_names())"
    )
    done = subprocess.run([sys.executable, "-c", code, onnx_file], capture_output=True, text=True, check=False)
    assert done.stdout == "logits\n", done.stderr


def test_onnx_has_labels_for_any_runtime_and_names_of_modules(onnx_file: Path) -> None:
    model = onnx.load(str(onnx_file))
    notes = {note.key: note.value for note in model.metadata_props}
    assert notes["labels"].splitlines() == list(METADATA.class_names)
    assert notes["class_ids"].splitlines() == list(METADATA.class_ids)
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", 3, 64, 64,
    ]  # fmt: skip
    names = [node.name for node in model.graph.node]
    assert names[0] == "stem.conv/Conv"
    assert names[-1] == "classifier/Gemm"
    assert len(names) == len(set(names))
    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "ReduceMean", "Reshape", "Gemm"}
    assert str(Path(torch.__file__).parents[1]).encode() not in onnx_file.read_bytes()


def test_labels_of_published_sets() -> None:
    from torchclas.exporting.onnx import class_lines

    lines = class_lines(replace(METADATA, num_classes=1000, labels="imagenet1k", class_ids=(), class_names=()))
    assert len(lines["labels"].split("\n")) == len(lines["class_ids"].split("\n")) == 1000
    assert lines["class_ids"].startswith("n01440764\n")


def test_a_fixed_batch_and_another_size(checkpoint: Path) -> None:
    path = written(checkpoint, "large.pt2", "torch-export", "--batch", "2", "--size", "96")
    file = FORMATS["torch-export"].open(path, Options())
    assert file(np.zeros((2, 3, 96, 96), np.float32))["logits"].shape == (2, 3)
    with pytest.raises(Exception, match="2"):
        file(np.zeros((1, 3, 96, 96), np.float32))
    preset = METADATA.preset.at(96)
    assert (preset.resize_short, preset.size) == (108, (96, 96))


@pytest.mark.parametrize("backend", ["opencv", "pillow"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_preprocessing_in_the_graph(backend: str, interpolation: str) -> None:
    """OpenCV's bilinear to the bit; the others round a few pixels to the neighbouring level."""
    preset = replace(METADATA.preset, backend=backend, interpolation=interpolation)
    layer = OpenCV(preset) if backend == "opencv" else Pillow(preset)
    levels = 255 * torch.tensor(preset.std).view(3, 1, 1)
    differing: list[float] = []
    for pixels in pictures():
        if backend == "pillow" and pixels.shape[0] > 2 * pixels.shape[1]:
            continue  # Pillow 13 shrinks such images vertically first, unlike those before it
        got, want = layer(torch.tensor(pixels)[None])[0], Preprocess(preset)(pixels)
        apart = ((got - want) * levels).abs().round()
        assert apart.max() <= (0 if (backend, interpolation) == ("opencv", "bilinear") else 1)
        assert (got - want).abs().max() < 0.02
        differing.append(apart.mean().item())
    assert np.mean(differing) < 0.1


def test_sizes_are_rounded_as_python_rounds() -> None:
    preset = find("PPLCNet_x1_0").preset
    for height, width in itertools.product((256, 300, 333, 512, 1024), (256, 257, 333, 511, 1027)):
        image = torch.empty(1, height, width, 3, dtype=torch.uint8)
        scale = preset.resize_short / min(height, width)
        assert int(Axis(image, 1, preset).target) == round(height * scale)
        assert int(Axis(image, 2, preset).target) == round(width * scale)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_pixels_in(to: ExportFormat, pixels_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert read_metadata(pixels_file).origin["input"] == "uint8"
    path = pixels_file
    if to == "openvino":
        path = tmp_path / "pixels.xml"
        write_openvino(pixels_file, path, METADATA)
    file, network = FORMATS[to].open(path, Options()), load_model(find_model(checkpoint))
    for pixels in pictures():
        want = gate.compute(network, METADATA.preset, pixels[None])["logits"]
        assert gate.relative_error(file(np.repeat(pixels[None], 2, 0))["logits"][:1], want) < 1e-5


def test_the_gate_names_the_first_layer_that_differs(any_file: gate.ExportedFile) -> None:
    network = fold_batch_norms(tiny())
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    cases = [(images, gate.compute(network, METADATA.preset, images))]
    assert gate.check(any_file, network, cases) < 1e-5
    with torch.no_grad():
        network.get_submodule(f"{CHANGED}.conv").weight[0, 0] += 0.1  # pyright: ignore[reportIndexIssue]
    cases = [(images, gate.compute(network, METADATA.preset, images))]
    with pytest.raises(DivergenceError, match=rf"first layer that differs is {CHANGED}\.conv \(Conv2d\)"):
        gate.check(any_file, network, cases)


def test_the_gate_looks_behind_the_preprocessing(pixels_file: Path) -> None:
    network = fold_batch_norms(tiny())
    with torch.no_grad():
        network.stem.get_submodule("conv").weight.mul_(1.01)  # pyright: ignore[reportCallIssue]
    images = pictures()[0][None]
    cases = [(images, gate.compute(network, METADATA.preset, images))]
    with pytest.raises(DivergenceError, match=r"first layer that differs is network\.stem\.conv"):
        gate.check(OnnxFile(pixels_file), traceable(network, METADATA, pixels=True), cases)


def test_not_a_number_does_not_pass(onnx_file: Path) -> None:
    file = OnnxFile(onnx_file)
    images = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(DivergenceError, match="nan"):
        gate.check(file, tiny(), [(images, {"logits": np.full((1, 3), np.nan, np.float32)})])
    with pytest.raises(DivergenceError, match="inf"):
        gate.check(file, tiny(), [(images, {"logits": np.zeros((1, 4), np.float32)})])


def test_a_corrupt_file_gets_no_name(
    checkpoint: Path,
    onnx_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def corrupt(network: Network, path: Path, *_: object, **__: object) -> None:
        model = onnx.load(str(onnx_file))
        tensor = next(item for item in model.graph.initializer if item.name == f"{CHANGED}.conv.weight")
        values = numpy_helper.to_array(tensor).copy()
        values *= 1.1
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        onnx.save(model, str(path))

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=corrupt))
    target = tmp_path / "pets.onnx"
    target.write_text("an earlier one")
    assert cli.run(["export", str(checkpoint), "--to", "onnx", "-o", str(target)]) == 2
    message = capsys.readouterr().err
    assert "pets.onnx was not written" in message
    assert f"{CHANGED}.conv (Conv2d)" in message
    assert target.read_text() == "an earlier one"
    assert [file.name for file in tmp_path.iterdir()] == ["pets.onnx"]


def test_what_cannot_be_exported(onnx_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(Error, match="exported already"):
        task.export(str(onnx_file), to="openvino")
    with pytest.raises(OutputError, match=r"must end in \.onnx"):
        task.export(str(checkpoint), to="onnx", output=tmp_path / "pets.xml")
    with pytest.raises(Error, match="an image size is"):
        task.export(str(checkpoint), to="onnx", output=tmp_path / "pets.onnx", size=0)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        task.export(str(checkpoint), to="onnx", output=tmp_path / "file" / "pets.onnx")


def test_a_missing_package_is_named(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'torchclas\[onnx\]'"):
        task.export(str(checkpoint), to="onnx", output=tmp_path / "pets.onnx")


def test_tensorrt_says_what_is_missing(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(MissingDependencyError, match=r"trtexec is missing.*--to onnx"):
        task.export(str(checkpoint), to="tensorrt")


def test_tensorrt_is_built_and_run_by_trtexec(
    checkpoint: Path, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that reads the options as trtexec documents them; it needs a GPU itself."""
    built: list[dict[str, str]] = []

    def trtexec(command: list[str]) -> None:
        parts = [option.removeprefix("--").partition("=") for option in command[1:]]
        options = {name: value for name, _, value in parts}
        if "saveEngine" in options:
            built.append(options)
            shutil.copy(options["onnx"], options["saveEngine"])
            return
        name, _, shape = options["shapes"].partition(":")
        images = np.fromfile(options["loadInputs"].removeprefix(f"{name}:"), np.float32)
        images = images.reshape([int(length) for length in shape.split("x")])
        logits = OnnxFile(Path(options["loadEngine"]))(images)["logits"]
        output = {"name": "logits", "dimensions": "x".join(map(str, logits.shape)), "values": logits.ravel().tolist()}
        Path(options["exportOutput"]).write_text(json.dumps([output]))

    monkeypatch.setattr(tensorrt, "trtexec", lambda: "trtexec")
    monkeypatch.setitem(FORMATS, "tensorrt", replace(FORMATS["tensorrt"], find_program=None))
    monkeypatch.setattr(tensorrt, "_run", trtexec)
    done = task.export(str(checkpoint), to="tensorrt", output=tmp_path / "pets.engine")
    assert done.path.read_bytes() == onnx_file.read_bytes()  # writing ONNX again gives the same file
    assert done.error < 1e-5
    assert built[0]["minShapes"] == "images:1x3x64x64"
    assert built[0]["maxShapes"] == "images:32x3x64x64"


def test_pictures_need_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    for picture in gate.pictures():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert 20 < picture.std() < 80
        neighbours = np.corrcoef(picture[:, 1:, 0].ravel(), picture[:, :-1, 0].ravel())[0, 1]
        assert neighbours > 0.8  # as in photographs
