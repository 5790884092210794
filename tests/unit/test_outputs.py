"""Logits, embeddings, or both in one run: from networks, engines, exports, quantized graphs and `Classifier`."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import torchclas
from torchclas import Classifier, models
from torchclas.catalog import find
from torchclas.errors import Error
from torchclas.vocabulary import OUTPUTS, EngineName
from torchclas.weights.metadata import Metadata

pytestmark = pytest.mark.usefixtures("one_thread")
ENGINES: list[EngineName] = ["torch", "onnxruntime", "openvino"]
# A plain one, one with a layer between pooling and classifier, one whose classifier is a convolution, tokens of a
# class, of a class and a teacher, and pooled tokens.
KINDS = [
    "PPLCNet_x0_25",
    "MobileNetV3_small_x0_35",
    "SqueezeNet1_1",
    "ViT_small_patch16_224",
    "DeiT_tiny_distilled_patch16_224",
    "LeViT_128S",
]


def relative(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("arch", KINDS)
def test_an_embedding_is_the_vector_before_the_classifier(arch: str) -> None:
    torch.manual_seed(0)
    network = models.build(arch, num_classes=4).eval()
    side = network.input_size[0] if network.input_size else 64
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        logits, embedding = network.outputs(images, OUTPUTS)
        last = network.forward_features(images)
        torch.testing.assert_close(logits, network(images), rtol=0, atol=0)
        torch.testing.assert_close(embedding, network.forward_head(last, pre_logits=True), rtol=0, atol=0)
        assert embedding.shape == (2, network.num_features)
        torch.testing.assert_close(network.outputs(images, ("embedding",))[0], embedding, rtol=0, atol=0)
        if not arch.endswith("distilled_patch16_224") and arch != "SqueezeNet1_1":
            torch.testing.assert_close(network.classifier(embedding), logits)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = models.build("PPLCNet_x0_25", num_classes=3).train()
    with torch.no_grad():
        for _ in range(10):
            network(torch.randn(8, 3, 64, 64))
    path = tmp_path_factory.mktemp("outputs") / "three.safetensors"
    preset = find("PPLCNet_x0_25").preset.at(64)
    torchclas.save_checkpoint(network.eval(), path, class_names=["a", "b", "c"], preset=preset)
    return path


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 3, 64, 64)).astype(np.float32)


def test_a_classifier_embeds(checkpoint: Path, photographs: Path) -> None:
    sources = [photographs / "chelsea.png", Path("missing.jpg"), photographs / "coffee.png"]
    classifier = Classifier(checkpoint, workers=0, engine="torch")
    rows = list(classifier.embed(sources))
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert "no such file" in str(rows[1].error)
    first = rows[0].vector
    assert first is not None
    assert first.shape == (torchclas.create_model(checkpoint).num_features,)
    assert first.dtype == np.float32
    (again,) = classifier.embed(sources[0])
    assert again.vector is not None
    assert relative(again.vector, first) <= 1e-5

    both = pickle.loads(pickle.dumps(Classifier(checkpoint, workers=0, engine="torch", outputs=OUTPUTS)))
    assert both.engine.outputs == OUTPUTS
    assert both.engine_for("embedding") is both.engine
    (same,) = both.embed(sources[0])
    assert relative(same.vector, first) <= 1e-4
    assert next(both.predict(sources[0])).labels == next(classifier.predict(sources[0])).labels
    vectors = Classifier(checkpoint, workers=0, engine="torch", outputs=["embedding"])
    assert next(vectors.predict(sources[0])).labels == next(classifier.predict(sources[0])).labels


def test_metadata_says_what_a_graph_gives() -> None:
    metadata = Metadata("ResNet18", 1000, find("ResNet18").preset)
    assert Metadata.from_json(metadata.to_json()).outputs == ("logits",)
    both = replace(metadata, outputs=OUTPUTS)
    assert Metadata.from_json(both.to_json()) == both
    for wrong in ('["logits","features"]', "[]", '"logits"', "3", '["logits","logits"]'):
        with pytest.raises(Error, match="outputs"):
            Metadata.from_json(both.to_json().replace('["logits", "embedding"]', wrong))
