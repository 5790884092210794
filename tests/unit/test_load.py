"""Loading is complete or it is an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import torchclas
from tests.parity.golden import golden
from torchclas.catalog import find
from torchclas.errors import CheckpointError
from torchclas.spec import find_model
from torchclas.weights.checkpoint import read_tensors, save_checkpoint
from torchclas.weights.export import to_pdparams
from torchclas.weights.metadata import Metadata, read_metadata
from torchclas.weights.pdparams import write_pdparams
from torchclas.zoo import load_model

ARCH = "MobileNetV3_small_x0_35"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / f"{ARCH}_pretrained.pdparams"
    golden(ARCH).write(path)
    return path


def test_report_accounts_for_every_tensor(published: Path) -> None:
    model = torchclas.create_model(ARCH)
    report = torchclas.load_weights(model, published)
    assert report.complete
    assert report.layout == "current"
    assert len(report.loaded) == len(golden(ARCH).state())


def test_published_file_goes_into_a_model_on_the_meta_device_as_into_a_real_one(published: Path) -> None:
    image = torch.randn(1, 3, 64, 64)
    real = torchclas.create_model(ARCH).eval()
    torchclas.load_weights(real, published)
    lean = torchclas.create_model(ARCH, weights=published).eval()
    torch.testing.assert_close(lean(image), real(image))


def test_wrong_architecture(published: Path) -> None:
    with pytest.raises(CheckpointError, match="not a ResNet18 checkpoint"):
        torchclas.load_weights(torchclas.create_model("ResNet18"), published)
    with pytest.raises(CheckpointError, match="mismatched"):
        torchclas.load_weights(torchclas.create_model("MobileNetV3_small_x0_5"), published)


def test_missing_and_unexpected_tensors(tmp_path: Path) -> None:
    state = golden(ARCH).state()
    del state["fc.bias"]
    state["fc.surplus"] = np.zeros(3, np.float32)
    path = tmp_path / "odd.pdparams"
    write_pdparams(path, state)
    model = torchclas.create_model(ARCH)
    assert isinstance(model.classifier, torch.nn.Linear)
    before = model.classifier.bias.clone()
    with pytest.raises(CheckpointError, match=r"1 missing: classifier\.bias .*1 unexpected: fc\.surplus"):
        torchclas.load_weights(model, path)
    torch.testing.assert_close(model.classifier.bias, before)

    report = torchclas.load_weights(model, path, strict=False)
    assert not report.complete
    assert report.unexpected == ("fc.surplus",)
    torch.testing.assert_close(model.classifier.weight.detach().numpy(), state["fc.weight"].T)


def test_nan_is_warned_of(tmp_path: Path) -> None:
    state = golden(ARCH).state()
    state["fc.weight"][3, 5] = np.nan
    path = tmp_path / "nan.pdparams"
    write_pdparams(path, state)
    with pytest.warns(UserWarning, match=r"NaN or infinity in classifier\.weight"):
        report = torchclas.load_weights(torchclas.create_model(ARCH), path)
    assert report.nonfinite == ("classifier.weight",)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_converted(tmp_path: Path, dtype: type[np.floating]) -> None:
    path = tmp_path / "half.pdparams"
    write_pdparams(path, {name: tensor.astype(dtype) for name, tensor in golden(ARCH).state().items()})
    model = torchclas.create_model(ARCH, weights=path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_new_head_only_when_asked(published: Path) -> None:
    model = torchclas.create_model(ARCH, weights=published, num_classes=5)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 5)
    assert not any(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(CheckpointError, match="mismatched"):
        torchclas.load_weights(torchclas.create_model(ARCH, num_classes=5), published)


def test_first_convolution_is_adapted_to_the_number_of_channels(published: Path) -> None:
    """A gray image gives the same logits as the RGB image with three equal channels."""
    gray = torch.randn(2, 1, 64, 64)
    rgb = torchclas.create_model(ARCH, weights=published).eval()
    one = torchclas.create_model(ARCH, weights=published, in_channels=1).eval()
    torch.testing.assert_close(one(gray), rgb(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)
    six = torchclas.create_model(ARCH, weights=published, in_channels=6).eval()
    torch.testing.assert_close(six(gray.expand(-1, 6, -1, -1)), one(gray), rtol=1e-4, atol=1e-4)


def test_own_checkpoint_says_everything(tmp_path: Path, published: Path) -> None:
    model = torchclas.create_model(ARCH, weights=published, num_classes=2).eval()
    preset = find(ARCH).preset
    path = tmp_path / "cats.safetensors"
    metadata = Metadata(ARCH, 2, preset, name="cats", class_ids=("c", "d"), class_names=("cat", "dog"))
    save_checkpoint(model, path, metadata)
    assert read_metadata(path) == metadata
    spec = find_model(path)
    assert (spec.name, spec.num_classes, spec.classes.ids, spec.preset) == ("cats", 2, ("c", "d"), preset)
    assert spec.classes.names("zh") == ("cat", "dog")
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(load_model(spec)(image), model(image))


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    model = torchclas.create_model("PPLCNet_x0_25", num_classes=2)
    metadata = Metadata(model.arch, 2, find(model.arch).preset, class_ids=("猫", "d"), class_names=('"cat"', "dog\\"))
    for number in range(8):  # the order of two entries is right by chance half of the time
        save_checkpoint(model, tmp_path / f"{number}.safetensors", metadata)
        to_pdparams(model, tmp_path / f"{number}.pdparams")
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1
    assert len({path.read_bytes() for path in tmp_path.glob("*.pdparams")}) == 1
    assert read_metadata(tmp_path / "0.safetensors") == metadata


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}, "w is of type F8_E4M3"),
        ({"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}, r"w is of type C64|not a readable"),
        ({"dtype": "U8", "shape": [1] * 70 + [4], "data_offsets": [0, 4]}, "w has the shape"),
        ({"dtype": "F32", "shape": [0, 2**62, 3], "data_offsets": [0, 0]}, r"w has the shape|not a readable"),
        ({"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}, "not a readable"),
        ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "not a readable"),
    ],
    ids=str,
)
def test_safetensors_files_that_torch_cannot_take(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    header = json.dumps({"w": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(entry["data_offsets"][1]))  # pyright: ignore
    with pytest.raises(CheckpointError, match=message):
        read_tensors(path)


def test_a_foreign_safetensors_file_needs_a_name(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "plain.safetensors"
    save_file({"a": np.zeros(2, np.float32)}, path)
    with pytest.raises(CheckpointError, match="say which model"):
        find_model(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 not a zip", b"{" * 100])
@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors", ".pth"])
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="bad"):
        torchclas.load_weights(torchclas.create_model(ARCH), path)


def test_a_pickle_in_a_pth_file_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # pyright: ignore[reportReturnType]

    path = tmp_path / "bomb.pth"
    torch.save({"weight": Bomb()}, path)
    with pytest.raises(CheckpointError):
        torchclas.load_weights(torchclas.create_model(ARCH), path)
    assert not (tmp_path / "ran").exists()


MEASURE = """
import resource, sys, torchclas
torchclas.create_model("PPLCNet_x0_25")  # so that only the loading below is counted, not the imports
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = torchclas.create_model("ResNet101", weights=sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_peak_memory_stays_below_twice_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.pdparams"
    golden("ResNet101").write(path)
    result = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 2 * path.stat().st_size
