"""The ImageNet model zoo of PaddleClas in PyTorch: architectures, published weights, and the tools around them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torchclas.errors import Error
from torchclas.version import __version__

if TYPE_CHECKING:
    from torchclas.catalog import Entry
    from torchclas.catalog import find as model_info
    from torchclas.catalog import names as list_models
    from torchclas.inference.classifier import Classifier, Prediction
    from torchclas.spec import preprocess_for
    from torchclas.tasks.quantize import QuantizationReport, quantize
    from torchclas.weights.load import LoadReport, load_weights
    from torchclas.zoo import create_model

__all__ = [
    "Classifier",
    "Entry",
    "Error",
    "LoadReport",
    "Prediction",
    "QuantizationReport",
    "__version__",
    "create_model",
    "list_models",
    "load_weights",
    "model_info",
    "preprocess_for",
    "quantize",
]

# Imported at first use: listing models must not take the seconds that importing torch does.
_HOMES = {
    "Classifier": ("torchclas.inference.classifier", "Classifier"),
    "Entry": ("torchclas.catalog", "Entry"),
    "LoadReport": ("torchclas.weights.load", "LoadReport"),
    "Prediction": ("torchclas.inference.classifier", "Prediction"),
    "QuantizationReport": ("torchclas.tasks.quantize", "QuantizationReport"),
    "create_model": ("torchclas.zoo", "create_model"),
    "list_models": ("torchclas.catalog", "names"),
    "load_weights": ("torchclas.weights.load", "load_weights"),
    "model_info": ("torchclas.catalog", "find"),
    "preprocess_for": ("torchclas.spec", "preprocess_for"),
    "quantize": ("torchclas.tasks.quantize", "quantize"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'torchclas' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
