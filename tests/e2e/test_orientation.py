"""The page-orientation model, converted from its ONNX file, computes what that file does, and is right about pages."""

from collections.abc import Iterator
from importlib.metadata import distribution
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from torchclas import catalog
from torchclas.data.loader import Batch, load
from torchclas.data.sample_pages import ROTATIONS, render_page, turned
from torchclas.inference.classifier import Classifier

NAME = "PPLCNet_x1_0_text_orientation"
PAGES = 50


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHCLAS_CACHE", str(tmp_path_factory.mktemp("cache")))  # convert afresh
        yield Classifier(NAME, device="cpu", batch_size=10, workers=1)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pages(classifier: Classifier) -> Batch:
    """float32 [50, 3, 224, 224]: pages turned by each of the rotations, one after the other."""
    turned_pages = (turned(render_page(seed), ROTATIONS[seed % 4]) for seed in range(PAGES))
    return next(load(turned_pages, classifier.preprocess, batch_size=PAGES, workers=0))


@pytest.fixture(scope="module")
def probabilities(classifier: Classifier, pages: Batch) -> NDArray[Any]:
    return classifier.probabilities(pages)


def test_probabilities_are_those_of_its_own_onnx(probabilities: NDArray[Any], pages: Batch) -> None:
    weights = catalog.find(NAME).weights
    assert weights is not None
    assert weights.package is not None
    assert weights.path is not None
    package = weights.package.partition("==")[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = distribution(package).locate_file(weights.path)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected: Any
    (expected,) = session.run(None, {session.get_inputs()[0].name: pages.images})

    assert expected.shape == probabilities.shape == (PAGES, 4)
    np.testing.assert_allclose(expected.sum(1), 1, atol=1e-5)  # its output is softmaxed
    np.testing.assert_allclose(probabilities, expected, atol=1e-5, rtol=0)
    assert np.ptp(expected, axis=0).min() > 0.5  # every class is both likely and unlikely somewhere


def test_rendered_pages_are_recognised(probabilities: NDArray[Any]) -> None:
    right = probabilities.argmax(1) == np.arange(PAGES) % 4
    assert right.mean() >= 0.95


def test_the_classes_are_clockwise_degrees(classifier: Classifier) -> None:
    page = render_page(0)
    (prediction,) = classifier.predict(page.transpose(Image.Transpose.ROTATE_270))
    assert prediction.class_ids[0] == "90"  # Pillow counts the other way round
