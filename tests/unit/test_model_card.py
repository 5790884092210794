"""A card says what is known of a model, and is what the Hugging Face Hub reads, whatever things are called."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.networks import CLASSES
from torchclas import catalog, models
from torchclas.catalog import Preset
from torchclas.cli import run
from torchclas.errors import DataError
from torchclas.reporting.model_card import model_card, write_card
from torchclas.spec import find_model
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

ARCH = "PPLCNet_x0_25"
PRESET = Preset(36, (32, 32), "bilinear", "opencv", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
NAMES = ("tench, Tinca tinca", "| ``` <b>*x*</b>", "- x: [y](z)", "1. 花\n---")
ORIGIN: dict[str, Any] = {
    "trained_by": "torchclas train",
    "recipe": "finetune",
    "from": "pretrained",
    "model": ARCH,
    "data": "---\nlicense: mit # | _x_",
    "train_images": 900,
    "val_images": 100,
    "held_out": True,
    "epoch": 7,
    "val_top1": 0.9,
    "val_top5": 1.0,
}


def front_matter(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    return yaml.safe_load(head)


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "mine" / "best.safetensors"
    path.parent.mkdir()
    names = tuple(name.replace("\n", " ") for name in NAMES)
    metadata = Metadata(
        ARCH, CLASSES, PRESET, name=ARCH, class_ids=tuple("abcd"), class_names=names, origin=ORIGIN
    )  # fmt: skip
    save_checkpoint(models.build(ARCH, num_classes=CLASSES), path, metadata)
    return path


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """The folder of a run, as `train` leaves it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "best.safetensors").write_bytes(checkpoint.read_bytes())
    (folder / "run.json").write_text("{}")
    return folder


def test_every_published_model_has_a_card_that_the_hub_reads() -> None:
    from huggingface_hub import ModelCard

    for entry in catalog.entries():
        card = model_card(find_model(entry.name))
        assert card.endswith("```\n")
        assert "None" not in card
        assert "\n\n\n" not in card
    for entry in catalog.entries()[::9]:
        data: Any = ModelCard(model_card(find_model(entry.name))).data
        assert data.license == entry.license.lower()
        assert [result.metric_value for result in data.eval_results or ()] == [
            pytest.approx(value / 100) for value in (entry.top1, entry.top5) if value is not None
        ]


def test_figures_of_a_published_model_have_the_interval_of_their_images() -> None:
    card = model_card(find_model("ResNet50_vd"))
    assert "| top-1 | 79.12 % | 78.76 – 79.47 % | 50,000 |" in card
    assert "10.1186" not in card
    assert "resized to 256 px, centre cropped to 224 px" in card


def test_weights_that_were_not_free_say_so() -> None:
    terms = section(model_card(find_model("Fix_ResNeXt101_32x48d_wsl")), "Licence")
    assert "CC-BY-NC-4.0, not for commercial use" in terms


def test_names_of_strangers_are_text(checkpoint: Path) -> None:
    card = model_card(find_model(checkpoint))
    head = front_matter(card)
    assert "license" not in head
    assert head["model-index"][0]["results"][0]["dataset"]["name"] == r"---\nlicense: mit # | _x_"
    classes = section(card, "Classes").strip().splitlines()[2:]
    assert classes == [
        "0. tench, Tinca tinca",
        r"1. \| \`\`\` \<b\>\*x\*\</b\>",
        r"2. \- x: \[y\](z)",
        r"3. 1\. 花 ---",
    ]


def test_a_file_alone_says_what_its_metadata_does(checkpoint: Path) -> None:
    card = model_card(find_model(checkpoint), address="hf-hub:me/mine", license="MIT")
    assert front_matter(card)["license"] == "mit"
    assert "| top-1 | 90.00 % | 82.56 – 94.48 % | 100 |" in card
    assert "the weights of PPLCNet_x0_25, published under Apache-2.0" in card
    assert "900 images to train on, 100 held out" in card
    assert "torchclas predict photos/ -m hf-hub:me/mine" in card
    assert section(card, "Licence").startswith("\nMIT. It was made from")


