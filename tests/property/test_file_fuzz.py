"""Whatever the bytes of a file, its reader answers or raises an error of ours, soon and within bounds."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.property.damage import damaged
from torchclas.catalog import find
from torchclas.data.shards import ParquetImages, TarShards
from torchclas.errors import CheckpointError, DataError, Error, ImageError
from torchclas.reporting.console import Console
from torchclas.spec import find_model
from torchclas.tasks.weights import inspect
from torchclas.weights.metadata import KEY, Metadata
from torchclas.weights.onnx import read_onnx
from torchclas.weights.torch_file import read_torch

fuzz = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

METADATA = Metadata(
    "PPLCNet_x0_25",
    3,
    find("PPLCNet_x0_25").preset,
    class_ids=("a", "b", "c"),
    class_names=("cat", "dog", "猫头鹰"),
    origin={"scores": [0.5, {"val": 1}], "input": "uint8"},
)
TEXT = METADATA.to_json()
WORDS = [b"null", b"-1", b"1e999", b"9" * 25, b'"\\ud800"', b"[", b"{", b'"', b"\xff", b"\n", b"\x1b[31m"]


# Metadata: JSON of any form

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(), max_size=8),
        st.sampled_from([10**9, 10**30, "uint8", "\ud800", "a\nb"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=8,
)


@given(
    key=st.sampled_from(list(json.loads(TEXT))),
    value=VALUES,
    inner=st.sampled_from(["", *find("ResNet18").preset.to_dict()]),
)
@fuzz
def test_metadata_with_values_of_any_kind(key: str, value: object, inner: str) -> None:
    values: dict[str, Any] = json.loads(TEXT)
    if key == "preset" and inner:
        values["preset"][inner] = value
    else:
        values[key] = value
    try:
        read = Metadata.from_json(json.dumps(values))
    except Error:
        return
    assert Metadata.from_json(read.to_json()).classes("mine").names("zh")
    assert read.num_classes == 3
    assert 1 <= min(read.preset.size) <= read.preset.resize_short <= 4096


# Weights

TENSORS = {"conv.weight": torch.ones(2, 3, 3, 3), "bn.bias": torch.ones(4).half(), "count": torch.tensor(7)}


def saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


TORCH_FILES = [
    saved(content, **options)
    for content in (TENSORS, {"model": {f"module.{name}": t for name, t in TENSORS.items()}, "epoch": 3, "set": {1}})
    for options in ({}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False})
]
PICKLES = [zipfile.ZipFile(io.BytesIO(file)).read("archive/data.pkl") for file in TORCH_FILES if file[:2] == b"PK"]
OPCODES = [getattr(pickle, name) for name in pickle.__all__ if isinstance(getattr(pickle, name), bytes)]


def read_weights(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(CheckpointError):
            inspect(path, Console(file=io.StringIO()), model=None, list_tensors=True)


@given(content=damaged(TORCH_FILES, OPCODES))
@fuzz
def test_torch_files(tmp_path: Path, content: bytes) -> None:
    read_weights(tmp_path / "a.pth", content)


@given(content=damaged(PICKLES, OPCODES, intact=2))
@fuzz
def test_torch_files_with_another_pickle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(io.BytesIO(TORCH_FILES[0])) as good, zipfile.ZipFile(path, "w") as bad:
        for entry in good.infolist():
            bad.writestr(entry.filename, content if entry.filename.endswith("data.pkl") else good.read(entry))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(CheckpointError):
            read_torch(path)


SAFETENSORS = [
    save({"a": np.ones((2, 3), np.float32), "b": np.ones(3, np.int64)}, {"format": "pt", KEY: text})
    for text in (TEXT, "")
]


def header_of(file: bytes) -> bytes:
    return file[8 : 8 + int.from_bytes(file[:8], "little")]


@given(
    content=st.one_of(
        damaged(SAFETENSORS, WORDS),
        damaged(list(map(header_of, SAFETENSORS)), WORDS).map(
            lambda header: len(header).to_bytes(8, "little") + header + SAFETENSORS[0][-48:]
        ),
    )
)
@fuzz
def test_safetensors_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    read_weights(path, content)
    with contextlib.suppress(Error):
        find_model(path)


# Exported models


def protobuf(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content) & 0x7F | 0x80, len(content) >> 7]) + content


ONNX = b"\x08\x0a" + protobuf(7, b"graph") + protobuf(14, protobuf(1, KEY.encode()) + protobuf(2, TEXT.encode()))
XML = f"""<?xml version="1.0"?><net><layers><layer id="0"/></layers><rt_info><{KEY} value="{
    TEXT.replace('"', "&quot;")
}"/></rt_info></net>""".encode()


