"""A file of another kind is told by what it is, and nobody is advised to delete it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import torchclas
from torchclas import cli
from torchclas.errors import CheckpointError
from torchclas.spec import find_model
from torchclas.weights.kinds import kind_of

GZIP = b"\x1f\x8b\x08\x00" + bytes(20)
FILES: dict[str, tuple[bytes, str]] = {
    "inference.pdmodel": (b"\x0a\x12\x08\x01", "its weights, inference.pdiparams, are missing"),
    "inference.pdiparams": (bytes(100), "put its program, inference.json or inference.pdmodel, beside it"),
    "renamed.pdparams": (bytes(100), "Paddle inference model"),
    "inference.json": (b'{"base_code": {}}', "JSON file"),
    "best_model.pdopt": (b"\x80\x04}q\x00.", "the weights are in the .pdparams file"),
    "model.engine": (b"ftrt" + bytes(20), "TensorRT"),
    "program.pt2": (b"PK\x03\x04" + bytes(40), "torch.export"),
    "page.pdparams": (b"<!DOCTYPE html><html>", "web page"),
    "page.safetensors": (b"<html>not found</html>", "web page"),
    "page.onnx": (b"<html>not found</html>", "web page"),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "empty.pth": (b"", "empty"),
    "packed.pdparams": (GZIP, "unpack it first"),
    "keras.h5": (b"\x89HDF\r\n\x1a\n", "Keras"),
    "mobile.tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite"),
    "picture.pth": (b"\xff\xd8\xff\xe0" + bytes(20), "picture"),
    "notes.txt": (b"lr: 0.1\n", "text file"),
    "notes.pdparams": ("学习率: 0.1\n".encode(), "text file"),
    "cut.safetensors": ((5000).to_bytes(8, "little") + b'{"a":', "cut off"),
    "noise.bin": (b"\xd3\x9a\xff\xfe\xfb\x01\x99" * 10, "not known here"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("option", ["-m", "--weights"])
def test_other_files(name: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    model = ["-m", str(path)] if option == "-m" else ["-m", "ResNet18", "--weights", str(path)]
    assert cli.run(["predict", str(tmp_path / "image.png"), *model]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"torchclas: {path}: ")
    assert message in error
    assert "delete" not in error
    assert "weights_only" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.pdparams", "runs/none", "folder/missing.pth"])
def test_what_is_not_there(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{name}: no such file"):
        find_model(name)
    with pytest.raises(CheckpointError, match=f"^{name}: no such file"):
        find_model("ResNet18", weights=name)


def test_files_of_weights(tmp_path: Path) -> None:
    model = torchclas.create_model("PPLCNet_x0_25", num_classes=2)
    torch.save(model.state_dict(), tmp_path / "new.pth")
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torchclas.save_checkpoint(model, tmp_path / "ours.safetensors")
    assert kind_of(tmp_path / "new.pth") == kind_of(tmp_path / "old.pth") == "torch"
    assert kind_of(tmp_path / "ours.safetensors") == "safetensors"
    (tmp_path / "ours.safetensors").rename(tmp_path / "ours.bin")
    assert kind_of(tmp_path / "ours.bin") == "safetensors", "the content tells, not the name"
