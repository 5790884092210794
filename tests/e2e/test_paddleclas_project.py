"""A project of PaddleClas as its user has it: a configuration, list files, names of classes, a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import torchclas
from tests.paddleclas_configs import DECODE, FLIP, NORMALIZE, config, write
from torchclas.cli import run
from torchclas.recipes import Recipe
from torchclas.weights.export import to_pdparams
from torchclas.weights.metadata import read_metadata

pytestmark = pytest.mark.usefixtures("one_thread")

pytest.importorskip("lightning_fabric")

ARCH = "PPLCNet_x0_25"
NAMES = ("红", "green", "blue")
HERE = ["--device", "cpu", "--workers", "0"]


def settings(**changes: Any) -> dict[str, Any]:
    """Two epochs on images of 64 px; evaluation sees more of an image than the model's usual preset."""
    seen = [DECODE, {"ResizeImage": {"resize_short": 68}}, {"CropImage": {"size": 64}}, NORMALIZE]
    usual: dict[str, Any] = {
        "Arch__class_num": 3,
        "Global__epochs": 2,
        "Global__image_shape": [3, 64, 64],
        "Optimizer__lr": {"name": "Cosine", "learning_rate": 0.02, "warmup_epoch": 1},
        "DataLoader__Train__dataset__image_root": "dataset/",
        "DataLoader__Train__dataset__cls_label_path": "dataset/lists/train_list.txt",
        "DataLoader__Train__dataset__transform_ops": [DECODE, {"RandCropImage": {"size": 64}}, FLIP, NORMALIZE],
        "DataLoader__Train__sampler__batch_size": 8,
        "DataLoader__Eval__dataset__image_root": "dataset/val/",
        "DataLoader__Eval__dataset__cls_label_path": "dataset/lists/val_list.txt",
        "DataLoader__Eval__dataset__transform_ops": seen,
        "DataLoader__Eval__sampler__batch_size": 8,
        "Infer__infer_imgs": "dataset/val/0.jpg",
        "Infer__transforms": seen,
        "Infer__PostProcess": {"name": "Topk", "topk": 2, "class_id_map_file": "dataset/names.txt"},
    }
    return config(ARCH, **{**usual, **changes})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the project, which is the current one: paths of configurations begin there."""
    random = np.random.default_rng(0)
    (tmp_path / "dataset" / "lists").mkdir(parents=True)
    for split, count, root in (("train", 24, ""), ("val", 9, "val/")):
        (tmp_path / "dataset" / split).mkdir()
        lines = list[str]()
        for number in range(count):
            pixels = random.integers(0, 60, (80, 100, 3), np.uint8)
            pixels[..., number % 3] += 180
            Image.fromarray(pixels).save(tmp_path / "dataset" / split / f"{number}.jpg")
            lines.append(f"{'' if root else 'train/'}{number}.jpg {number % 3}")
        (tmp_path / "dataset" / "lists" / f"{split}_list.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "dataset" / "names.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(NAMES)), "utf-8")
    write(tmp_path / "config.yaml", settings())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tuned(project: Path) -> Path:
    """What PaddleClas's training would leave: a checkpoint of three classes."""
    torch.manual_seed(1)
    folder = project / "output" / ARCH
    folder.mkdir(parents=True)
    to_pdparams(torchclas.create_model(ARCH, num_classes=3).eval(), folder / "best_model.pdparams")
    return folder / "best_model.pdparams"


def test_it_is_trained(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "-c", "config.yaml", *HERE]) == 0
    said = capsys.readouterr()
    assert "24 images of 3 classes, 9 to validate, 64 px, batches of 8, 2 epochs → output/PPLCNet_x0_25" in said.err
    assert "of no effect here: Global.print_batch_step" in said.err
    folder = project / "output" / ARCH
    metadata = read_metadata(folder / "best.safetensors")
    assert metadata.class_ids == NAMES
    assert (metadata.preset.size, metadata.preset.resize_short) == ((64, 64), 68), "as the configuration evaluates"
    recipe = Recipe.from_toml((folder / "recipe.toml").read_text())
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.total_batch) == (0.02, 1e-4, 8)
    assert recipe.optimizer.no_decay == ("norm",), "as PaddleClas's own code of PP-LCNet has it"

    assert run(["train", "-c", "config.yaml", *HERE]) == 0
    assert "there is nothing left to train" in capsys.readouterr().out

    best = "Global.pretrained_model=output/PPLCNet_x0_25/best_model"
    assert run(["evaluate", "-c", "config.yaml", "--override", best, *HERE, "--engine", "torch"]) == 0
    assert "9 of 9" in capsys.readouterr().out
    arguments = ["predict", "-c", "config.yaml", "--override", best, *HERE, "--engine", "torch", "--format", "jsonl"]
    assert run(arguments) == 0
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["source"] == "dataset/val/0.jpg"
    assert len(row["labels"]) == 2
    assert set(row["labels"]) < set(NAMES)


