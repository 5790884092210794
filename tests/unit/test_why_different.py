"""`why-different` names each planted cause, of numbers that a program without our code computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.foreign_program import CLASSES, PREPARATIONS, PRESET, RIGHT, Array, Case, Program, changed_model, make_case
from torchclas.cli import run
from torchclas.comparison.difference import compare
from torchclas.comparison.foreign_numbers import read_numbers
from torchclas.errors import DataError
from torchclas.inference.classifier import Classifier
from torchclas.layers.network import Network
from torchclas.zoo import load_model, save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Case:
    return make_case(tmp_path_factory.mktemp("why"), photographs)


def test_the_same(case: Case, tmp_path: Path) -> None:
    found = case.explain(case.logits(), tmp_path / "b.npy")
    assert found.same
    assert found.verdict.startswith("A and B are the same: their largest difference is")
    assert found.largest is not None
    assert found.largest < 1e-4
    assert not found.causes
    assert not found.changed


@pytest.mark.parametrize(("words", "program"), [PREPARATIONS[place] for place in (0, 1, 4)])
def test_preparations_from_tensors(case: Case, tmp_path: Path, words: str, program: Program) -> None:
    found = case.explain(program.tensors(case.pictures), tmp_path / "b.npy")
    assert words in found.verdict
    assert len(found.causes) == 1


def softmax(values: Array) -> Array:
    return torch.from_numpy(values).softmax(1).numpy()


OUTPUTS: list[tuple[str, Callable[[Array], Array]]] = [
    ("softmax twice", lambda logits: softmax(softmax(logits))),
    ("sigmoid, A softmax", lambda logits: torch.from_numpy(logits).sigmoid().numpy()),
    (
        "another order, by their numbers as text",
        lambda logits: logits[:, [int(text) for text in sorted(map(str, range(12)))]],
    ),
    ("another order, backwards", lambda logits: softmax(logits)[:, ::-1]),
    ("a class more than A", lambda logits: np.concatenate([logits[:, :1] - 1, logits], axis=1)),
]


@pytest.mark.parametrize(("words", "change"), OUTPUTS)
def test_outputs(case: Case, tmp_path: Path, words: str, change: Callable[[Array], Array]) -> None:
    assert words in case.explain(change(case.logits()), tmp_path / "b.npy").verdict


def test_probabilities_are_no_difference(case: Case, tmp_path: Path) -> None:
    found = case.explain(softmax(case.logits()), tmp_path / "b.npy")
    assert found.same
    assert found.steps[0].note == "B gives probabilities"


@pytest.mark.parametrize("alone", [False, True])
def test_batch_norm_in_training_mode(case: Case, tmp_path: Path, alone: bool) -> None:
    network = load_model(case.classifier.spec)
    for module in network.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    images = torch.from_numpy(RIGHT.tensors(case.pictures))
    with torch.no_grad():
        logits = torch.cat([network(image[None]) for image in images]) if alone else network(images)
    verdict = case.explain(logits.numpy(), tmp_path / "b.npy").verdict
    assert "batch norms in training mode" in verdict
    assert ("one image at a time" in verdict) == alone


def test_fp16_overflow(case: Case, tmp_path: Path) -> None:
    """A layer whose outputs fp32 holds and fp16 does not, computed in fp16."""

    def enlarge(network: Network) -> None:
        with torch.no_grad():
            next(module for module in network.stages.modules() if isinstance(module, nn.BatchNorm2d)).weight.mul_(1e6)

    model = changed_model(case, tmp_path / "large.safetensors", enlarge)
    classifier = Classifier(model, engine="torch")
    images = torch.from_numpy(RIGHT.tensors(case.pictures))
    with torch.inference_mode():
        logits = load_model(classifier.spec).half()(images.half()).float().numpy()
    assert not np.isfinite(logits).all()
    np.save(tmp_path / "b.npy", logits)
    found = compare(classifier, read_numbers(tmp_path / "b.npy"), case.pictures)
    assert "overflows in fp16: the outputs of stages." in found.verdict


def test_one_tensor_wrong(case: Case, tmp_path: Path) -> None:
    def spoil(network: Network) -> None:
        with torch.no_grad():
            network.get_parameter(name).flatten()[0] += 30

    name = [name for name, _ in case.network.named_parameters()][12]
    b = Classifier(changed_model(case, tmp_path / "b.safetensors", spoil), engine="torch")
    found = compare(case.classifier, b, case.pictures)
    assert found.verdict.startswith(f"B's tensor {name} is not A's")
    assert [step.note for step in found.steps if step.stage == "layers"] == [f"they part at {name.rpartition('.')[0]}"]


def test_two_equal_models(case: Case) -> None:
    found = compare(case.classifier, Classifier(case.model, engine="torch"), case.pictures)
    assert found.same
    assert found.largest == pytest.approx(0, abs=1e-5)


def test_other_names_of_classes(case: Case) -> None:
    found = compare(case.classifier, Classifier(case.model, engine="torch", labels=sorted(CLASSES)), case.pictures)
    assert "names its classes in another order" in found.verdict


def test_unknown_is_said(case: Case, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(len(case.pictures), len(CLASSES))).astype(np.float32)
    found = case.explain(noise, tmp_path / "b.npy")
    assert "no change that was tried explains it" in found.verdict
    assert not found.same
    assert not found.causes


def test_csv_and_npz(case: Case, tmp_path: Path) -> None:
    logits = case.logits()
    np.savez(tmp_path / "b.npz", logits=logits)
    lines = [",".join([path, *map(str, row)]) for path, row in zip(case.pictures, logits.tolist(), strict=True)]
    (tmp_path / "b.csv").write_text("\n".join(["image," + ",".join(CLASSES), *lines]))
    for name in ("b.npz", "b.csv"):
        assert compare(case.classifier, read_numbers(tmp_path / name), case.pictures).same


@pytest.mark.parametrize(("values", "words"), [(np.zeros((4, 12)), "4 rows for 3 images"), (np.zeros((3, 5)), "5 col")])
def test_numbers_that_do_not_fit(case: Case, tmp_path: Path, values: Array, words: str) -> None:
    with pytest.raises(DataError, match=words):
        case.explain(values, tmp_path / "b.npy")


@pytest.mark.parametrize("text", ["", "a,b\nc,d", "1,2\n3"])
def test_files_without_numbers(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(DataError, match=r"b\.csv"):
        read_numbers(tmp_path / "b.csv")


@pytest.mark.parametrize(("words", "program"), PREPARATIONS[:1])
def test_preparations_from_logits(case: Case, tmp_path: Path, words: str, program: Program) -> None:
    found = case.explain(case.logits(program), tmp_path / "b.npy")
    assert words in found.verdict
    assert len(found.causes) == 1


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("short side to 248 px, A to 256", {"resize_short": 248}),
        ("bilinear with antialias", {"backend": "pillow"}),
    ],
)
def test_two_models(case: Case, tmp_path: Path, words: str, fields: dict[str, object]) -> None:
    preset = replace(PRESET, **fields)  # pyright: ignore[reportArgumentType]
    b = Classifier(changed_model(case, tmp_path / "b.safetensors", lambda _: None, preset), engine="torch")
    found = compare(case.classifier, b, case.pictures)
    assert not found.same
    assert words in found.verdict
    assert found.causes[-1].left < 1e-4


def test_classes_in_another_order_that_both_know(case: Case, tmp_path: Path) -> None:
    """Outputs and names that are permuted alike say the same of an image."""
    columns = [*range(5, 12), *range(5)]
    network = load_model(case.classifier.spec)
    assert isinstance(network.classifier, nn.Linear)
    network.classifier.weight.data = network.classifier.weight.data[columns]
    network.classifier.bias.data = network.classifier.bias.data[columns]
    names = [CLASSES[column] for column in columns]
    path = save_checkpoint(network, tmp_path / "b.safetensors", class_names=names, preset=PRESET)
    found = compare(case.classifier, Classifier(path, engine="torch"), case.pictures)
    assert found.same
    assert not found.changed


def test_command(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    arguments = ["why-different", str(case.model), str(case.model), *case.pictures, "-o", str(report)]
    assert run(arguments) == 0
    assert "A and B are the same" in capsys.readouterr().out
    assert run([*arguments, "--set-b", "resize_short=248", "--set-b", "interpolation=bicubic"]) == 1
    assert "B resizes the short side to 248 px, A to 256 px" in capsys.readouterr().out.splitlines()[-1]
    assert [cause["stage"] for cause in json.loads(report.read_text())["causes"]] == ["resize", "resize"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [("resize_short", "key=value"), ("nosuch=1", "unknown setting"), ("resize_short=x", "is no number")],
)
def test_settings_that_are_none(case: Case, setting: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why-different", str(case.model), str(case.model), case.pictures[0], "--set-a", setting]) == 2
    assert words in capsys.readouterr().err


def test_several_classes_per_image(case: Case, tmp_path: Path) -> None:
    a = Classifier(case.model, engine="torch", activation="sigmoid")
    logits = case.logits()
    np.save(tmp_path / "b.npy", torch.from_numpy(logits).sigmoid().numpy())
    found = compare(a, read_numbers(tmp_path / "b.npy"), case.pictures)
    assert found.same
    assert not found.changed
    np.save(tmp_path / "b.npy", softmax(logits))
    found = compare(a, read_numbers(tmp_path / "b.npy"), case.pictures)
    assert "B applies softmax, A sigmoid" in found.verdict
    assert found.changed
    stricter = Classifier(case.model, engine="torch", activation="sigmoid", threshold=0.99)
    found = compare(a, stricter, case.pictures)
    assert found.verdict == "B has other thresholds than A"
    assert found.changed
