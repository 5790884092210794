"""Preprocessing against values that the reference implementation computed."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchclas.catalog import Backend, Preset
from torchclas.data.preprocess import OVERSAMPLED, Preprocess
from torchclas.errors import DataError

GOLDEN = Path(__file__).parents[1] / "data" / "preprocess"
CASES = json.loads((GOLDEN / "preprocess.json").read_text())

OPENCV = Preset(256, (224, 224), "bilinear", "opencv", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PILLOW = Preset(256, (224, 224), "bicubic", "pillow", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def preset(spec: Any) -> Preset:
    backend: Backend = "pillow" if spec.get("backend") == "pil" else "opencv"
    interpolation = spec.get("interpolation", "bilinear")
    return Preset(
        spec["resize_short"],
        (spec["crop"], spec["crop"]),
        interpolation,
        backend,
        tuple(spec["mean"]),
        tuple(spec["std"]),
    )


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: f"{case['image']}-{case['spec']}")
def test_equals_the_reference(case: dict[str, Any]) -> None:
    array = Preprocess(preset(CASES["specs"][case["spec"]])).array(GOLDEN / "images" / case["image"])
    assert list(array.shape) == case["shape"]
    assert array.dtype == np.float32
    sample = np.sort(np.random.default_rng(0).choice(array.size, 96, replace=False))
    # The stored values have six decimals; one intensity step is 0.017, so this leaves no room for another rounding.
    np.testing.assert_allclose(array.ravel()[sample], case["values"], rtol=0, atol=1e-6)
    assert array.mean(dtype=np.float64) == pytest.approx(case["mean"], abs=1e-9)
    assert array.std(dtype=np.float64) == pytest.approx(case["std"], abs=1e-9)


def test_tensor_equals_array() -> None:
    preprocess = Preprocess(OPENCV)
    tensor = preprocess(GOLDEN / "images" / "cat.jpg")
    assert tuple(tensor.shape) == preprocess.shape == (3, 224, 224)
    np.testing.assert_array_equal(tensor.numpy(), preprocess.array(GOLDEN / "images" / "cat.jpg"))


@pytest.mark.parametrize("name", ["cat.jpg", "exif_orientation_6.jpg", "rgba.png", "sixteen_bit.png", "palette.png"])
def test_path_bytes_and_pillow_image_agree(name: str) -> None:
    path = GOLDEN / "images" / name
    preprocess = Preprocess(OPENCV)
    expected = preprocess.array(path)
    np.testing.assert_array_equal(preprocess.array(str(path)), expected)
    np.testing.assert_array_equal(preprocess.array(path.read_bytes()), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(preprocess.array(image), expected)


@pytest.mark.parametrize("preset", [OPENCV, PILLOW], ids=lambda preset: preset.backend)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (60_000, 1), (1, 60_000), (3, 2), (1, 16), (17, 1)])
def test_any_size_of_constant_color(preset: Preset, size: tuple[int, int]) -> None:
    array = Preprocess(preset).array(np.full((*size, 3), (255, 0, 128), np.uint8))
    expected = (np.array([1, 0, 128 / 255]) - preset.mean) / preset.std
    np.testing.assert_allclose(array, np.broadcast_to(expected[:, None, None], (3, 224, 224)), atol=1e-5)


@pytest.mark.parametrize("preset", [OPENCV, PILLOW], ids=lambda preset: preset.backend)
def test_strip_shows_its_middle(preset: Preset) -> None:
    strip = np.zeros((4, 400, 3), np.uint8)
    strip[:, 190:210] = 255  # the crop sees 3.5 source pixels around the centre
    array = Preprocess(preset).array(strip)
    np.testing.assert_allclose(array[0], (1 - preset.mean[0]) / preset.std[0], atol=1e-5)


def test_fast_decode_is_for_large_jpeg_files_alone() -> None:
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))

    def differ(size: tuple[int, int], kind: str) -> float:
        file = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(file, kind)
        exact, fast = (Preprocess(PILLOW, fast_decode=fast).array(file.getvalue()) for fast in (False, True))
        return float(np.abs(exact - fast).mean())

    enough = OVERSAMPLED * 256
    assert differ((4 * enough, 2 * enough - 1), "JPEG") == 0
    assert 0 < differ((4 * enough, 2 * enough), "JPEG") < 0.05
    assert differ((4 * enough, 2 * enough), "PNG") == 0


def test_equality_and_repr() -> None:
    assert Preprocess(OPENCV) == Preprocess(Preset(256, (224, 224), "bilinear", "opencv", OPENCV.mean, OPENCV.std))
    assert Preprocess(OPENCV) != Preprocess(PILLOW)
    assert len({Preprocess(OPENCV), Preprocess(OPENCV), Preprocess(PILLOW)}) == 2
    assert "bicubic" in repr(Preprocess(PILLOW))


def test_crop_larger_than_resize_is_refused() -> None:
    with pytest.raises(DataError, match="resize_short must be at least that"):
        Preprocess(Preset(224, (256, 256), "bilinear", "opencv", OPENCV.mean, OPENCV.std))


def test_arrays_need_no_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from torchclas.catalog import Backend, Preset\n"
        "from torchclas.data.loader import load\n"
        "from torchclas.data.preprocess import OVERSAMPLED, Preprocess\n"
        "preprocess = Preprocess(Preset(8, (8, 8), 'bilinear', 'opencv', (0, 0, 0), (1, 1, 1)))\n"
        "[batch] = load([np.zeros((9, 9, 3), np.uint8)], preprocess, batch_size=2, workers=1)\n"
        "assert batch.images.shape == (1, 3, 8, 8)\n"
        "print('torch' in sys.modules, 'requests' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "False False"
