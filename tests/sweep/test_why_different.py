"""`why-different` finds each preparation from logits alone, and two changes at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import torchclas
from tests.foreign_program import PREPARATIONS, PRESET, RIGHT, Case, Program, changed_model, make_case
from torchclas.comparison.difference import compare
from torchclas.comparison.foreign_numbers import read_numbers
from torchclas.inference.classifier import Classifier

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Case:
    return make_case(tmp_path_factory.mktemp("why"), photographs)


@pytest.mark.parametrize(("words", "program"), PREPARATIONS)
def test_preparations_from_logits(case: Case, tmp_path: Path, words: str, program: Program) -> None:
    found = case.explain(case.logits(program), tmp_path / "b.npy")
    assert words in found.verdict
    assert len(found.causes) == 1


@pytest.mark.parametrize(("words", "program"), [*PREPARATIONS[2:4], *PREPARATIONS[5:]])
def test_preparations_from_tensors(case: Case, tmp_path: Path, words: str, program: Program) -> None:
    found = case.explain(program.tensors(case.pictures), tmp_path / "b.npy")
    assert words in found.verdict
    assert len(found.causes) == 1


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("short side to 248 px, A to 256", {"resize_short": 248}),
        ("bicubic without antialias", {"interpolation": "bicubic"}),
        ("bilinear with antialias", {"backend": "pillow"}),
        ("mean 0.5/0.5/0.5", {"mean": (0.5,) * 3}),
        ("by squeeze, A by crop", {"fit": "squeeze"}),
    ],
)
def test_two_models(case: Case, tmp_path: Path, words: str, fields: dict[str, object]) -> None:
    preset = replace(PRESET, **fields)  # pyright: ignore[reportArgumentType]
    b = Classifier(changed_model(case, tmp_path / "b.safetensors", lambda _: None, preset), engine="torch")
    found = compare(case.classifier, b, case.pictures)
    assert not found.same
    assert words in found.verdict
    assert found.causes[-1].left < 1e-4


def test_two_changes(case: Case, tmp_path: Path) -> None:
    program = replace(RIGHT, rgb=False, mean=(0.5,) * 3, std=(0.5,) * 3)
    causes = case.explain(program.tensors(case.pictures), tmp_path / "b.npy").causes
    assert {cause.stage for cause in causes} == {"colour", "normalisation"}


def test_a_graph_and_its_network(case: Case, tmp_path: Path) -> None:
    """What ONNX Runtime computes is within the tolerance, and a graph of other weights is not."""
    graph = torchclas.export(case.model, to="onnx", output=tmp_path / "model.onnx").path
    assert compare(case.classifier, Classifier(graph), case.pictures).same
    other = changed_model(case, tmp_path / "b.safetensors", lambda network: network.stages.apply(_perturb))
    graph = torchclas.export(other, to="onnx", output=tmp_path / "other.onnx").path
    found = compare(case.classifier, Classifier(graph), case.pictures)
    assert found.verdict.startswith("B's network gives other logits for A's input")


def _perturb(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm2d):
        module.weight.data += 0.1


def test_more_images_than_are_searched(case: Case, tmp_path: Path) -> None:
    """An image that cannot be read leaves out its row alone."""
    pictures = [*case.pictures, str(tmp_path / "none.jpg"), *case.pictures * 3]
    tensors = replace(RIGHT, rgb=False).tensors(case.pictures)
    np.save(tmp_path / "b.npy", np.concatenate([tensors, tensors[:1] * 0, *[tensors] * 3]))
    found = compare(case.classifier, read_numbers(tmp_path / "b.npy"), pictures)
    assert (found.images, found.unreadable) == (12, 1)
    assert "BGR, A gives it RGB" in found.verdict
