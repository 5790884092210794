"""Rename rules."""

from __future__ import annotations

import pytest

from torchclas.weights.renames import PublishedName, published_names

NAMES = (
    "stem.weight",
    "stages.0.0.weight",
    "stages.0.1.weight",
    "stages.1.1.weight",  # stages.1.0 is a pooling, so it has no name here
    "neck.bn.running_mean",
    "classifier.weight",
)


@pytest.mark.parametrize(
    ("ours", "rule", "published"),
    [
        ("stem.weight", ("stem", "conv1"), "conv1.weight"),
        ("stem.weight", ("ste", "conv1"), "stem.weight"),
        ("stages.0.1.weight", ("stages.{s}.{b}", "res{s+2}{b:letter}"), "res2b.weight"),
        ("stages.0.1.weight", ("stages.{s}.{b}", "blocks.{n}"), "blocks.1.weight"),
        ("stages.1.1.weight", ("stages.{s}.{b}", "blocks.{n+3}"), "blocks.6.weight"),
        ("stages.1.1.weight", ("stages.0.{b}", "blocks.{b}"), "stages.1.1.weight"),
        ("neck.bn.running_mean", ("neck", "blocks.{n}"), "blocks.4.bn._mean"),
    ],
)
def test_rule(ours: str, rule: tuple[str, str], published: str) -> None:
    assert published_names(NAMES, [rule])[ours] == PublishedName(published)


def test_rules_apply_one_after_the_other_and_say_where_the_kind_of_layer_differs() -> None:
    rules = [("stages.0.{b}", "features.{b}"), ("features.1", "head", "linear"), ("classifier", "output.1", "conv")]
    names = published_names(NAMES, rules)
    assert names["stages.0.0.weight"] == PublishedName("features.0.weight")
    assert names["stages.0.1.weight"] == PublishedName("head.weight", linear=True)
    assert names["classifier.weight"] == PublishedName("output.1.weight", conv=True)


def test_torch_files_keep_torch_s_names_of_statistics() -> None:
    assert published_names(["bn.running_mean"], [], paddle=False)["bn.running_mean"].name == "bn.running_mean"
