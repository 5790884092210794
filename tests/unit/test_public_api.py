"""The public API, pinned: a change here is a change for users."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields

import torchclas
from torchclas.training.options import TrainOptions

SIGNATURES = {
    "list_models": "(pattern: 'str | None' = None, *, series: 'str | None' = None, pretrained: 'bool' = False, "
    "**others: 'Never') -> 'list[str]'",
    "model_info": "(name: 'str') -> 'Entry'",
    "create_model": "(name: 'str | Path', pretrained: 'bool' = False, *, weights: 'str | Path | None' = None, "
    "num_classes: 'int | None' = None, in_channels: 'int | None' = None, **others: 'Never') -> 'Network'",
    "create_backbone": "(name: 'str | Path', *, out_indices: 'Sequence[SupportsIndex] | None' = None, "
    "pretrained: 'bool' = False, weights: 'str | Path | None' = None, in_channels: 'int | None' = None, "
    "**others: 'Never') -> 'Backbone'",
    "load_weights": "(model: 'nn.Module', path: 'str | Path', *, strict: 'bool' = True) -> 'LoadReport'",
    "save_checkpoint": "(model: 'nn.Module', path: 'str | Path', *, class_names: 'Sequence[str] | None' = None, "
    "class_ids: 'Sequence[str] | None' = None, preset: 'Preset | Preprocess | None' = None, name: 'str' = '', "
    "origin: 'Mapping[str, object] | None' = None) -> 'Path'",
    "preprocess_for": "(model: 'str | Path | Network') -> 'Preprocess'",
    "Classifier": "(name_or_checkpoint: 'str | Path | None' = None, *, weights: 'str | Path | None' = None, "
    "device: 'str' = 'auto', batch_size: 'int' = 16, top_k: 'int | None' = None, threshold: 'float | None' = None, "
    "lang: 'Language' = 'en', "
    "workers: 'int | None' = None, engine: 'EngineChoice' = 'auto', "
    "precision: 'Precision' = 'fp32', threads: 'int | None' = None, max_pixels: 'int' = 100000000, "
    "labels: 'str | Path | Sequence[str] | None' = None, preset: 'Preset | None' = None, "
    "activation: 'Activation | None' = None, "
    "outputs: 'Sequence[Output] | None' = ('logits',), tta: 'TestTimeAugmentation | None' = None, "
    "fast_decode: 'bool' = False, **others: 'Never') -> 'None'",
    "Embedder": "(name_or_checkpoint: 'str | Path | None' = None, *, weights: 'str | Path | None' = None, "
    "device: 'str' = 'auto', batch_size: 'int' = 16, workers: 'int | None' = None, engine: 'EngineChoice' = 'auto', "
    "precision: 'Precision' = 'fp32', threads: 'int | None' = None, max_pixels: 'int' = 100000000, "
    "preset: 'Preset | None' = None, tta: 'TestTimeAugmentation | None' = None, fast_decode: 'bool' = False, "
    "normalize: 'bool' = False, "
    "dtype: 'VectorType' = 'fp32', **others: 'Never') -> 'None'",
    "evaluate": "(data: 'str | Path', *, model: 'str | Path | None' = None, weights: 'str | Path | None' = None, "
    "labels: 'str | Path | Sequence[str] | None' = None, delimiter: 'str' = ' ', root: 'str | Path | None' = None, "
    "relabel: 'bool' = False, preset: 'Preset | None' = None, activation: 'Activation | None' = None, "
    "tta: 'TestTimeAugmentation | None' = None, fast_decode: 'bool' = False, classes: 'str | Path | None' = None, "
    "real: 'str | Path | None' = None, max_fpr: 'float' = 0.001, batch_size: 'int' = 32, "
    "workers: 'int | None' = None, device: 'str' = 'auto', "
    "engine: 'EngineChoice' = 'auto', precision: 'Precision' = 'fp32', "
    "threads: 'int | None' = None, max_pixels: 'int' = 100000000, "
    "output: 'str | Path | None' = None, explain: 'bool' = False) -> 'EvaluationReport'",
    "Explainer": "(name_or_checkpoint: 'str | Path | None' = None, *, weights: 'str | Path | None' = None, "
    "device: 'str' = 'auto', lang: 'Language' = 'en', max_pixels: 'int' = 100000000, "
    "labels: 'str | Path | Sequence[str] | None' = None, preset: 'Preset | None' = None, "
    "activation: 'Activation | None' = None) -> 'None'",
    "Searcher": "(gallery: 'Gallery | str | Path', embedder: 'Embedder | None' = None, *, exact: 'bool' = False) "
    "-> 'None'",
    "export": "(model: 'str | Path | None' = None, *, to: 'ExportFormat', weights: 'str | Path | None' = None, "
    "labels: 'str | Path | Sequence[str] | None' = None, preset: 'Preset | None' = None, "
    "activation: 'Activation | None' = None, "
    "output: 'str | Path | None' = None, batch: 'int | None' = None, "
    "input: 'ExportInput' = 'float32', size: 'int | Size | None' = None, "
    "outputs: 'Sequence[Output]' = ('logits',), runtime: 'str | Path | None' = None, "
    "precision: 'ExportPrecision' = 'fp32', opset: 'int | None' = None) -> 'Exported'",
    "quantize": "(model: 'str | Path | None' = None, *, calibration: 'str | Path', "
    "weights: 'str | Path | None' = None, val: 'str | Path | None' = None, "
    "labels: 'str | Path | Sequence[str] | None' = None, root: 'str | Path | None' = None, delimiter: 'str' = ' ', "
    "max_drop: 'float | None' = None, images: 'int' = 300, "
    "output: 'str | Path | None' = None) -> 'QuantizationReport'",
    "Prediction": "(source: 'str', status: \"Literal['ok', 'error']\", labels: 'tuple[str, ...]' = (), "
    "scores: 'tuple[float, ...]' = (), class_ids: 'tuple[str, ...]' = (), error: 'str | None' = None, "
    "engine: 'str | None' = None) -> None",
}
OTHERS = {
    "Backbone", "Embedding", "Entry", "Error", "EvaluationReport", "Explanation", "Exported", "Gallery", "HeatMap",
    "LoadReport", "Match", "Preset", "QuantizationReport", "TrainingSummary", "__version__", "train",
}  # fmt: skip


def test_names() -> None:
    assert set(torchclas.__all__) == {*SIGNATURES, *OTHERS}
    assert all(hasattr(torchclas, name) for name in torchclas.__all__)


def test_signatures() -> None:
    assert {name: str(inspect.signature(getattr(torchclas, name))) for name in SIGNATURES} == SIGNATURES


def test_train_takes_what_the_command_takes() -> None:
    parameters = inspect.signature(torchclas.train).parameters
    assert list(parameters) == [field.name for field in fields(TrainOptions)]
    assert parameters["data"].default is None, "a configuration of PaddleClas names the images as well"


def test_everything_public_says_what_it_is_for() -> None:
    for name in torchclas.__all__:
        member = getattr(torchclas, name)
        assert name == "__version__" or inspect.getdoc(member), name


def test_functions_are_not_hidden_by_packages_of_their_name() -> None:
    code = """
import pkgutil, torchclas
names = {module.name for module in pkgutil.iter_modules(torchclas.__path__)}
assert not names & set(torchclas.__all__), names & set(torchclas.__all__)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listing_models_imports_no_torch() -> None:
    code = "import sys, torchclas; assert len(torchclas.list_models()) == 219; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
