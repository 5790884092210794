"""Inference models of PaddlePaddle: program, parameters, and what stands beside them."""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import torchclas
from tests.inference_models import CASES, names, parameters, program, unpack
from torchclas import cli, models
from torchclas.catalog import find
from torchclas.errors import CheckpointError, DataError, Error
from torchclas.labels import label_set
from torchclas.layers.network import Network
from torchclas.sizes import Size
from torchclas.spec import find_model
from torchclas.weights import dataflow
from torchclas.weights.deploy_config import deploy_config
from torchclas.weights.identity import recognise
from torchclas.weights.inference_model import Array, read_inference_model, read_program
from torchclas.weights.load import read_checkpoint

PPLCNET = "PPLCNet_x0_25.pdmodel"
PADDLE3 = "PPLCNet_x0_25-3.json"


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_finds_its_place(case: str, tmp_path: Path) -> None:
    arch = Path(case).stem.partition("-")[0]
    path, values = unpack(case, tmp_path)
    network = torchclas.create_model(arch, weights=path)
    state = network.state_dict()
    assert set(names(case)) == set(values)
    for theirs, ours in names(case).items():
        owner = network.get_submodule(ours.rpartition(".")[0])
        got = state[ours].numpy()
        got = got.T if isinstance(owner, nn.Linear) and values[theirs].ndim == 2 else got
        np.testing.assert_array_equal(got.reshape(-1), values[theirs].reshape(-1), err_msg=f"{theirs}, {ours}")


def test_folded_batch_norms_only_add_their_bias(tmp_path: Path) -> None:
    path, _ = unpack("PPLCNet_x0_25-folded.pdmodel", tmp_path)
    network = torchclas.create_model("PPLCNet_x0_25", weights=path).eval()
    folded = set(names("PPLCNet_x0_25-folded.pdmodel").values())
    norms = [(name, each) for name, each in network.named_modules() if isinstance(each, nn.BatchNorm2d)]
    alone = [each for name, each in norms if f"{name}.weight" not in folded]
    assert 0 < len(alone) < len(norms), "both kinds are in it"
    for norm in alone:
        x = torch.randn(2, norm.num_features, 3, 3)
        torch.testing.assert_close(norm(x), x + norm.bias.view(-1, 1, 1), rtol=2e-7, atol=2e-7)


def test_folded_branches_are_the_largest_convolution(tmp_path: Path) -> None:
    path, values = unpack("RepVGG_A0-folded.pdmodel", tmp_path)
    network = torchclas.create_model("RepVGG_A0", weights=path).eval()
    x = torch.randn(1, 3, 32, 32)
    found = {ours: torch.from_numpy(values[theirs]) for theirs, ours in names("RepVGG_A0-folded.pdmodel").items()}
    expected = nn.functional.conv2d(
        x, found["stem.0.branches.0.conv.weight"], found["stem.0.branches.0.bn.bias"], stride=2, padding=1
    )
    torch.testing.assert_close(network.stem(x), expected.relu(), rtol=1e-5, atol=1e-4)


def test_is_named_by_its_folder_or_either_file(tmp_path: Path) -> None:
    path, _ = unpack(PPLCNET, tmp_path)
    for given in (tmp_path, path, path.with_suffix(".pdiparams")):
        spec = find_model("PPLCNet_x0_25", weights=given)
        assert (spec.path, spec.num_classes, spec.in_channels) == (path, 1000, 3)
        assert spec.file_name == tmp_path.name


def test_is_recognised_by_its_tensors(tmp_path: Path) -> None:
    path, _ = unpack(PPLCNET, tmp_path)
    assert [str(found) for found in recognise(path, *read_checkpoint(path))] == [
        "PPLCNet_x0_25 (inference model layout, 1000 classes)"
    ]


def test_data_is_followed_only_through_networks_with_such_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = unpack("RepVGG_A0-folded.pdmodel", tmp_path)
    followed: list[str] = []
    flow_of_network = dataflow.flow_of_network

    def noted(network: Network, size: Size | None, *, heads: bool = False) -> dataflow.Flow:
        followed.append(network.arch)
        return flow_of_network(network, size, heads=heads)

    monkeypatch.setattr(dataflow, "flow_of_network", noted)
    assert [found.arch for found in recognise(path, *read_checkpoint(path))] == ["RepVGG_A0"]
    assert {models.family(arch) for arch in followed} == {"repvgg"}
    odd = replace(read_program(path), image=(-1, 3, 100, 100))
    assert not dataflow.has_weights("DeiT_tiny_patch16_224", odd), "which takes no images of that size"


