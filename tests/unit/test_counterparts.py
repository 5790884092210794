"""Habits from timm, torchvision and PaddleClas: honoured, or answered with the word that is used here."""

from __future__ import annotations

from typing import Any

import pytest

import torchclas
from torchclas.catalog import find
from torchclas.counterparts import _ARGUMENTS, _ATTRIBUTES  # pyright: ignore[reportPrivateUsage]
from torchclas.engines.engine import engine_named
from torchclas.errors import CheckpointError, Error, UnknownArgumentError, UnknownNameError

create: Any = torchclas.create_model  # as callers who have no type checker


@pytest.mark.parametrize(
    ("argument", "counterpart"),
    [
        ("features_only", "model.features(images)"),
        ("out_indices", "torchclas.create_backbone"),
        ("in_chans", "in_channels"),
        ("drop_path_rate", "--set drop_path"),
        ("drop_rate", "--set dropout"),
        ("global_pool", "num_classes=0"),
        ("checkpoint_path", "weights=FILE"),
        ("img_size", "set_input_size"),
        ("class_num", "num_classes"),
        ("use_ssld", "_ssld"),
        ("num_clases", "did you mean num_classes"),
        ("zzz", "help(torchclas.create_model)"),
    ],
)
def test_arguments_of_create_model(argument: str, counterpart: str) -> None:
    with pytest.raises(UnknownArgumentError) as raised:
        create("ResNet18", **{argument: 1})
    assert f"create_model() has no argument '{argument}'" in str(raised.value)
    assert counterpart in str(raised.value)
    assert isinstance(raised.value, TypeError)
    assert isinstance(raised.value, Error)


@pytest.mark.parametrize("function", ["create_backbone", "list_models", "Classifier", "train"])
def test_arguments_of_others(function: str) -> None:
    model = ("ResNet18",) if function == "create_backbone" else ()
    for name in _ARGUMENTS[function]:
        with pytest.raises(UnknownArgumentError, match=f"has no argument '{name}'"):
            getattr(torchclas, function)(*model, **{name: 1})


def test_no_counterpart_is_an_argument_that_exists() -> None:
    """Else it would be refused although it is meant."""
    import inspect

    for function, words in _ARGUMENTS.items():
        assert not words.keys() & inspect.signature(getattr(torchclas, function)).parameters.keys()
    for word, counterpart in _ATTRIBUTES.items():
        assert not hasattr(torchclas, word)
        assert hasattr(torchclas, counterpart.partition("(")[0])
    with pytest.raises(AttributeError, match=r"here it is torchclas\.create_model"):
        _ = torchclas.get_model  # pyright: ignore[reportAttributeAccessIssue]


def test_pretrained_is_no_file() -> None:
    with pytest.raises(CheckpointError, match="weights=FILE"):
        create("ResNet18", pretrained="mine.pth")


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT"])
def test_torchvisions_weights(weights: str) -> None:
    with pytest.raises(CheckpointError, match="pretrained=True"):
        create("ResNet18", weights=weights)


def test_models_with_published_weights() -> None:
    names = torchclas.list_models(pretrained=True)
    assert names
    assert set(names) < set(torchclas.list_models())
    assert all(find(name).weights is not None for name in names)


def test_preprocessing_of_a_network() -> None:
    model = torchclas.create_model("EfficientNet_lite0")
    assert torchclas.preprocess_for(model) == torchclas.preprocess_for("EfficientNet_lite0")


@pytest.mark.parametrize(("word", "engine"), [("onnx", "onnxruntime"), ("ORT", "onnxruntime"), ("torch", "torch")])
def test_engines_by_other_names(word: str, engine: str) -> None:
    assert engine_named(word) == engine


def test_engines_and_precisions_that_do_not_exist() -> None:
    classifier: Any = torchclas.Classifier
    with pytest.raises(UnknownNameError, match="choose from auto, torch"):
        classifier("EfficientNet_lite0", engine="tensorrt")
    with pytest.raises(UnknownNameError, match="unknown precision 'fp8'"):
        classifier("EfficientNet_lite0", engine="torch", precision="fp8")
