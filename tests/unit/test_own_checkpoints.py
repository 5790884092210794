"""Weights that users bring: from PaddleClas, from their own loops, from runs; with any number of classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import torchclas
from tests.networks import fresh
from torchclas import cli
from torchclas.catalog import find
from torchclas.errors import CheckpointError, DataError, OutputError
from torchclas.layers.network import Network
from torchclas.spec import find_model
from torchclas.weights.export import layouts, published_tensors, to_pdparams
from torchclas.weights.identity import identify, recognise
from torchclas.weights.metadata import read_metadata
from torchclas.weights.pdparams import read_pdparams, write_pdparams
from torchclas.zoo import load_model

ARCH = "PPLCNet_x0_25"
CLASSES = 5
IMAGE = torch.randn(1, 3, 64, 64)
NAMES = ("猫", "狗", "鸟", "鱼", "牛")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    model = torchclas.create_model(ARCH, num_classes=CLASSES).eval()
    nn.init.normal_(model.get_parameter("classifier.bias"))  # so that a head that was not loaded is noticed
    return model


def _torch(wrap: Callable[[Mapping[str, Tensor]], object]) -> Callable[[Network, Path], Path]:
    def write(model: Network, folder: Path) -> Path:
        torch.save(wrap(model.state_dict()), folder / "mine.pth")
        return folder / "mine.pth"

    return write


def _safetensors(prefix: str) -> Callable[[Network, Path], Path]:
    def write(model: Network, folder: Path) -> Path:
        save_file({prefix + name: tensor for name, tensor in model.state_dict().items()}, folder / "mine.safetensors")
        return folder / "mine.safetensors"

    return write


def _paddle(prefix: str, other: str = "") -> Callable[[Network, Path], Path]:
    def write(model: Network, folder: Path) -> Path:
        path = folder / "mine.pdparams"
        to_pdparams(model, path)
        tensors = read_pdparams(path)
        others = {other + name: np.zeros_like(tensor) for name, tensor in tensors.items()} if other else {}
        write_pdparams(path, others | {prefix + name: tensor for name, tensor in tensors.items()})
        return path

    return write


WRITERS = {
    "state_dict": _torch(dict),
    "in a checkpoint": _torch(lambda state: {"state_dict": dict(state), "epoch": 3}),
    "of DistributedDataParallel": _torch(lambda state: {f"module.{name}": tensor for name, tensor in state.items()}),
    "of torch.compile": _torch(lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()}),
    "of a module of one's own": _torch(lambda state: {f"net.encoder.{name}": t for name, t in state.items()}),
    "safetensors": _safetensors(""),
    "safetensors of torch.compile": _safetensors("_orig_mod."),
    "pdparams": _paddle(""),
    "pdparams of a wrapper": _paddle("backbone."),
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_weights_of_five_classes_load_however_they_were_written(
    writer: Callable[[Network, Path], Path], network: Network, tmp_path: Path
) -> None:
    path = writer(network, tmp_path)
    loaded = torchclas.create_model(ARCH, weights=path).eval()
    torch.testing.assert_close(loaded(IMAGE), network(IMAGE))
    spec = find_model(ARCH, weights=path)
    assert (spec.num_classes, spec.classes.ids) == (CLASSES, ("0", "1", "2", "3", "4"))
    torch.testing.assert_close(load_model(spec)(IMAGE), network(IMAGE))


def test_of_student_and_teacher_the_student_is_taken_with_a_word(network: Network, tmp_path: Path) -> None:
    path = _paddle("Student.", "Teacher.")(network, tmp_path)
    with pytest.warns(UserWarning, match="Student is taken"):
        loaded = torchclas.create_model(ARCH, weights=path).eval()
    torch.testing.assert_close(loaded(IMAGE), network(IMAGE))


@pytest.mark.parametrize(
    "arch",
    ["GoogLeNet", "DeiT_tiny_distilled_patch16_224", "SqueezeNet1_1", "RepVGG_A0", "LeViT_128S", "VGG11", "TNT_small"],
)
def test_classes_and_channels_are_read_from_every_kind_of_head(arch: str) -> None:
    model = fresh(arch, "meta", num_classes=7, in_channels=1)
    found = identify(Path("x.pth"), arch, "torch", model.state_dict())
    assert (found.layout, found.num_classes, found.in_channels) == ("torchclas", 7, 1)
    for layout in layouts(arch):
        found = identify(Path("x.pdparams"), arch, "paddle", published_tensors(model, layout))
        assert (found.layout, found.num_classes, found.in_channels) == (layout, 7, 1)


def test_heads_that_contradict_each_other() -> None:
    state = dict(fresh("GoogLeNet", "meta", num_classes=7).state_dict())
    state["classifier.bias"] = torch.zeros(6)
    with pytest.raises(CheckpointError, match="different numbers of classes: 6 and 7"):
        identify(Path("x.pth"), "GoogLeNet", "torch", state)


class TestRecognition:
    def test_by_tensors_alone(self, network: Network, tmp_path: Path) -> None:
        path = _paddle("")(network, tmp_path)
        with pytest.warns(UserWarning, match=r"does not say which model .*PPLCNet_x0_25 .*5 classes"):
            spec = find_model(path)
        assert (spec.arch, spec.num_classes, spec.path) == (ARCH, CLASSES, path)
        with pytest.warns(UserWarning, match="does not say"):
            assert torchclas.create_model(path).num_classes == CLASSES

    def test_of_a_backbone_only_training_has_a_use(self, network: Network, tmp_path: Path) -> None:
        state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("classifier")}
        torch.save(state, path := tmp_path / "backbone.pth")
        with pytest.raises(CheckpointError, match="without its classifier"):
            find_model(ARCH, weights=path)
        assert find_model(ARCH, weights=path, headless=True).num_classes == 0
        vectors = torchclas.create_model(ARCH, weights=path).eval()
        torch.testing.assert_close(
            vectors(IMAGE), network.forward_head(network.forward_features(IMAGE), pre_logits=True)
        )
        assert torchclas.create_model(ARCH, weights=path, num_classes=3).eval()(IMAGE).shape == (1, 3)

    def test_two_architectures_with_the_same_tensors(self, tmp_path: Path) -> None:
        state = fresh("EfficientNet_lite0", "meta", num_classes=3).state_dict()
        found = recognise(tmp_path / "mine.pth", "torch", state)
        assert [identity.arch for identity in found] == ["EfficientNetB0_small", "EfficientNet_lite0"]

    @pytest.mark.parametrize(
        "name", ["EfficientNet_lite0.pth", "efficientnet_lite0-best.pth", "EfficientNet_lite0/best_model.pdparams"]
    )
    def test_a_name_in_the_path_decides(self, name: str, tmp_path: Path) -> None:
        state = fresh("EfficientNet_lite0", "meta", num_classes=3).state_dict()
        assert [found.arch for found in recognise(tmp_path / name, "torch", state)] == ["EfficientNet_lite0"]

    def test_a_name_in_the_path_that_is_wrong_does_not(self, network: Network, tmp_path: Path) -> None:
        found = recognise(tmp_path / "PPLCNet_x0_5.pth", "torch", network.state_dict())
        assert [identity.arch for identity in found] == [ARCH]

    def test_nothing_fits(self, network: Network, tmp_path: Path) -> None:
        state = dict(network.state_dict())
        state["surplus"] = torch.zeros(3)
        torch.save(state, path := tmp_path / "mine.pth")
        with pytest.raises(CheckpointError, match=r"those of no model here: name it \(`-m NAME --weights"):
            find_model(path)


class TestLabels:
    @pytest.fixture
    def weights(self, network: Network, tmp_path: Path) -> Path:
        return _torch(dict)(network, tmp_path)

    def test_from_a_file_or_from_python(self, weights: Path, tmp_path: Path) -> None:
        file = tmp_path / "labels.txt"
        file.write_text("".join(f"{number} {name}\n" for number, name in enumerate(NAMES)), "utf-8")
        for labels in (file, str(file), NAMES):
            spec = find_model(ARCH, weights=weights, labels=labels)
            assert spec.classes.names("zh") == spec.classes.names("en") == spec.classes.ids == NAMES

    def test_as_many_as_there_are_classes(self, weights: Path, tmp_path: Path) -> None:
        (tmp_path / "labels.txt").write_text("cat\ndog\n")
        for labels in (tmp_path / "labels.txt", ["cat", "dog"]):
            with pytest.raises(DataError, match="5"):
                find_model(ARCH, weights=weights, labels=labels)

    def test_ids_that_tell_classes_apart_stay(self) -> None:
        names = [f"class {number}" for number in range(1000)]
        spec = find_model("ResNet50", labels=names)
        assert spec.classes.ids[0] == "n01440764"
        assert spec.classes.names()[0] == "class 0"

    def test_go_into_what_is_made_of_the_weights(self, weights: Path, tmp_path: Path) -> None:
        (tmp_path / "labels.txt").write_text("\n".join(NAMES), "utf-8")
        ours = tmp_path / "ours.safetensors"
        arguments = [
            "weights",
            "convert",
            str(weights),
            str(ours),
            "-m",
            ARCH,
            "--labels",
            str(tmp_path / "labels.txt"),
        ]
        assert cli.run(arguments) == 0
        assert read_metadata(ours).class_names == NAMES
        assert find_model(ours).classes.ids == NAMES

    @pytest.mark.parametrize("named", [False, True])
    def test_of_a_list_are_matched_to_a_model_that_has_names_and_given_to_one_that_has_none(
        self, network: Network, named: bool, tmp_path: Path
    ) -> None:
        """Two pictures of the class that the network always says, in a list that numbers the classes backwards."""
        said = int(network(torch.zeros(1, 3, 224, 224)).argmax())
        path = tmp_path / "mine.safetensors"
        torchclas.save_checkpoint(network, path, class_names=NAMES if named else None)
        order = NAMES[::-1] if named else NAMES
        (tmp_path / "names.txt").write_text("\n".join(order), "utf-8")
        Image.new("RGB", (64, 64), (124, 116, 104)).save(tmp_path / "a.png")
        (tmp_path / "list.txt").write_text(f"a.png {order.index(NAMES[said])}\n")
        report = torchclas.evaluate(
            tmp_path / "list.txt", model=path, labels=tmp_path / "names.txt", engine="torch", device="cpu"
        )
        assert report.class_names == NAMES
        assert report.top1.value == 1

    def test_predictions_have_them(self, weights: Path) -> None:
        classifier = torchclas.Classifier(ARCH, weights=weights, labels=NAMES, engine="torch", top_k=9)
        [prediction] = classifier.predict(np.zeros((40, 40, 3), np.uint8))
        assert set(prediction.labels) == set(NAMES)


class TestRunFolders:
    @pytest.fixture
    def run(self, network: Network, tmp_path: Path) -> Path:
        for folder in (tmp_path / "runs" / "mine", tmp_path / "runs" / "mine" / "finetune"):
            folder.mkdir(parents=True)
            torchclas.save_checkpoint(network, folder / "best.safetensors", class_names=NAMES)
        return tmp_path / "runs" / "mine"

    def test_stand_for_their_best_weights(self, run: Path) -> None:
        for name in (run, str(run), f"{run}/"):
            assert find_model(name).path == run / "best.safetensors"
        assert find_model(ARCH, weights=run).path == run / "best.safetensors"
        assert find_model(weights=run).classes.ids == NAMES
        assert torchclas.create_model(run).num_classes == CLASSES

    def test_give_their_names_to_what_is_made_of_them(self, run: Path) -> None:
        assert find_model(run).file_name == "mine"
        assert find_model(run / "finetune").file_name == "mine-finetune"
        assert find_model("ResNet50").file_name == "ResNet50"

    def test_two_checkpoints_of_one_architecture_differ_in_name(self, network: Network, tmp_path: Path) -> None:
        files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
        folders = [tmp_path / "first" / "best_model.pdparams", tmp_path / "second" / "best_model.pdparams"]
        for file in files:
            torchclas.save_checkpoint(network, file)
        for file in folders:
            file.parent.mkdir()
            to_pdparams(network, file)
        names = [find_model(path).file_name for path in files]
        names += [find_model(ARCH, weights=path).file_name for path in folders]
        assert names == ["a", "b", "first", "second"]

    def test_without_weights_yet(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{}")
        with pytest.raises(CheckpointError, match="first epoch is not over"):
            find_model(tmp_path)

    def test_other_folders(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="name a file of weights"):
            find_model(tmp_path)
        for epoch in (8, 9):
            (tmp_path / f"epoch_{epoch}.pdparams").touch()
        with pytest.raises(CheckpointError, match="name the file: epoch_8"):
            find_model(tmp_path)

    def test_folders_and_names_of_paddleclas(
        self, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "output" / ARCH
        folder.mkdir(parents=True)
        to_pdparams(network, folder / "latest.pdparams")
        (folder / "latest.pdopt").touch()
        assert find_model(ARCH, weights=folder).path == folder / "latest.pdparams", "the only one"
        to_pdparams(network, folder / "best_model.pdparams")
        to_pdparams(network, folder / "best_model.ema.pdparams")
        assert find_model(folder).path == folder / "best_model.pdparams"
        for name in (folder / "best_model", f"{folder}/best_model"):
            spec = find_model(name)
            assert (spec.arch, spec.num_classes, spec.path) == (ARCH, CLASSES, folder / "best_model.pdparams")
        monkeypatch.chdir(folder)
        assert find_model("best_model").path == Path("best_model.pdparams")
        assert find_model(ARCH, weights="latest").path == Path("latest.pdparams")
        assert torchclas.create_model(ARCH, weights="best_model").num_classes == CLASSES
        with pytest.raises(CheckpointError, match="no such file"):
            find_model(ARCH, weights="epoch_1")

    def test_a_folder_does_not_hide_a_model_of_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "ResNet50").mkdir()
        monkeypatch.chdir(tmp_path)
        assert find_model("ResNet50").path is None


class TestSaving:
    def test_everything_comes_back(self, network: Network, tmp_path: Path) -> None:
        path = torchclas.save_checkpoint(
            network, tmp_path / "mine.safetensors", class_names=NAMES, name="pets", origin={"author": "me", "self": 1}
        )
        metadata = read_metadata(path)
        assert (metadata.arch, metadata.name, metadata.class_names) == (ARCH, "pets", NAMES)
        assert (metadata.class_ids, dict(metadata.origin)) == (NAMES, {"author": "me", "self": 1})
        assert metadata.preset == find(ARCH).preset
        torch.testing.assert_close(torchclas.create_model(path).eval()(IMAGE), network(IMAGE))

    def test_names_that_repeat_need_no_ids(self, network: Network, tmp_path: Path) -> None:
        path = torchclas.save_checkpoint(
            network, tmp_path / "x.safetensors", class_names=["crane", "crane", "a", "b", "c"]
        )
        assert read_metadata(path).class_ids == ("0", "1", "2", "3", "4")

    def test_a_published_number_of_classes_means_the_published_ones(self, tmp_path: Path) -> None:
        path = torchclas.save_checkpoint(torchclas.create_model(ARCH), tmp_path / "x.safetensors")
        assert find_model(path).classes.name == "imagenet1k"

    def test_preprocessing_follows_the_weights_and_the_size(self, tmp_path: Path) -> None:
        model = torchclas.create_model("Fix_ResNet50_vd_ssld_v2")
        assert torchclas.preprocess_for(model).preset.size == (320, 320)
        path = torchclas.save_checkpoint(model, tmp_path / "fixed.safetensors")
        assert torchclas.preprocess_for(path).preset == find("Fix_ResNet50_vd_ssld_v2").preset
        model = torchclas.create_model("DeiT_tiny_patch16_224", num_classes=2)
        model.set_input_size(160)
        path = torchclas.save_checkpoint(model, tmp_path / "small.safetensors", class_names=["a", "b"])
        assert torchclas.preprocess_for(model).preset.size == read_metadata(path).preset.size == (160, 160)
        assert torchclas.create_model(path).input_size == (160, 160)

    def test_wrapped_networks(self, network: Network, tmp_path: Path) -> None:
        averaged = torch.optim.swa_utils.AveragedModel(network)
        path = torchclas.save_checkpoint(averaged, tmp_path / "average.safetensors")
        torch.testing.assert_close(torchclas.create_model(path).eval()(IMAGE), network(IMAGE))

    def test_what_cannot_be_saved(self, network: Network, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        with pytest.raises(OutputError, match=r"must end in \.safetensors"):
            torchclas.save_checkpoint(network, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match="2 class_names were given for 5 classes"):
            torchclas.save_checkpoint(network, path, class_names=["a", "b"])
        with pytest.raises(CheckpointError, match="class_names were given"):
            torchclas.save_checkpoint(network, path, class_names="abcde")
        with pytest.raises(CheckpointError, match="class_ids must differ"):
            torchclas.save_checkpoint(network, path, class_names=NAMES, class_ids=["a"] * 5)
        with pytest.raises(CheckpointError, match="no network made by"):
            torchclas.save_checkpoint(nn.Linear(2, 2), path)
        with pytest.raises(CheckpointError, match="no classifier"):
            torchclas.save_checkpoint(torchclas.create_model(ARCH, num_classes=0), path)
        with pytest.raises(CheckpointError, match=r"before fuse\(\)"):
            torchclas.save_checkpoint(torchclas.create_model("RepVGG_A0").fuse(), path)
        assert not path.exists()


def test_a_file_beside_a_file_is_one_too_many(network: Network, tmp_path: Path) -> None:
    path = _torch(dict)(network, tmp_path)
    with pytest.raises(CheckpointError, match="both files of weights"):
        find_model(path, weights=path)


def test_inspect_says_what_they_are(network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _torch(dict)(network, tmp_path)
    assert cli.run(["weights", "inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "PPLCNet_x0_25 (torchclas's own names, 5 classes)" in shown
    assert f"-m PPLCNet_x0_25 --weights {path}" in shown
    assert cli.run(["weights", "inspect", str(path), "-m", ARCH]) == 0
    assert "5 classes" in capsys.readouterr().out


class TestGray:
    """Models of one channel: images become gray, also those that are in colour."""

    @pytest.fixture
    def checkpoint(self, tmp_path: Path) -> Path:
        torch.manual_seed(0)
        model = torchclas.create_model(ARCH, num_classes=2, in_channels=1)
        nn.init.normal_(model.get_parameter("classifier.weight"))
        return torchclas.save_checkpoint(model, tmp_path / "gray.safetensors", class_names=["a", "b"])

    def test_preprocessing(self, checkpoint: Path) -> None:
        gray = np.random.default_rng(0).integers(0, 256, (300, 260), np.uint8)
        preprocess = torchclas.preprocess_for(checkpoint)
        assert preprocess.shape == preprocess(gray).shape == (1, 224, 224)
        colour = torchclas.preprocess_for(ARCH)
        torch.testing.assert_close(preprocess(gray)[0], preprocess(np.dstack([gray] * 3))[0])
        levels = (preprocess(gray)[0] * float(np.mean(colour.preset.std)) + float(np.mean(colour.preset.mean))) * 255
        want = (colour(gray)[1] * colour.preset.std[1] + colour.preset.mean[1]) * 255
        torch.testing.assert_close(levels, want, atol=0.01, rtol=0)
        np.testing.assert_array_equal(preprocess.pixels(preprocess.array(gray)), colour.pixels(colour.array(gray)))

    def test_a_network_knows_its_own(self) -> None:
        model = torchclas.create_model(ARCH, in_channels=1)
        assert torchclas.preprocess_for(model).shape == (1, 224, 224)

    def test_predictions(self, checkpoint: Path, tmp_path: Path) -> None:
        picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
        picture.save(tmp_path / "colour.png")
        picture.convert("L").save(tmp_path / "gray.png")
        sheet = tmp_path / "sheet.png"
        names = [str(tmp_path / "colour.png"), str(tmp_path / "gray.png")]
        more = ["--engine", "torch", "-o", str(tmp_path / "rows.jsonl"), "--montage", str(sheet)]
        assert cli.run(["predict", *names, "-m", str(checkpoint), *more]) == 0
        assert sheet.exists()

    def test_other_numbers_of_channels_are_the_users_own_affair(self) -> None:
        model = torchclas.create_model(ARCH, in_channels=4)
        with pytest.raises(DataError, match="4 input channels"):
            torchclas.preprocess_for(model)

    def test_scores_are_those_of_the_network(self, checkpoint: Path) -> None:
        image = np.random.default_rng(2).integers(0, 256, (224, 224, 3), np.uint8)
        classifier = torchclas.Classifier(checkpoint, engine="torch")
        [prediction] = classifier.predict(image)
        with torch.inference_mode():
            logits = torchclas.create_model(checkpoint).eval()(torchclas.preprocess_for(checkpoint)(image)[None])[0]
        best = int(logits.argmax())
        assert prediction.labels[0] == "ab"[best]
        assert math.isclose(prediction.scores[0], float(logits.softmax(0)[best]), rel_tol=1e-4)