def test_a_folder_that_is_called_after_the_model_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "PPLCNet_x0_25_infer"
    folder.mkdir()
    unpack(PADDLE3, folder)
    monkeypatch.setattr("torchclas.weights.identity._of_this_size", lambda _: pytest.fail("tried others"))
    with pytest.warns(UserWarning, match="its tensors are those of PPLCNet_x0_25"):
        assert find_model(folder).arch == "PPLCNet_x0_25"


def test_becomes_a_checkpoint_of_ours_and_of_paddleclas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unpack(PADDLE3, tmp_path)
    for target in ("mine.safetensors", "mine.pdparams"):
        assert cli.run(["weights", "convert", str(tmp_path), str(tmp_path / target), "-m", "PPLCNet_x0_25"]) == 0
        network = torchclas.create_model("PPLCNet_x0_25", weights=tmp_path / target)
        original = torchclas.create_model("PPLCNet_x0_25", weights=tmp_path / "inference.json").state_dict()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, original[name]), name
    assert cli.run(["weights", "inspect", str(tmp_path / "inference.json"), "-m", "PPLCNet_x0_25"]) == 0
    assert "146 tensors loaded" in capsys.readouterr().out


def test_with_another_number_of_classes(tmp_path: Path) -> None:
    path, _ = unpack(PPLCNET, tmp_path)
    network = torchclas.create_model("PPLCNet_x0_25", weights=path, num_classes=3)
    assert network.state_dict()["classifier.weight"].shape == (3, 1280)


def test_weights_in_half_precision_become_float32(tmp_path: Path) -> None:
    path, values = unpack(PADDLE3, tmp_path)
    read = read_program(path)
    halves = {name: replace(each, dtype="f16") for name, each in read.parameters.items()}
    path.write_text(path.read_text().replace("0.t_f32", "0.t_f16"))
    half: dict[str, Array] = {name: array.astype(np.float16) for name, array in values.items()}
    path.with_suffix(".pdiparams").write_bytes(parameters(replace(read, parameters=halves), half))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the sum of so many halves is no half
        network = torchclas.create_model("PPLCNet_x0_25", weights=path)
    assert network.state_dict()["classifier.bias"].dtype == torch.float32
    np.testing.assert_array_equal(network.state_dict()["classifier.bias"].numpy(), half["linear_0.b_0"])


# What is refused


def test_another_network_is_refused(tmp_path: Path) -> None:
    path, _ = unpack(PPLCNET, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"inference\.pdmodel: in its program data does not flow as in a ResNet18"
    ):
        find_model("ResNet18", weights=path)


def test_other_strides_are_another_network(tmp_path: Path) -> None:
    """PaddleClas's PPLCNet for lines of text has the same tensors, and takes other steps."""
    path, _ = unpack(PADDLE3, tmp_path)
    whole = json.loads(path.read_text())
    convolutions = [one for one in whole["program"]["regions"][0]["blocks"][0]["ops"] if one["#"].endswith("conv2d")]
    strides = [each for one in convolutions for each in one["A"] if each["N"] == "strides"]
    two = next(each for each in strides[1:] if each["AT"]["D"][0]["D"] == 2)
    two["AT"]["D"][1]["D"] = 1
    path.write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match="does not flow as in a PPLCNet_x0_25"):
        find_model("PPLCNet_x0_25", weights=path)


def test_half_a_model_is_refused(tmp_path: Path) -> None:
    path, _ = unpack(PPLCNET, tmp_path)
    parameters_path = path.with_suffix(".pdiparams")
    whole = parameters_path.read_bytes()
    for content, message in (
        (whole[:-4], "cut off"),
        (whole + b"\0", "more tensors"),
        (whole[:21] + b"\x10" + whole[22:], r"no tensor|are of two models|inference\.pdiparams"),
        (b"", "the file is empty|cut off"),
    ):
        parameters_path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_inference_model(path)
    parameters_path.unlink()
    with pytest.raises(CheckpointError, match=r"inference\.pdiparams, are missing"):
        read_inference_model(path)
    parameters_path.write_bytes(whole)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"put its program, inference\.json or inference\.pdmodel, beside it"):
        find_model(parameters_path)


