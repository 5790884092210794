"""The public API, pinned: a change here is a change for users."""

from __future__ import annotations

import inspect
import subprocess
import sys

import torchclas

SIGNATURES = {
    "list_models": "(pattern: 'str | None' = None, *, series: 'str | None' = None) -> 'list[str]'",
    "model_info": "(name: 'str') -> 'Entry'",
    "create_model": "(name: 'str', pretrained: 'bool' = False, *, weights: 'str | Path | None' = None, "
    "num_classes: 'int | None' = None, in_channels: 'int' = 3) -> 'Network'",
    "load_weights": "(model: 'nn.Module', path: 'str | Path', *, strict: 'bool' = True) -> 'LoadReport'",
    "preprocess_for": "(name_or_checkpoint: 'str | Path') -> 'Preprocess'",
    "Classifier": "(name_or_checkpoint: 'str | Path | None' = None, *, weights: 'str | Path | None' = None, "
    "device: 'str' = 'auto', batch_size: 'int' = 16, top_k: 'int' = 5, lang: 'Language' = 'en', "
    "workers: 'int | None' = None, engine: \"EngineName | Literal['auto']\" = 'auto', "
    "precision: 'Precision' = 'fp32', threads: 'int | None' = None, max_pixels: 'int' = 100000000) -> 'None'",
    "quantize": "(model: 'str | Path | None' = None, *, calibration: 'str | Path', "
    "weights: 'str | Path | None' = None, val: 'str | Path | None' = None, "
    "max_drop: 'float | None' = None, images: 'int' = 300, output: 'str | Path | None' = None) -> 'QuantizationReport'",
    "Prediction": "(source: 'str', status: \"Literal['ok', 'error']\", labels: 'tuple[str, ...]' = (), "
    "scores: 'tuple[float, ...]' = (), class_ids: 'tuple[str, ...]' = (), error: 'str | None' = None, "
    "engine: 'str | None' = None) -> None",
}


def test_names() -> None:
    assert set(torchclas.__all__) == {*SIGNATURES, "Entry", "Error", "LoadReport", "QuantizationReport", "__version__"}
    assert all(hasattr(torchclas, name) for name in torchclas.__all__)


def test_signatures() -> None:
    assert {name: str(inspect.signature(getattr(torchclas, name))) for name in SIGNATURES} == SIGNATURES


def test_listing_models_imports_no_torch() -> None:
    code = "import sys, torchclas; assert len(torchclas.list_models()) == 219; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