def test_options_come_before_the_configuration(project: Path) -> None:
    options = ["--epochs", "1", "--batch-size", "4", "-o", "mine", "--set", "optimizer.momentum=0.5"]
    assert run(["train", "-c", "config.yaml", "--override", "Global.seed=7", *options, *HERE]) == 0
    recipe = Recipe.from_toml((project / "mine" / "recipe.toml").read_text())
    assert (recipe.epochs, recipe.optimizer.momentum) == (1, 0.5)
    run_json = json.loads((project / "mine" / "run.json").read_text())
    assert (run_json["total_batch"], run_json["seed"]) == (4, 7)


def test_weights_of_paddleclas_are_used(tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluated, used for prediction and exported, as the same weights are without the configuration."""
    preset = read_preset()
    report = torchclas.evaluate(
        "dataset/lists/val_list.txt", model=ARCH, weights=tuned, root="dataset/val", preset=preset, workers=0,
        labels=NAMES, engine="torch", device="cpu",
    )  # fmt: skip
    given = "Global.pretrained_model=output/PPLCNet_x0_25/best_model"
    assert run(["evaluate", "-c", "config.yaml", "--override", given, *HERE, "--engine", "torch", "-o", "report"]) == 0
    found = json.loads(Path("report/report.json").read_text())
    assert (found["top1"]["value"], found["nll"]) == (report.top1.value, pytest.approx(report.nll))
    assert found["preset"]["resize_short"] == 68
    capsys.readouterr()
    assert run(["export", "-c", "config.yaml", "--override", given, "--to", "onnx"]) == 0
    metadata = read_metadata(Path("inference/inference.onnx"))
    assert (metadata.class_ids, metadata.preset.resize_short) == (NAMES, 68)


def read_preset() -> torchclas.Preset:
    from torchclas.bridges.paddleclas import open_project

    found = open_project("config.yaml").preset
    assert found is not None
    return found


def test_training_goes_on_from_weights_of_paddleclas(
    project: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the same classes, the last layer is kept: with a rate near 0 the network stays what it was."""
    given = ["--override", f"Global.pretrained_model={tuned.with_suffix('')}"]
    small = ["--override", "Optimizer.lr.learning_rate=1e-9", "--override", "Global.epochs=1"]
    small += ["--override", "Optimizer.lr.warmup_epoch=0"]
    assert run(["train", "-c", "config.yaml", *given, *small, *HERE, "-o", "on"]) == 0
    assert "from weights" in capsys.readouterr().err
    before = torchclas.create_model(ARCH, weights=tuned)
    after = torchclas.create_model(project / "on")
    assert torch.allclose(
        before.get_parameter("classifier.weight"), after.get_parameter("classifier.weight"), atol=1e-5
    )

    to_pdparams(after.eval(), project / "back.pdparams")
    image = torch.randn(1, 3, 64, 64)
    back = torchclas.create_model(ARCH, weights=project / "back.pdparams").eval()
    assert torch.allclose(back(image), after(image), atol=1e-6)


def test_labels_with_gaps(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = {"0": "3", "1": "7", "2": "12"}
    for split in ("train", "val"):
        path = project / "dataset" / "lists" / f"{split}_list.txt"
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{name}\t{numbers[label]}\n" for name, label in lines))
    changes: dict[str, Any] = {
        f"DataLoader__{part}__dataset__{key}": value
        for part in ("Train", "Eval")
        for key, value in (("relabel", True), ("delimiter", "\t"))
    }
    write(project / "gaps.yaml", settings(**changes, Global__epochs=1, Optimizer__lr__warmup_epoch=0))
    assert run(["train", "-c", "gaps.yaml", *HERE]) == 0
    said = capsys.readouterr().err
    assert "its labels are numbered anew: 0 is 3, 1 is 12, 2 is 7" in said
    assert read_metadata(project / "output" / ARCH / "best.safetensors").class_ids == NAMES
    arguments = ["evaluate", "-c", "gaps.yaml", "-m", f"output/{ARCH}", *HERE, "--engine", "torch"]
    assert run(arguments) == 0
    assert "9 of 9" in capsys.readouterr().out

    write(project / "unnamed.yaml", settings(**changes, Infer__PostProcess={"name": "Topk", "topk": 1}))
    (project / "dataset" / "names.txt").unlink()
    assert run(["train", "-c", "unnamed.yaml", *HERE, "--epochs", "1", "-o", "unnamed"]) == 0
    assert read_metadata(project / "unnamed" / "best.safetensors").class_ids == ("3", "12", "7"), "PaddleClas's order"


def test_what_is_not_supported_stops_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "strides.yaml", settings(Arch__stride_list=[2, 2, 2, 2, 1], Metric__Eval=[{"mAP": {}}]))
    assert run(["train", "-c", "strides.yaml", *HERE]) == 2
    assert "Arch.stride_list is not supported" in capsys.readouterr().err
    assert not (project / "output").exists()
    assert run(["train", "-c", "strides.yaml", "--lenient", "--epochs", "1", *HERE]) == 0
    assert "left out: Arch.stride_list" in capsys.readouterr().err
    assert run(["evaluate", "-c", "strides.yaml", "-m", f"output/{ARCH}", *HERE]) == 2
    assert "and so is Metric.Eval.0.mAP" in capsys.readouterr().err


def test_a_network_without_weights_is_not_measured(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "-c", "config.yaml", *HERE]) == 2
    assert "it names no weights of a trained PPLCNet_x0_25" in capsys.readouterr().err


