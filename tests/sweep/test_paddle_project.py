"""A project of PaddleClas beside PaddlePaddle: the same images, logits and answers, there and back.

Runs where `make peers` was, or with the Python of another environment in PADDLE_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import torchclas
from tests.paddleclas_configs import DECODE, FLIP, NORMALIZE, PILLOW, config, write
from tests.parity.golden import relative_error
from torchclas.bridges.paddleclas import open_project
from torchclas.cli import run
from torchclas.data.preprocess import Preprocess
from torchclas.inference.classifier import Classifier

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("PADDLE_PYTHON", ROOT / "benchmarks/.peers/paddle/bin/python"))
TOLERANCE = 1e-4  # of the largest logit, in float32
SHARE = 1e-3  # of the pixels of images that Pillow resized, in versions that round another way …
LEVEL = 1.1 / 255 / 0.224  # … by one level
ARCHITECTURES = ("PPLCNet_x0_25", "ResNet18_vd", "MobileNetV3_small_x0_35")
HERE = ["--device", "cpu", "--workers", "0"]

CROP = [DECODE, {"ResizeImage": {"resize_short": 72}}, {"CropImage": {"size": 64}}, NORMALIZE]
LEVELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
PREPARED = {
    "cropped": CROP,
    "cropped by Pillow": [DECODE, {"ResizeImage": {"resize_short": 72, **PILLOW}}, *CROP[2:]],
    "squeezed to [3, 80, 160]": [DECODE, {"ResizeImage": {"size": [160, 80]}}, NORMALIZE],
    "squeezed by Pillow": [DECODE, {"ResizeImage": {"size": [160, 80], **PILLOW}}, NORMALIZE],
    "levels up to 255": [
        DECODE,
        {"ResizeImage": {"size": [80, 80], "interpolation": "bicubic"}},
        {"NormalizeImage": {"scale": 1.0, **LEVELS, "order": ""}},
    ],
}

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.skipif(not PYTHON.is_file(), reason="PaddlePaddle is not here: make peers"),
]


def peer(*arguments: object) -> None:
    command = [PYTHON, Path(__file__).with_name("paddle_project_peer.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


def settings(arch: str = ARCHITECTURES[0], seen: Any = CROP) -> dict[str, Any]:
    images = {"image_root": "dataset/", "cls_label_path": "dataset/list.txt"}
    found = config(
        arch,
        Arch__class_num=3,
        Global__epochs=2,
        Global__image_shape=[3, 64, 64],
        Optimizer__lr={"name": "Cosine", "learning_rate": 0.01},
        DataLoader__Train__sampler__batch_size=8,
        DataLoader__Train__dataset__transform_ops=[DECODE, {"RandCropImage": {"size": 64}}, FLIP, NORMALIZE],
        DataLoader__Eval__dataset__transform_ops=seen,
    )
    for part in ("Train", "Eval"):
        found["DataLoader"][part]["dataset"] |= images
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: Path) -> Path:
    """Parts of photographs in three classes, of many sizes."""
    (tmp_path / "dataset").mkdir()
    random, lines = np.random.default_rng(0), list[str]()
    for label, name in enumerate(("chelsea.png", "coffee.png", "astronaut.png")):
        picture = Image.open(photographs / name).convert("RGB")
        for number in range(8):
            width, height = random.integers(90, 250, 2).tolist()
            left, top = int(random.integers(picture.width - width)), int(random.integers(picture.height - height))
            part = picture.crop((left, top, left + width, top + height))
            part.save(tmp_path / "dataset" / f"{label}-{number}.{'jpg' if number % 2 else 'png'}")
            lines.append(f"{label}-{number}.{'jpg' if number % 2 else 'png'} {label}")
    (tmp_path / "dataset" / "list.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", PREPARED)
def test_images_are_prepared_alike(kind: str, project: Path) -> None:
    path = write(project / "config.yaml", settings(seen=PREPARED[kind]))
    peer("prepare", path, project / "theirs.npz")
    theirs = np.load(project / "theirs.npz")["images"]
    preset = open_project(path).preset
    assert preset is not None
    prepare = Preprocess(preset)
    ours = np.stack([prepare.array(line.split()[0]) for line in _list(project)])
    differing = np.abs(ours - theirs) > 1e-5
    if "Pillow" in kind:
        assert differing.mean() < SHARE
        assert np.abs(ours - theirs).max() < LEVEL
    else:
        assert not differing.any()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_there_and_back(arch: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(project / "config.yaml", settings(arch))
    given = ["--override", f"Global.pretrained_model=output/{arch}/best_model"]
    peer("tune", path)
    peer("measure", path, f"output/{arch}/best_model.pdparams", "theirs.npz")
    theirs = np.load("theirs.npz")

    ours = _logits(arch, Path("output", arch, "best_model"), theirs["images"])
    assert relative_error(ours, theirs["logits"]) < TOLERANCE
    assert run(["evaluate", "-c", str(path), *given, *HERE, "-o", "report"]) == 0
    expected = (theirs["logits"].argmax(1) == theirs["labels"]).mean()
    assert json.loads(Path("report/report.json").read_text())["top1"]["value"] == expected
    spec = open_project(path, [given[1]])
    classifier = Classifier(arch, weights=spec.weights, preset=spec.preset, device="cpu", engine="torch")
    answers = [row.class_ids[0] for row in classifier.predict([line.split()[0] for line in _list(project)])]
    assert answers == [str(label) for label in theirs["logits"].argmax(1)]

    assert run(["train", "-c", str(path), *given, *HERE, "-o", "tuned"]) == 0
    assert run(["weights", "convert", "tuned/best.safetensors", "back.pdparams"]) == 0
    peer("measure", path, "back.pdparams", "back.npz")
    back = np.load("back.npz")
    assert relative_error(back["logits"], theirs["logits"]) > 1e-3, "training changed something"
    assert relative_error(_logits(arch, project / "tuned", back["images"]), back["logits"]) < TOLERANCE


def _list(project: Path) -> list[str]:
    return [f"dataset/{line}" for line in (project / "dataset" / "list.txt").read_text().splitlines()]


@torch.inference_mode()
def _logits(arch: str, weights: Path, images: np.ndarray) -> np.ndarray:
    return torchclas.create_model(arch, weights=weights).eval()(torch.from_numpy(images)).numpy()