def test_parameters_of_another_program_are_refused(tmp_path: Path) -> None:
    path, values = unpack(PADDLE3, tmp_path)
    values["linear_0.b_0"] = values["linear_0.b_0"].reshape(10, 100)
    path.with_suffix(".pdiparams").write_bytes(parameters(read_program(path), values))
    with pytest.raises(CheckpointError, match=r"linear_0\.b_0 is f32 \[10, 100\] in the file, but f32 \[1000\]"):
        read_inference_model(path)


@pytest.mark.parametrize("name", ["inference.pdmodel", "inference.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b'{"pir": 1}', b"[" * 100_000, b"\x0a\x7f", b"\xff" * 40, b"\0" * 40])
def test_what_is_no_program_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        read_program(path)


def test_huge_tensors_are_refused_before_they_are_allocated(tmp_path: Path) -> None:
    path, _ = unpack(PADDLE3, tmp_path)
    path.write_text(path.read_text().replace("[1000]", f"[{2**40}]"))
    with pytest.raises(CheckpointError, match="cut off"):
        read_inference_model(path)
    header = struct.pack("<IQIi", 0, 2**62, 0, 2**30)
    path.with_suffix(".pdiparams").write_bytes(header * 400_000)
    path.write_bytes(program(PADDLE3))
    with pytest.raises(CheckpointError, match="no tensor of Paddle's"):
        read_inference_model(path)


# What stands beside it

PREPROCESS = """
Global:
  model_name: PP-LCNet_x0_25
Hpi:
  trt_dynamic_shapes: &shapes
    x: [[1, 3, 224, 224]]
  onnx: *shapes
PreProcess:
  transform_ops:
  - ResizeImage:
      {resize}
      interpolation: bicubic
      backend: pil
  {crop}
  - NormalizeImage:
      channel_num: 3
      mean: [0.5, 0.4, 0.3]
      std: [0.2, 0.2, 0.2]
      order: ''
      scale: {scale}
  - ToCHWImage: null
PostProcess:
  {after}
"""
TOPK = "Topk: {topk: 5, label_list: [cat, dog]}"
CROP = "- CropImage: {size: 224}"


def config(
    folder: Path,
    resize: str = "resize_short: 256",
    crop: str = CROP,
    scale: str = "1.0/255.0",
    after: str = TOPK,
    name: str = "inference.yml",
) -> Path:
    (folder / "inference.pdmodel").touch()
    (folder / "inference.pdiparams").touch()
    text = PREPROCESS.format(resize=resize, crop=crop, scale=scale, after=after)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / "inference.pdmodel"


def test_preprocessing_and_names_come_from_the_file_beside(tmp_path: Path) -> None:
    read = deploy_config(config(tmp_path))
    assert read is not None
    assert (read.model_name, read.names) == ("PP-LCNet_x0_25", ("cat", "dog"))
    preset = read.preset
    assert preset is not None
    assert (preset.resize_short, preset.size, preset.fit) == (256, (224, 224), "crop")
    assert (preset.interpolation, preset.backend) == ("bicubic", "pillow")
    assert (preset.mean, preset.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def test_both_sides_squeezed_and_another_scale(tmp_path: Path) -> None:
    read = deploy_config(config(tmp_path, resize="size: [160, 80]", crop="", scale="0.00784313725490196"))
    assert read is not None
    assert read.preset is not None
    assert (read.preset.size, read.preset.fit) == ((80, 160), "squeeze"), "the file says width before height"
    assert read.preset.mean == pytest.approx((0.25, 0.2, 0.15))
    assert read.preset.std == pytest.approx((0.1, 0.1, 0.1))


def test_names_in_a_file_or_a_pair(tmp_path: Path) -> None:
    after = "main_indicator: ThreshOutput\n  ThreshOutput: {threshold: 0.5, label_0: nobody, label_1: someone}"
    read = deploy_config(config(tmp_path, after=after, name="inference_person_exists.yaml"))
    assert read is not None
    assert read.names == ("nobody", "someone")
    (tmp_path / "inference_person_exists.yaml").unlink()
    (tmp_path / "list.txt").write_text("0 no\n1 yes\n", encoding="utf-8")
    model = config(tmp_path, after="Topk: {class_id_map_file: ../../etc/list.txt}")
    read = deploy_config(model)
    assert read is not None
    assert read.names == ("no", "yes"), "only its name counts"
    (tmp_path / "list.txt").unlink()
    with pytest.warns(UserWarning, match=r"list\.txt, which is not here"):
        read = deploy_config(model)
    assert read is not None
    assert read.names is None


def step(line: str) -> Callable[[Path], Path]:
    return lambda folder: config(folder, crop=f"{CROP}\n  {line}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (step("- RandFlipImage: {flip_code: 1}"), "'RandFlipImage' cannot be done here"),
        (step("- ResizeImage: {size: 8}"), "'ResizeImage' cannot be done here, or not in that place"),
        (lambda folder: config(folder, resize="resize_long: 256"), "not fitted in a way that is known|resize_long"),
        (lambda folder: config(folder, resize="resize_short: 100"), "not fitted in a way that is known"),
        (lambda folder: config(folder, crop="- CropImage: {size: [100, 50]}"), "not fitted in a way that is known"),
        (lambda folder: config(folder, scale="-1"), "above 0"),
        (lambda folder: config(folder, scale="1/0"), "must be a number"),
        (lambda folder: config(folder, scale="!!python/name:os.system x"), "has the tag"),
        (lambda folder: config(folder, after="Topk: {label_list: [[a]]}"), "label_list: must be text"),
        (lambda folder: config(folder, name="inference.yaml") and config(folder), "several configurations"),
    ],
)
def test_what_cannot_be_done_is_said(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, DataError), match=message):
        deploy_config(make(tmp_path))


def test_the_model_follows_it(tmp_path: Path) -> None:
    unpack(PPLCNET, tmp_path)
    (tmp_path / "inference.yml").write_text(
        PREPROCESS.format(
            resize="resize_short: 232",
            crop=CROP,
            scale="0.00392157",
            after="Topk:\n    label_list:\n" + "".join(f"    - thing {number}\n" for number in range(1000)),
        )
    )
    with pytest.warns(UserWarning, match="those of PPLCNet_x0_25"):
        spec = find_model(tmp_path)
    assert spec.preset.resize_short == 232
    assert spec.classes.names()[7] == "thing 7"
    text = (tmp_path / "inference.yml").read_text()
    (tmp_path / "inference.yml").write_text(text.replace("    - thing 999\n", ""))
    with pytest.raises(CheckpointError, match="999 names of classes"):
        find_model("PPLCNet_x0_25", weights=tmp_path)
    (tmp_path / "inference.yml").write_text(text.replace("size: 224", "size: 192"))
    with pytest.raises(CheckpointError, match="prepares images of 192 px, but the model takes 224 px"):
        find_model("PPLCNet_x0_25", weights=tmp_path)
    (tmp_path / "inference.yml").unlink()
    spec = find_model("PPLCNet_x0_25", weights=tmp_path)
    assert spec.preset == find("PPLCNet_x0_25").preset
    assert spec.classes is label_set("imagenet1k")


@pytest.mark.parametrize("content", ["a: [*b]", "- &a [*a]", "a: 1\na: 2", "[" * 100_000, "<<: {a: 1}", "a\n---\nb"])
def test_yaml_that_is_not_taken(content: str, tmp_path: Path) -> None:
    model = config(tmp_path)
    (tmp_path / "inference.yml").write_text(content)
    with pytest.raises(Error, match=r"inference\.yml: "):
        deploy_config(model)


def test_anchors_do_not_multiply(tmp_path: Path) -> None:
    model = config(tmp_path)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 30)]
    (tmp_path / "inference.yml").write_text("\n".join(lines))
    with pytest.raises(DataError, match="more than 1,000,000 values"):
        deploy_config(model)
