"""Archives from strangers: whatever they hold, an answer or a DataError comes soon, and takes little memory."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchclas.data.shards import MAX_LABEL, ParquetImages, TarShards, tar_index
from torchclas.errors import DataError, ImageError


def tar(path: Path, members: dict[str, bytes], **attributes: Any) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in attributes.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("x.cls", b"3", 3),
        ("x.cls", b" 3\n", 3),
        ("x.cls", b"-1", -1),
        ("x.cls", b"true", -1),
        ("x.cls", b"1.5", -1),
        ("x.cls", b"null", -1),
        ("x.cls", b"\xff\xfe", -1),
        ("x.cls", b"[" * 100_000, -1),
        ("x.cls", b"9" * 10_000, -1),
        ("x.json", b'{"label": 3}', 3),
        ("x.json", b'{"label": "3"}', -1),
        ("x.json", b'{"label": [3]}', -1),
        ("x.json", b'{"label": true, "cls": 3}', -1),
        ("x.json", b"[3]", -1),
        ("x.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, -1),
    ],
)
def test_class_files_of_any_content(tmp_path: Path, name: str, content: bytes, label: int) -> None:
    path = tar(tmp_path / "a.tar", {"x.png": b"1", name: content})
    assert TarShards((str(path),)).labels.tolist() == [label]


@pytest.mark.parametrize("label", [MAX_LABEL + 1, 2 * 10**9, 20240131, 2**63, 10**30])
def test_classes_beyond_all_reason(tmp_path: Path, label: int) -> None:
    path = tar(tmp_path / "a.tar", {"x.png": b"1", "x.cls": str(label).encode()})
    with pytest.raises(DataError, match=r"a\.tar/x\.cls: its class is larger than 1,000,000"):
        tar_index(path)


def test_sizes_in_headers_are_not_believed(tmp_path: Path) -> None:
    """Class files and headers are read into memory: a sparse file of 2 GB takes no place on a disk."""
    path = tar(tmp_path / "a.tar", {"x.png": b"1" * 600, "y.cls": b"1"})
    whole = path.read_bytes()
    large = tmp_path / "b.tar"
    with large.open("wb") as file:
        header = tarfile.TarInfo("x.cls")
        header.size = 2**31
        file.write(whole[:1536] + header.tobuf())
        file.truncate(2**31 + 10_000)
    with pytest.raises(DataError, match=r"x\.cls: has 2,147,483,648 bytes"):
        tar_index(large)
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**31
    with large.open("wb") as file:
        file.write(whole[:1536] + header.tobuf())
        file.truncate(2**31 + 10_000)
    assert [member.key for member in tar_index(large)] == ["x.png"]  # as of a shard that was cut off
    header = tarfile.TarInfo("y.png")
    header.size = 2**40
    large.write_bytes(whole[:1536] + header.tobuf())
    images = TarShards((str(large),))
    assert images.read(0) == b"1" * 600
    with pytest.raises(ImageError, match="ends within the image"):
        images.read(1)


@pytest.mark.parametrize(
    "headers",
    [
        {"size": "-1000000"},
        {"size": "9" * 400},
        {"size": "x"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x.png", "GNU.sparse.realsize": "9" * 20},
        {"GNU.sparse.map": "0,1,x", "GNU.sparse.size": "5"},
        {"GNU.sparse.map": "0," + "9" * 30, "GNU.sparse.size": "5"},
        {"mtime": "nan"},
        {"path": "\ud800.png"},
    ],
    ids=str,
)
def test_headers_that_lie(tmp_path: Path, headers: dict[str, str]) -> None:
    path = tmp_path / "a.tar"
    tar(path, {"x.png": b"1" * 100}, pax_headers={"comment": "c"})
    body = b""
    for key, value in headers.items():
        record = f" {key}={value}\n".encode("utf-8", "surrogatepass")
        length = len(record) + len(str(len(record) + 3))
        body += str(length).encode() + record
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    path.write_bytes(header.tobuf() + body.ljust(-(-len(body) // 512) * 512, b"\0") + path.read_bytes())
    with contextlib.suppress(DataError):
        images = TarShards((str(path),))
        for index in range(len(images)):
            with contextlib.suppress(ImageError):
                assert len(images.read(index)) < 10_000


# Parquet

pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def parquet(path: Path, images: list[Any], labels: Any, description: object = None, **options: Any) -> Path:
    table = pa.table({"image": images, "label": labels})
    if description is not None:
        content = description if isinstance(description, bytes) else json.dumps(description).encode()
        table = table.replace_schema_metadata({"huggingface": content})
    pq.write_table(table, path, **options)
    return path


def test_a_small_file_does_not_become_a_large_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHCLAS_CACHE", str(tmp_path / "cache"))
    path = parquet(tmp_path / "a.parquet", [bytes(20_000)] * 2_000, [0] * 2_000, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="over 16 times its size"):
        ParquetImages((str(path),))
    assert not [file for file in (tmp_path / "cache").rglob("*.arrow") if file.stat().st_size > 0]
    path = parquet(tmp_path / "b.parquet", [bytes(2 * 10**7)], [0], compression="zstd")
    with pytest.raises(DataError, match="over 16 times its size"):
        ParquetImages((str(path),))


def names(value: object) -> dict[str, object]:
    return {"info": {"features": {"label": {"names": value}}}}


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (names(["cat", "dog"]), ("cat", "dog")),
        (names(None), None),
        (names([]), None),
        ({"info": {"features": {"label": {}}}}, None),
        ({"info": {}}, None),
        ({}, None),
        ([], DataError),
        (3, DataError),
        (b"{", DataError),
        (b"\xff", DataError),
        (b"[" * 100_000, DataError),
        (names("cat"), DataError),
        (names([1, 2]), DataError),
        (names({"0": "cat"}), DataError),
        (names(["cat", "cat"]), DataError),
        ({"info": {"features": [1]}}, DataError),
    ],
    ids=lambda value: str(value)[:60],
)
def test_class_names_in_metadata(tmp_path: Path, description: object, expected: object) -> None:
    images = ParquetImages((str(parquet(tmp_path / "a.parquet", [b"1", b"2"], [0, 1], description)),))
    if expected is DataError:
        with pytest.raises(DataError, match=r"a\.parquet"):
            images.classes  # noqa: B018
    else:
        assert images.classes == expected


@pytest.mark.parametrize("kind", ["int8", "int32", "uint32", "int64", "uint64"])
def test_labels_of_any_integer_type(tmp_path: Path, kind: str) -> None:
    labels = pa.array([3, None, 0], getattr(pa, kind)())
    images = ParquetImages((str(parquet(tmp_path / "a.parquet", [b"1", b"2", b"3"], labels)),))
    assert images.labels.tolist() == [3, -1, 0]
    assert images.labels.dtype == np.int64


@pytest.mark.parametrize("label", [MAX_LABEL + 1, 2 * 10**9, 2**63, 2**64 - 1])
def test_labels_beyond_all_reason(tmp_path: Path, label: int) -> None:
    images = ParquetImages((str(parquet(tmp_path / "a.parquet", [b"1", b"2"], pa.array([0, label], pa.uint64()))),))
    with pytest.raises(DataError, match=f"it has the class {label}"):
        images.labels  # noqa: B018


def test_columns_that_are_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_arrays([pa.array([b"1"]), pa.array([b"2"]), pa.array([0])], ["image", "image", "label"])
    pq.write_table(table, path)
    with pytest.raises(DataError, match="expected the columns"):
        ParquetImages((str(path),))


def test_names_of_images_that_are_no_text(tmp_path: Path) -> None:
    names = pa.array([b"\xff.png", b"ok.png", None]).view(pa.string())
    images = pa.StructArray.from_arrays([pa.array([b"1", b"2", b"3"]), names], ["bytes", "path"])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": images, "label": [0, 1, 2]}), path)
    opened = ParquetImages((str(path),))
    assert [opened.read(index) for index in range(3)] == [b"1", b"2", b"3"]
    assert [opened.name(index) for index in range(3)] == [
        f"{path} row {end}" for end in ("0 (\ufffd.png)", "1 (ok.png)", "2")
    ]
