"""What files of ours say of themselves is read strictly, whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from torchclas.catalog import find
from torchclas.errors import CheckpointError
from torchclas.spec import find_model
from torchclas.weights.metadata import KEY, Metadata, find_metadata, read_metadata

NAMES = ("cat", "dog", "猫头鹰")
PLAIN = Metadata("ResNet18", 3, find("ResNet18").preset, name="mine", class_ids=("a", "b", "c"), class_names=NAMES)


def safetensors_file(folder: Path, text: str) -> Path:
    path = folder / "model.safetensors"
    save_file({"weight": np.zeros(2, np.float32)}, path, metadata={KEY: text})
    return path


def onnx_file(folder: Path, text: str) -> Path:
    """The outermost fields of a model alone: its version and one entry of metadata."""

    def field(number: int, content: bytes) -> bytes:
        length, size = len(content), b""
        while length >= 0x80:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + content

    path = folder / "model.onnx"
    path.write_bytes(b"\x08\x0a" + field(14, field(1, KEY.encode()) + field(2, text.encode())))
    return path


def openvino_file(folder: Path, text: str) -> Path:
    from xml.sax.saxutils import quoteattr

    path = folder / "model.xml"
    value = quoteattr(text, {"\n": "&#10;"})
    path.write_text(f'<?xml version="1.0"?><net><layers/><rt_info><{KEY} value={value}/></rt_info></net>', "utf-8")
    return path


FILES = [safetensors_file, onnx_file, openvino_file]


@pytest.mark.parametrize("write", FILES)
def test_round_trip(tmp_path: Path, write: Callable[[Path, str], Path]) -> None:
    metadata = replace(PLAIN, in_channels=4, origin={"scores": [0.5, float("inf")], "run": {"seed": 3}})
    assert read_metadata(write(tmp_path, metadata.to_json())) == metadata


def changed(**changes: object) -> dict[str, Any]:
    return {**json.loads(PLAIN.to_json()), **changes}


PRESET = changed()["preset"]
MISSING = [{key: value for key, value in changed().items() if key != missing} for missing in ("arch", "preset")]
WRONG: list[object] = [
    *(5, None, True, "x", [], [[1]], {}, 1e400),
    *MISSING,
    *(changed(format=value) for value in (2, "1", None)),
    *(changed(arch=value) for value in (3, None, ["ResNet18"], "Res\nNet", "x" * 2000)),
    *(changed(num_classes=value) for value in (None, -1, 0, 1.5, "3", True, 10, 10**12, [3])),
    *(changed(in_channels=value) for value in (None, 0, -3, 10**9, "3", 3.0)),
    *(changed(preset={**PRESET, **value}) for value in ({"size": 10**9}, {"mean": 3}, {"std": [0, 0, 0]}, {"x": 1})),
    *(changed(preset=value) for value in (None, [], "imagenet")),
    *(changed(class_names=value) for value in (None, "cat", ["cat"], ["a", "b", 3], ["a", "b", None], {"a": 1})),
    *(changed(class_names=["cat", "dog", name]) for name in ("o\nwl", "\ud800", "\x1b[31mowl", "o\u2028wl", "\0")),
    *(changed(class_ids=value) for value in ([], ["a", "b", "c", "d"], ["a", "b", "\udcff"])),
    *(changed(labels=value) for value in ("imagenet1k", "none", 3)),
    *(changed(origin=value) for value in (None, [], 3)),
    changed(unknown=1),
]


@pytest.mark.parametrize("values", WRONG, ids=lambda values: json.dumps(values)[:60])
def test_other_types_and_contradictions(tmp_path: Path, values: object) -> None:
    path = safetensors_file(tmp_path, json.dumps(values))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its torchclas metadata is damaged") as caught:
        find_model(path)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("write", FILES)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"origin": ' * 50_000 + "1" + "}" * 50_000,
        json.dumps(changed()).replace('"origin": {}', '"origin": ' + '{"a": ' * 20 + "1" + "}" * 20),
        json.dumps(changed()).replace(": 3", ": " + "9" * 5000),
        " " * 17 * 2**20 + "{}",
    ],
    ids=lambda text: text[:20].strip(),
)
def test_text_that_is_no_metadata(tmp_path: Path, write: Callable[[Path, str], Path], text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(CheckpointError, match="damaged"):
        find_model(path)


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    metadata = replace(PLAIN, class_ids=(), class_names=())
    spec = find_model(safetensors_file(tmp_path, metadata.to_json()))
    assert spec.classes.ids == spec.classes.names("zh") == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two\nlines", "line break"),
        ("tab\tbed", "control character"),
        (b"\xc0\xcf".decode("utf-8", "surrogateescape"), "UTF-8"),
    ],
)
def test_class_names_that_no_file_should_hold(name: str, message: str) -> None:
    """Names of folders: said when the metadata is made, not when it is written."""
    with pytest.raises(CheckpointError, match=message):
        replace(PLAIN, class_names=("cat", "dog", name))


def test_an_origin_that_is_no_text_is_kept() -> None:
    metadata = replace(PLAIN, origin={"data": b"d\xe9p\xf4t".decode("utf-8", "surrogateescape")})
    text = metadata.to_json()
    text.encode()
    assert Metadata.from_json(text).origin == metadata.origin


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'<?xml version="1.0" encoding="utf-7"?><net>+AG',
        b'<?xml version="1.0" encoding="none"?><net a="\xff"/>',
        b"<net>\xe9</net>",
        b"<a>" * 100_000,
        b'<!DOCTYPE net [<!ENTITY a "' + b"x" * 1000 + b'">]><net>' + b"&a;" * 1000 + b"</net>",
    ],
    ids=lambda content: repr(content[:30]),
)
def test_damaged_openvino_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.xml"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a readable OpenVINO file|the file is empty|is a web page"):
        find_metadata(path)


@pytest.mark.parametrize(
    "content", [b"\x08", b"\x72\xff\xff\xff\xff\x0f", b"\x73", b"\x72\x04\x0a\x02\xff\xfe", b"\x08\x01" * 200_000]
)
def test_damaged_onnx_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable ONNX file"):
        find_metadata(path)