def test_migrate(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", "config.yaml", "-o", "Global.epochs=5", "--recipe", "mine.toml"]) == 0
    said = capsys.readouterr().out
    assert "torchclas train --config config.yaml --override Global.epochs=5" in said
    assert "torchclas train dataset/lists/train_list.txt --val dataset/lists/val_list.txt" in said
    assert "Global.print_batch_step: a bar" in said
    assert "All of it is followed." in said
    recipe = Recipe.from_toml((project / "mine.toml").read_text())
    assert recipe.epochs == 5

    assert run(["migrate", "config.yaml", "-o", "Arch.stride_list=[2, 1]", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["complete"]
    assert [each["key"] for each in found["findings"] if each["effect"] == "unsupported"] == ["Arch.stride_list"]
    assert run(["migrate", "nothing.yaml"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_recipe_file_is_followed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate", "config.yaml", "--recipe", "mine.toml"]) == 0
    arguments = ["train", "dataset/lists/train_list.txt", "--root", "dataset", "-m", ARCH, "--from", "scratch"]
    assert run([*arguments, "--recipe", "mine.toml", "--epochs", "1", "--batch-size", "4", "-o", "byfile", *HERE]) == 0
    assert "recipe PPLCNet_x0_25, from scratch" in capsys.readouterr().err
    recipe = Recipe.from_toml((project / "byfile" / "recipe.toml").read_text())
    assert (recipe.name, recipe.optimizer.lr) == (ARCH, 0.02)
    assert run([*arguments, "--recipe", "none.toml", "-o", "other", *HERE]) == 2
    assert "none.toml: cannot be read" in capsys.readouterr().err


def test_any_number_of_classes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        path = project / "dataset" / "lists" / f"{split}_list.txt"
        lines = [line.split() for line in path.read_text().splitlines()]
        rows = [f"{name}\t{int(label != '2')},{int(label == '1')},{int(label != '0')}" for name, label in lines]
        path.write_text("\n".join(rows) + "\n")
    changes: dict[str, Any] = {
        "Global__use_multilabel": True,
        "Loss": {kind: [{"MultiLabelLoss": {"weight": 1.0}}] for kind in ("Train", "Eval")},
        "DataLoader__Train__dataset__name": "MultiLabelDataset",
        "DataLoader__Eval__dataset__name": "MultiLabelDataset",
        "Infer__PostProcess": {
            "name": "MultiLabelThreshOutput", "threshold": 0.4, "class_id_map_file": "dataset/names.txt",
        },
        "Metric": {"Eval": [{"ATTRMetric": None}]},
    }  # fmt: skip
    write(project / "several.yaml", settings(**changes))
    assert run(["train", "-c", "several.yaml", *HERE]) == 0
    best = project / "output" / ARCH
    metadata = read_metadata(best / "best.safetensors")
    assert (metadata.activation, metadata.class_ids) == ("sigmoid", NAMES)
    loss = Recipe.from_toml((best / "recipe.toml").read_text()).loss
    assert (loss.name, loss.head_weights) == ("bce", (pytest.approx(1 / 3),)), "the mean over the classes, as there"

    to_pdparams(torchclas.create_model(best).eval(), project / "several.pdparams")
    arguments = ["-c", "several.yaml", "--weights", "several.pdparams", *HERE, "--engine", "torch"]
    capsys.readouterr()
    assert run(["evaluate", *arguments]) == 0
    assert "mAP" in capsys.readouterr().out
    assert run(["predict", *arguments, "--format", "jsonl"]) == 0
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(score >= 0.4 for score in row["scores"])
    classifier = torchclas.Classifier(
        ARCH, weights="several.pdparams", activation="sigmoid", device="cpu", engine="torch"
    )
    assert classifier.spec.multi_label


def test_a_student_learns(tuned: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arch = {
        "name": "DistillationModel",
        "class_num": 3,
        "freeze_params_list": [True, False],
        "models": [
            {"Teacher": {"name": ARCH, "pretrained": str(tuned.with_suffix(""))}},
            {"Student": {"name": ARCH, "pretrained": False}},
        ],
    }
    losses = [{"DistillationDMLLoss": {"model_name_pairs": [["Student", "Teacher"]]}}]
    write(project / "distill.yaml", settings(Arch=arch, Loss__Train=losses, Global__epochs=1, Optimizer__lr=0.01))
    assert run(["train", "-c", "distill.yaml", *HERE]) == 2
    assert "`torchclas distill --config distill.yaml` follows this configuration" in capsys.readouterr().err
    assert run(["distill", "-c", "distill.yaml", *HERE]) == 0
    assert "teaches by ssld, in training mode" in capsys.readouterr().err, "as PaddleClas's teachers are"
    best = read_metadata(project / "output" / "DistillationModel" / "best.safetensors")
    assert (best.num_classes, best.preset.resize_short) == (3, 68)
