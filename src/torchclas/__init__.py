"""The ImageNet model zoo of PaddleClas in PyTorch: architectures, published weights, and the tools around them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from torchclas.counterparts import attribute
from torchclas.errors import Error
from torchclas.version import __version__
from torchclas.weights import cache

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torchclas.backbone import Backbone, create_backbone
    from torchclas.catalog import Entry, Preset
    from torchclas.catalog import find as model_info
    from torchclas.catalog import names as list_models
    from torchclas.explanation.explainer import Explainer
    from torchclas.explanation.heat_map import Explanation, HeatMap
    from torchclas.inference.classifier import Classifier, Embedding, Prediction
    from torchclas.inference.embedder import Embedder
    from torchclas.inference.evaluation import EvaluationReport
    from torchclas.quantization.report import QuantizationReport
    from torchclas.retrieval.gallery import Gallery
    from torchclas.retrieval.searcher import Match, Searcher
    from torchclas.spec import preprocess_for
    from torchclas.tasks.evaluate import evaluate
    from torchclas.tasks.export import Exported, export
    from torchclas.tasks.quantize import quantize
    from torchclas.tasks.train import train_by_options as train
    from torchclas.training.launch import Summary as TrainingSummary
    from torchclas.weights.load import LoadReport, load_weights
    from torchclas.zoo import create_model, save_checkpoint

__all__ = [
    "Backbone",
    "Classifier",
    "Embedder",
    "Embedding",
    "Entry",
    "Error",
    "EvaluationReport",
    "Explainer",
    "Explanation",
    "Exported",
    "Gallery",
    "HeatMap",
    "LoadReport",
    "Match",
    "Prediction",
    "Preset",
    "QuantizationReport",
    "Searcher",
    "TrainingSummary",
    "__version__",
    "create_backbone",
    "create_model",
    "evaluate",
    "export",
    "list_models",
    "load_weights",
    "model_info",
    "preprocess_for",
    "quantize",
    "save_checkpoint",
    "train",
]

# Imported at first use: listing models must not take the seconds that importing torch does.
_HOMES = {
    "Backbone": ("torchclas.backbone", "Backbone"),
    "Classifier": ("torchclas.inference.classifier", "Classifier"),
    "Embedder": ("torchclas.inference.embedder", "Embedder"),
    "Embedding": ("torchclas.inference.classifier", "Embedding"),
    "Entry": ("torchclas.catalog", "Entry"),
    "EvaluationReport": ("torchclas.inference.evaluation", "EvaluationReport"),
    "Explainer": ("torchclas.explanation.explainer", "Explainer"),
    "Explanation": ("torchclas.explanation.heat_map", "Explanation"),
    "Exported": ("torchclas.tasks.export", "Exported"),
    "Gallery": ("torchclas.retrieval.gallery", "Gallery"),
    "HeatMap": ("torchclas.explanation.heat_map", "HeatMap"),
    "LoadReport": ("torchclas.weights.load", "LoadReport"),
    "Match": ("torchclas.retrieval.searcher", "Match"),
    "Prediction": ("torchclas.inference.classifier", "Prediction"),
    "Preset": ("torchclas.catalog", "Preset"),
    "QuantizationReport": ("torchclas.quantization.report", "QuantizationReport"),
    "Searcher": ("torchclas.retrieval.searcher", "Searcher"),
    "TrainingSummary": ("torchclas.training.launch", "Summary"),
    "create_backbone": ("torchclas.backbone", "create_backbone"),
    "create_model": ("torchclas.zoo", "create_model"),
    "evaluate": ("torchclas.tasks.evaluate", "evaluate"),
    "export": ("torchclas.tasks.export", "export"),
    "list_models": ("torchclas.catalog", "names"),
    "load_weights": ("torchclas.weights.load", "load_weights"),
    "model_info": ("torchclas.catalog", "find"),
    "preprocess_for": ("torchclas.spec", "preprocess_for"),
    "quantize": ("torchclas.tasks.quantize", "quantize"),
    "save_checkpoint": ("torchclas.zoo", "save_checkpoint"),
    "train": ("torchclas.tasks.train", "train_by_options"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'torchclas' has no attribute {name!r}{attribute(name)}")
    module, member = _HOMES[name]
    return getattr(import_module(module), member)


def _show_download(name: str) -> AbstractContextManager[cache.BytesDone]:
    from torchclas.reporting.progress import downloading

    return downloading(name)


cache.show_download = _show_download  # here, as what draws stands far above what fetches


def __dir__() -> list[str]:
    return __all__
