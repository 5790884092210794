"""Whatever stands in a configuration of PaddleClas, it is followed, accounted for, or refused with one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.paddleclas_configs import config, transformer
from torchclas.bridges.paddleclas import open_project
from torchclas.bridges.paddleclas.comparison import differences, recipe_here
from torchclas.bridges.paddleclas.running import class_names
from torchclas.errors import Error
from torchclas.labels import label_set
from torchclas.tasks.migrate import migrate

CONFIGS = [
    config(AMP={"use_amp": True, "level": "O2"}, EMA={"decay": 0.99}),
    config("GoogLeNet", Optimizer__lr={"name": "Cosine", "learning_rate": 0.1, "eta_min": 0.0, "warmup_epoch": 5}),
    config(
        "MobileNetV3_small_x0_35", Optimizer__lr={"name": "Step", "learning_rate": 0.1, "step_size": 2.4, "gamma": 0.9}
    ),
    transformer("SwinTransformer_tiny_patch4_window7_224"),
]
ODD: list[Any] = [
    None, "", "x", "/", "..", "a\0b", "é" * 300, True, False, 0, 1, -1, 7, 0.5, 1e308, -1e-308, "nan",
    "inf", "1e999", "1/0", "1.0/255.0", 10**30, [], [1], [1, 2], [[1, 2], 3], ["a", "b"], {}, {"a": 1}, {"name": "x"},
    [{}], [{"a": None}],
    [{"CELoss": None}], [{"RandCropImage": {"size": 0}}], {"Train": None}, "http://x/y", "ResNet50", "Cosine",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


PLACES = [list(places(content)) for content in CONFIGS]


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    number = draw(st.integers(0, len(CONFIGS) - 1))
    content = copy.deepcopy(CONFIGS[number])
    for *path, last in draw(st.lists(st.sampled_from(PLACES[number]), min_size=1, max_size=3)):
        place: Any = content
        try:
            for key in path:
                place = place[key]
            if draw(st.booleans()):
                place[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
            elif isinstance(place, dict):
                place[draw(st.sampled_from(["name", "size", "other"]))] = place.pop(last)
            else:
                del place[last]
        except (KeyError, IndexError, TypeError):
            continue  # what an earlier change took away
    return content


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=damaged())
def test_any_configuration(content: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        project = open_project(path)
    except Error as error:
        said = str(error)
        assert len(said) < 1000
        return
    assert all(each.key and each.why for each in project.findings)
    if project.recipe is not None:
        assert type(project.recipe).from_toml(project.recipe.to_toml()) == project.recipe
        if (ours := recipe_here(project.recipe)) is not None:
            differences(project.recipe, ours)
    if project.network is not None and (project.network.classes or 0) < 10_000:
        class_names(project, project.network.classes, label_set("imagenet1k"))
    json.dumps(migrate(path).to_dict())


@pytest.mark.parametrize(
    "key", ["a", "Arch", "Arch.name", "Arch..name", "DataLoader.Train.dataset.transform_ops.-1", "é.é"]
)
@pytest.mark.parametrize("value", ["", "=", "[", "[1, 2", "{'a': 1}", "__import__('os')", "9" * 5000, "(" * 5000])
def test_any_override(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(CONFIGS[0]), encoding="utf-8")
    try:
        open_project(path, [f"{key}={value}"])
    except Error as error:
        said = str(error)
        assert "\n" not in said
