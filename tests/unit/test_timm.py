"""To timm, torchvision and transformers, and back."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

import torchclas
from tests.sweep.timm_table import check, randomise
from torchclas import models
from torchclas.catalog import Preset
from torchclas.correspondence import LIBRARIES, counterparts, namesakes
from torchclas.data.preprocess import Preprocess
from torchclas.errors import CheckpointError, Error, MissingDependencyError, OutputError, UnknownNameError
from torchclas.exporting import formats
from torchclas.exporting import timm as exporting
from torchclas.exporting.gate import DivergenceError
from torchclas.exporting.timm import crop_share, pretrained_config
from torchclas.spec import find_model
from torchclas.weights import libraries

ARCH, THEIRS = "PPLCNet_x0_35", "lcnet_035"
NAMES = ["tench", "goldfish", "shark"]
create: Any = timm.create_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = torchclas.create_model(ARCH, num_classes=len(NAMES))
    randomise(network)
    return torchclas.save_checkpoint(network, tmp_path_factory.mktemp("mine") / "fish.safetensors", class_names=NAMES)


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torchclas.export(checkpoint, to="timm", output=tmp_path_factory.mktemp("exports") / "fish-timm").path


@pytest.fixture
def photo(photographs: Path) -> NDArray[np.uint8]:
    return np.array(Image.open(photographs / "chelsea.png").convert("RGB"))


@torch.no_grad()
def logits(network: nn.Module, images: Tensor) -> Tensor:
    return network.eval()(images)


def prepared(pretrained_cfg: dict[str, Any], pixels: NDArray[np.uint8]) -> Tensor:
    transform: Any = create_transform(**resolve_data_config(pretrained_cfg=pretrained_cfg))
    return transform(Image.fromarray(pixels))[None]


# There


def test_timm_opens_the_folder(folder: Path, checkpoint: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o666 & ~umask}
    theirs = create(f"local-dir:{folder}", pretrained=True)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(theirs, images), logits(torchclas.create_model(checkpoint), images))
    assert type(theirs.conv_head) is nn.Conv2d
    assert theirs.conv_head.bias is None
    config = resolve_data_config(model=theirs)
    preset = find_model(checkpoint).preset
    assert (tuple(config["input_size"]), config["interpolation"]) == ((3, *preset.size), preset.interpolation)
    assert (tuple(config["mean"]), tuple(config["std"])) == (preset.mean, preset.std)
    assert (config["crop_pct"], config["crop_mode"]) == (0.875, "center")
    assert theirs.pretrained_cfg["label_names"] == NAMES
    fresh = create(f"local-dir:{folder}", pretrained=True, num_classes=7)  # for fine-tuning there
    assert logits(fresh, images).shape == (2, 7)


def test_card_says_what_timms_preprocessing_costs(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "resized by OpenCV, without antialiasing (bilinear)" in card
    assert "of 255 levels" in card
    assert "the first class is the same for" in card
    assert f"# {THEIRS}" in card


def test_transformers_read_the_folder(folder: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import transformers

    classify: Any = transformers.pipeline("image-classification", str(folder), device="cpu")
    [first, *_] = classify(Image.fromarray(photo))
    theirs = create(f"local-dir:{folder}", pretrained=True)
    scores = logits(theirs, prepared(theirs.pretrained_cfg, photo)).softmax(1)[0]
    assert first["label"] == NAMES[int(scores.argmax())]
    assert first["score"] == pytest.approx(float(scores.max()), abs=1e-5)


def test_the_folder_is_a_model_of_ours(folder: Path, checkpoint: Path, photo: NDArray[np.uint8]) -> None:
    """With everything that the checkpoint says, the published preprocessing among it."""
    ours, original = find_model(folder), find_model(checkpoint)
    assert (ours.arch, ours.preset, ours.classes.ids) == (ARCH, original.preset, original.classes.ids)
    images = torchclas.preprocess_for(folder)(photo)[None]
    want = logits(torchclas.create_model(checkpoint), images)
    torch.testing.assert_close(logits(torchclas.create_model(folder), images), want)
    assert find_model(folder / "model.safetensors").classes.names() == tuple(NAMES)


def test_gray_images_of_another_size(tmp_path: Path) -> None:
    network = torchclas.create_model("DeiT_tiny_patch16_224", num_classes=2, in_channels=1)
    randomise(network)
    network.set_input_size((96, 160))
    path = torchclas.save_checkpoint(network, tmp_path / "gray.safetensors")
    folder = torchclas.export(path, to="timm", output=tmp_path / "gray").path
    theirs = create(f"local-dir:{folder}", pretrained=True)
    images = torch.randn(2, 1, 96, 160, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(theirs, images), logits(network, images), rtol=1e-4, atol=1e-5)
    assert theirs.pretrained_cfg["input_size"] == (1, 96, 160)
    assert find_model(folder).in_channels == 1


def test_an_earlier_export_is_replaced_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "fish"
    torchclas.export(checkpoint, to="timm", output=output)
    torchclas.export(checkpoint, to="timm", output=output)
    assert [file.name for file in tmp_path.iterdir()] == ["fish"]
    (output / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        torchclas.export(checkpoint, to="timm", output=output)
    assert (output / "notes.txt").read_text() == "mine"


def test_what_differs_is_not_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = libraries.theirs

    def wrong(*arguments: Any) -> dict[str, Tensor]:
        tensors = right(*arguments)
        return tensors | {"classifier.bias": tensors["classifier.bias"] + 1}

    monkeypatch.setattr(exporting.libraries, "theirs", wrong)
    with pytest.raises(DivergenceError, match="was not written"):
        torchclas.export(checkpoint, to="timm", output=tmp_path / "fish")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("arch", "message"), [("GhostNet_x0_5", "timm has no network"), ("ResNet18", "timm has no")])
def test_networks_that_timm_cannot_say(arch: str, message: str, tmp_path: Path) -> None:
    network = torchclas.create_model(arch, num_classes=2)
    path = torchclas.save_checkpoint(network, tmp_path / "mine.safetensors")
    with pytest.raises(CheckpointError, match=message):
        torchclas.export(path, to="timm", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch": 1}, "--batch"), ({"input": "uint8"}, "--input"), ({"outputs": ("logits", "embedding")}, "--outputs")],
)
def test_what_other_formats_have(checkpoint: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match=message):
        torchclas.export(checkpoint, to="timm", **options)


def test_without_timm(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "timm" else find_spec(name))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(MissingDependencyError, match=r"torchclas\[timm\]"):
        torchclas.export(checkpoint, to="timm")


@pytest.mark.parametrize(("size", "short"), [(224, 256), (224, 248), (299, 320), (384, 438), (600, 632), (224, 224)])
def test_timm_resizes_to_the_short_side(size: int, short: int) -> None:
    preset = Preset(short, (size, size), "bilinear", "opencv", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert int(size / crop_share(preset)) == short


# And back


@pytest.fixture
def theirs() -> Any:
    network = create("resnet18", num_classes=3)
    randomise(network)
    return network.eval()


def test_a_folder_that_timm_wrote(theirs: Any, tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    from timm.models import save_for_hf  # pyright: ignore[reportPrivateImportUsage]

    save_for_hf(theirs, str(tmp_path / "model"), model_config={"label_names": NAMES}, safe_serialization=True)
    spec = find_model(tmp_path / "model")
    assert (spec.arch, spec.classes.names(), spec.numbered) == ("ResNet18", tuple(NAMES), False)
    assert (spec.preset.interpolation, spec.preset.resize_short) == (
        theirs.pretrained_cfg["interpolation"],
        int(224 / theirs.pretrained_cfg["crop_pct"]),
    )
    images = torchclas.preprocess_for(tmp_path / "model")(photo)[None]
    torch.testing.assert_close(images, prepared(theirs.pretrained_cfg, photo), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(torchclas.create_model(tmp_path / "model"), images), logits(theirs, images))
    [prediction] = torchclas.Classifier(tmp_path / "model", engine="torch").predict([photo])
    assert prediction.labels[0] == NAMES[int(logits(theirs, images).argmax())]


def test_a_file_of_torchvision_with_its_tables(tmp_path: Path) -> None:
    """Its Swin keeps which bias belongs to which pair of places beside the weights."""
    from torchvision.models import get_model

    theirs = get_model("swin_t", num_classes=3)
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "swin_t.pth")
    with pytest.warns(UserWarning, match=r"resized as torchvision does it"):
        ours = torchclas.create_model("SwinTransformer_tiny_patch4_window7_224", weights=tmp_path / "swin_t.pth")
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits(ours, images), logits(theirs, images), rtol=1e-4, atol=1e-5)


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "as it is": lambda state: state,
    "of timm's train.py": lambda state: {"epoch": 3, "arch": "resnet18", "state_dict": state},
    "averaged": lambda state: {
        "state_dict": {name: 0 * tensor for name, tensor in state.items()},
        "state_dict_ema": state,
    },
    "of DistributedDataParallel": lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    "of torch.compile": lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
    "of Lightning": lambda state: {"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}},
    "of transformers": lambda state: {f"timm_model.{name}": tensor for name, tensor in state.items()},
}


@pytest.mark.parametrize("name", WRAPPINGS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_files_of_training_frameworks(name: str, theirs: Any, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[name](theirs.state_dict()), tmp_path / "mine.bin")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for spec in (find_model(tmp_path / "mine.bin"), find_model("ResNet18", weights=tmp_path / "mine.bin")):
        assert (spec.arch, spec.num_classes, spec.preset.backend) == ("ResNet18", 3, "torchvision")
    ours = torchclas.create_model(tmp_path / "mine.bin")
    torch.testing.assert_close(logits(ours, images), logits(theirs, images), rtol=1e-5, atol=1e-5)


def test_guesses_are_said(theirs: Any, tmp_path: Path) -> None:
    save_file(theirs.state_dict(), tmp_path / "mine.safetensors")
    with pytest.warns(UserWarning, match="does not say") as warned:
        find_model(tmp_path / "mine.safetensors")
    said = " ".join(str(warning.message) for warning in warned)
    assert "its tensors are those of ResNet18 (timm layout, 3 classes)" in said
    assert "does not say how images are prepared: they are resized as timm does it, to 224 px of 256 (bilinear)" in said


def test_our_own_state_dict(tmp_path: Path) -> None:
    network = torchclas.create_model(ARCH, num_classes=4)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match="own names"):
        spec = find_model(tmp_path / "mine.pth")
    assert (spec.arch, spec.num_classes, spec.preset.backend) == (ARCH, 4, "opencv")


def test_a_networks_biases_are_not_dropped(tmp_path: Path) -> None:
    """VGG has none here: what it computes with them could not be said."""
    theirs = create("vgg11", num_classes=2)
    randomise(theirs)
    save_file(theirs.state_dict(), tmp_path / "vgg.safetensors")
    with pytest.raises(CheckpointError, match=r"16 unexpected|8 unexpected"):
        torchclas.create_model("VGG11", weights=tmp_path / "vgg.safetensors")


@pytest.mark.parametrize("name", ["mixnet_s", "tf_mixnet_s"])
def test_networks_that_look_alike(name: str, tmp_path: Path) -> None:
    """Their tensors are the same, and their padding is not."""
    save_file(create(name, num_classes=2).state_dict(), tmp_path / f"{name}-1234abcd.safetensors")
    if name == "mixnet_s":
        with pytest.warns(UserWarning, match="tf_mixnet_s of timm has the same tensors and computes something else"):
            assert find_model(tmp_path / f"{name}-1234abcd.safetensors").arch == "MixNet_S"
        return
    with pytest.raises(CheckpointError, match="is called after tf_mixnet_s of timm"):
        find_model(tmp_path / f"{name}-1234abcd.safetensors")
    with pytest.raises(CheckpointError, match="is called after tf_mixnet_s of timm"):
        find_model("MixNet_S", weights=tmp_path / f"{name}-1234abcd.safetensors")


# What stands beside the weights


def configured(folder: Path, theirs: Any, **changes: Any) -> Path:
    config: dict[str, Any] = {
        "architecture": "resnet18",
        "num_classes": 3,
        "pretrained_cfg": {
            "input_size": [3, 128, 128], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
        },
    }  # fmt: skip
    config["pretrained_cfg"] |= changes.pop("pretrained_cfg", {})
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config | changes))
    save_file(theirs.state_dict(), folder / "model.safetensors")
    return folder


def test_what_a_configuration_says(theirs: Any, tmp_path: Path) -> None:
    described = {"n01": "tench", "n02": "goldfish", "n03": "shark"}
    spec = find_model(configured(tmp_path / "a", theirs, label_names=list(described), label_descriptions=described))
    assert (spec.classes.ids, spec.classes.names()) == (("n01", "n02", "n03"), ("tench", "goldfish", "shark"))
    assert spec.preset == Preset(142, (128, 128), "bicubic", "torchvision", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    spec = find_model(configured(tmp_path / "b", theirs, problem_type="multi_label_classification"))
    assert (spec.activation, spec.numbered) == ("sigmoid", True)
    spec = find_model(
        configured(
            tmp_path / "c", theirs, pretrained_cfg={"crop_mode": "squash", "crop_pct": 1.0, "input_size": [3, 64, 96]}
        )
    )
    assert (spec.preset.fit, spec.preset.size) == ("squeeze", (64, 96))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "convnext_tiny"}, "is none of the networks here"),
        ({"model_args": {"act_layer": "gelu"}}, "resnet18 .act_layer='gelu'. is none of the networks here"),
        ({"label_names": ["a", "b"]}, "names 2 classes, but the weights have 3"),
        ({"pretrained_cfg": {"crop_mode": "squash"}}, "prepared in a way that is not known here"),
        ({"pretrained_cfg": {"interpolation": "random"}}, "prepared in a way that is not known here"),
        ({"pretrained_cfg": {"crop_pct": 3}}, "is no share of an image"),
        ({"pretrained_cfg": {"input_size": [3, 10**9, 5]}}, "input_size: must be"),
        ({"pretrained_cfg": {"std": [0, 0, 0]}}, "mean and std"),
    ],
)
def test_what_it_must_not_say(changes: dict[str, Any], message: str, theirs: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_model(configured(tmp_path, theirs, **changes))


def test_configurations_that_are_none(theirs: Any, tmp_path: Path) -> None:
    configured(tmp_path, theirs)
    for content, message in (("{", "is not JSON"), ("[" * 100_000, "is not JSON")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            find_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')  # of another program
    with pytest.warns(UserWarning, match="those of ResNet18"):
        assert find_model(tmp_path).arch == "ResNet18"


def test_a_configuration_of_another_network(theirs: Any, tmp_path: Path) -> None:
    folder = configured(tmp_path, theirs, architecture="resnet50")
    with pytest.raises(CheckpointError, match="does not fit ResNet50"):
        torchclas.create_model(folder)
    with pytest.raises(CheckpointError, match="are of a ResNet50, not a ResNet18"):
        find_model("ResNet18", weights=folder)


# Preprocessing


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("fit", "size", "short"), [("crop", 224, 256), ("crop", 299, 320), ("squeeze", 96, 96), ("pad", 96, 96)]
)
def test_images_are_prepared_as_timm_does_it(fit: Any, size: int, short: int, interpolation: Any) -> None:
    preset = Preset(
        short, (size, size), interpolation, "torchvision", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), fit
    )
    rng = np.random.default_rng(0)
    for height, width in ((333, 500), (401, 287), (512, 512), (97, 131)):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        want = prepared(pretrained_config(preset, 3), pixels)[0]
        torch.testing.assert_close(Preprocess(preset)(pixels), want, rtol=0, atol=1e-6)


# Names


def test_the_table() -> None:
    for library in LIBRARIES:
        for arch, counterpart in counterparts(library).items():
            assert arch in models.architectures()
            assert libraries.layout_of(library, arch) in models.renames(arch)
            assert namesakes(counterpart.name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50d", "resnet50d of timm is ResNet50_vd here"),
        ("timm/resnet50d.ra2_in1k", "resnet50d of timm is ResNet50_vd here"),
        ("lcnet_100", "lcnet_100 of timm with head_bias=False is PPLCNet_x1_0 here"),
        ("mobilenet_v2", "mobilenet_v2 of torchvision is MobileNetV2 here"),
    ],
)
def test_their_names(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        torchclas.create_model(name)


@pytest.mark.parametrize(("library", "arch"), [("timm", ARCH), ("torchvision", "MobileNetV2")])
def test_same_logits(library: Any, arch: str) -> None:
    outcome = check(library, arch)
    assert outcome.equal, outcome


def test_tensors_are_under_timms_names(folder: Path) -> None:
    assert load_file(folder / "model.safetensors").keys() == create(THEIRS, head_bias=False).state_dict().keys()