@pytest.mark.parametrize(("name", "seed"), [("a.onnx", ONNX), ("a.xml", XML)])
@given(data=st.data())
@fuzz
def test_exported_models(tmp_path: Path, name: str, seed: bytes, data: st.DataObject) -> None:
    path = tmp_path / name
    path.write_bytes(seed)
    assert find_model(path).classes.names() == METADATA.class_names
    path.write_bytes(data.draw(damaged([seed], [*WORDS, b"&a;", b"<!DOCTYPE a>", b"</net>", b"\x72", b"\xff" * 9])))
    with contextlib.suppress(Error):
        find_model(path)


@given(data=st.data())
@fuzz
def test_onnx_files_of_paddle(tmp_path: Path, data: st.DataObject) -> None:
    pytest.importorskip("onnx")
    from tests.unit.test_paddle_onnx import exported

    path = tmp_path / "a.onnx"
    path.write_bytes(
        data.draw(damaged([exported().SerializeToString()], [b"\xff" * 9 + b"\1", b"\0", b"conv2d_0.w_0"]))
    )
    with contextlib.suppress(CheckpointError):
        read_onnx(path)


# Archives


def tar_file(form: int) -> bytes:
    file = io.BytesIO()
    members = {
        "a/x.png": b"1" * 600,
        "a/x.cls": b"3",
        "y.json": b'{"label": 5}',
        "y.jpg": b"2",
        "z" * 90 + ".png": b"3",
    }
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = {"comment": "c"} if form == tarfile.PAX_FORMAT else {}
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()[:10240]


def with_checksums(content: bytes) -> bytes:
    """Headers that tarfile does not refuse at once."""
    changed = bytearray(content)
    for at in range(0, len(changed) - 511, 512):
        header = bytes(changed[at : at + 512])
        if header[257:262] == b"ustar":
            changed[at + 148 : at + 156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    return bytes(changed)


TARS = [tar_file(form) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)]
TAR_WORDS = [*WORDS, b"\x80" + b"\xff" * 11, b"77777777777\0", b"GNU.sparse.map=0,1", b"x", b"L", b"S", b"g"]


def read_all(images: TarShards | ParquetImages) -> None:
    assert len(images.labels) == len(images)
    for index in range(len(images)):
        with contextlib.suppress(ImageError):
            images.read(index)
        images.key(index)


@given(content=damaged(TARS, TAR_WORDS), checked=st.booleans())
@fuzz
def test_tar_shards(tmp_path: Path, content: bytes, checked: bool) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(with_checksums(content) if checked else content)
    with contextlib.suppress(DataError):
        read_all(TarShards((str(path),)))


@given(data=st.data())
@fuzz
def test_parquet(tmp_path: Path, data: st.DataObject) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = {"info": {"features": {"label": {"names": ["a", "b", "c"]}}}}
    table = pa.table(
        {"image": [{"bytes": b"abc", "path": "x"}, None, {"bytes": b"q", "path": None}], "label": [0, 1, 2]}
    )
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), file)
    several = io.BytesIO()
    pq.write_table(table.set_column(1, "labels", pa.array([["a", "b"], [], ["c"]])), several)
    path = tmp_path / "a.parquet"
    path.write_bytes(data.draw(damaged([file.getvalue(), several.getvalue()], WORDS)))
    with contextlib.suppress(DataError):
        opened = ParquetImages((str(path),))
        read_all(opened)
        opened.classes  # noqa: B018