def test_a_run_says_what_was_measured_at_its_end(folder: Path) -> None:
    report = {
        "images": 50,
        "data": "/home/me/flowers",
        "top1": {"value": 0.8},
        "top5": None,
        "ece": 0.1,
        "unreadable": 2,
    }
    (folder / "report.json").write_text(json.dumps(report))
    rows = ["id,name,support,recall", "a,tench,40,1.0", 'b,"<b>",10,0.0', "c,c,0,", "d,d,5,0.6"]
    (folder / "per_class.csv").write_text("\n".join(rows))
    (folder / "recipe.toml").write_text('name = "mine"\nsource = "me"\nepochs = 9\nbatch_size = 4\n')
    path = write_card(find_model(folder))
    card = path.read_text(encoding="utf-8")
    assert path == folder / "README.md"
    assert "# PPLCNet_x0_25 (mine)" in card
    assert "| top-1 | 80.00 % | 66.96 – 88.76 % | 50 |" in card
    assert "/home/me" not in card
    limits = section(card, "Limits")
    assert r"\<b\> (0 % of 10), d (60 % of 5)" in limits
    assert "Of 1 of its classes fewer than 10 images" in limits
    assert "2 images could not be read" in limits
    assert "9 epochs of 224 px" in card


def test_agreement_with_a_teacher_is_not_called_accuracy(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    metadata = Metadata(ARCH, CLASSES, PRESET, origin={**ORIGIN, "teacher": "big", "labels_by": "big"})
    save_checkpoint(models.build(ARCH, num_classes=CLASSES), path, metadata)
    limits = section(model_card(find_model(path)), "Limits")
    assert "how often it agrees with its teacher big, not how often it is right" in limits


def test_several_classes_per_image(tmp_path: Path) -> None:
    path = tmp_path / "tags.safetensors"
    origin = {key: value for key, value in ORIGIN.items() if not key.startswith("val_top")} | {"val_map": 0.75}
    metadata = Metadata(ARCH, CLASSES, PRESET, activation="sigmoid", origin=origin)
    save_checkpoint(models.build(ARCH, num_classes=CLASSES), path, metadata)
    card = model_card(find_model(path))
    assert "any number of 4 classes" in card
    assert "| mAP | 75.00 % |  | 100 |" in card
    assert "the scores add up to 1" not in card


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_checkpoint(models.build(ARCH, num_classes=CLASSES), path, Metadata(ARCH, CLASSES, PRESET))
    card = model_card(find_model(path))
    assert "model-index" not in card
    assert "## Figures" not in card
    assert "## How it was made" not in card
    assert "How good it is, is not known" in card


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_report_is_an_error(folder: Path, content: str) -> None:
    (folder / "report.json").write_text(content)
    with pytest.raises(DataError, match=r"report\.json: .*remove it"):
        model_card(find_model(folder))


def test_int8_says_how_it_differs(tmp_path: Path) -> None:
    spec = find_model("EfficientNet_lite0")
    spec = replace(spec, path=tmp_path / "small.onnx")
    report = {
        "checking": "/data/photos",
        "checking_images": 200,
        "fp32": None,
        "int8": {"agreement": 98.5, "top1": None, "mean_average_precision": None},
    }
    (tmp_path / "small.json").write_text(json.dumps(report))
    origin = {
        "precision": "int8",
        "from": "pretrained",
        "model": spec.name,
        "calibration_images": 300,
        "in_float": ["conv"],
    }
    metadata = replace(spec.metadata(), origin=origin)
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Identity", ["images"], ["logits"])
    values = [onnx.helper.make_tensor_value_info(name, 1, ["N"]) for name in ("images", "logits")]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [values[0]], [values[1]]))
    onnx.helper.set_model_props(model, {"torchclas": metadata.to_json()})
    onnx.save(model, tmp_path / "small.onnx")
    card = write_card(find_model(tmp_path / "small.onnx"))
    text = card.read_text(encoding="utf-8")
    assert card.name == "small.md"
    assert "| agreement with float32 | 98.50 % | 95.68 – 99.49 % | 200 |" in text
    assert "in 8-bit integers" in text
    assert "It was made from the weights of EfficientNet_lite0, which come under Apache-2.0." in text


def test_the_command_prints_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("PPLCNet_x1_0", str(folder)):
        assert run(["info", name, "--card"]) == 0
        assert capsys.readouterr().out == model_card(find_model(name))
