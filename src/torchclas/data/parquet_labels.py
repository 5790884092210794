"""Which columns of a Parquet file hold the labels of its images, and what they say.

- `label`, integers: one class for each image.
- `labels` or `label`, lists of integers or of names: the classes of each image, of any number.
- A column of 0 and 1, or of booleans, for each class, called after it. Columns of another type are left out.

Names of numbers come from the metadata of Hugging Face, where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from torchclas.data.datasets import Indices
from torchclas.errors import DataError
from torchclas.tables import mapping, texts

MAX_LABEL = 1_000_000  # no data set has more classes; what is larger is a mistake, such as a date
_MAX_CELLS = 2**28  # images times classes, of which a table of 0 and 1 is made
_NONE: Indices = np.empty(0, np.int64)
_LISTS = ("labels", "label")
_IMAGE, _LABEL = "image", "label"


def label_columns(schema: Any, path: str | Path) -> list[str]:
    """The columns of labels in a schema of Arrow; raises DataError where it has none, or no images."""
    import pyarrow as pa

    if schema.names.count(_IMAGE) == 1 and _is_image(schema.field(_IMAGE).type):
        if schema.names.count(_LABEL) == 1 and pa.types.is_integer(schema.field(_LABEL).type):
            return [_LABEL]
        listed = [name for name in _LISTS if schema.names.count(name) == 1 and _is_list(schema.field(name).type)]
        if len(listed) == 1:
            return listed
        flags = [field.name for field in schema if _is_flag(field.type)]
        if not listed and len(flags) > 1 and len(set(flags)) == len(flags):
            return flags
    found = [f"{field.name} ({field.type})" for field in schema]
    raise DataError(
        f"{path}: expected the columns image (bytes, or a struct with bytes) and label (integers; or labels, lists of "
        "them or of names; or a column of 0 and 1 for each of several classes), "
        f"not {', '.join(found[:8])}{' …' if len(found) > 8 else ''}"
    )


def holds_lists(table: Any) -> bool:
    """Whether the labels of an image are those that it is of, so that a class of no image may be missing."""
    names = label_columns(table.schema, "")
    return len(names) == 1 and _is_list(table.schema.field(names[0]).type)


def read_labels(paths: Sequence[str], tables: Sequence[Any]) -> Indices:
    """The labels of all files, [N], -1 where a row has none; or [N, classes] of 0 and 1, as `read_classes` orders them.

    Raises DataError: a value is no label, or files contradict each other.
    """
    columns = _same_columns(paths, tables)
    if len(columns) > 1:
        return np.concatenate([_flags(path, table, columns) for path, table in zip(paths, tables, strict=True)])
    if not holds_lists(tables[0]):
        pairs = zip(paths, tables, strict=True)
        return np.concatenate([_numbers(path, table.column(_LABEL)) for path, table in pairs])
    parts = [_parts(path, table.column(columns[0])) for path, table in zip(paths, tables, strict=True)]
    classes = read_classes(paths, tables)
    if classes is not None and any(values.dtype.kind == "U" for _, values in parts):
        place = {name: index for index, name in enumerate(classes)}
        parts = [(counts, np.array([place[name] for name in values.tolist()], np.int64)) for counts, values in parts]
    highest = max((int(values.max()) for _, values in parts if len(values)), default=-1)
    if classes is not None and highest >= len(classes):
        raise DataError(f"{paths[0]}: names {len(classes):,} classes, but an image is of class {highest}")
    return np.concatenate([_table(paths[0], part, len(classes or ()) or highest + 1) for part in parts])


def read_classes(paths: Sequence[str], tables: Sequence[Any]) -> tuple[str, ...] | None:
    """The names of the classes in the order of the labels; None where they are numbers without names.

    Raises DataError: the metadata cannot be understood, or two classes are called the same.
    """
    columns = _same_columns(paths, tables)
    if len(columns) > 1:
        return tuple(columns)
    if names := _described(paths[0], (tables[0].schema.metadata or {}).get(b"huggingface"), columns[0]):
        return names
    if not holds_lists(tables[0]):
        return None
    parts = [_parts(path, table.column(columns[0]))[1] for path, table in zip(paths, tables, strict=True)]
    if all(values.dtype.kind != "U" for values in parts):
        return None
    return tuple(sorted({name for values in parts for name in values.tolist()}))


def _same_columns(paths: Sequence[str], tables: Sequence[Any]) -> list[str]:
    columns = label_columns(tables[0].schema, paths[0])
    for path, table in zip(paths[1:], tables[1:], strict=True):
        if set(label_columns(table.schema, path)) != set(columns) or holds_lists(table) != holds_lists(tables[0]):
            raise DataError(f"{path}: has other columns of labels than {paths[0]}: all files need the same")
    return columns


def _is_image(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return pa.types.is_integer(kind.value_type) or _is_text(kind.value_type)


def _is_text(kind: Any) -> bool:
    """Of a copy, which has bytes in place of text, as well."""
    import pyarrow as pa

    texts_ = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_one(kind) for is_one in texts_)


def _is_flag(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_boolean(kind) or pa.types.is_integer(kind)


def _numbers(path: str, column: Any) -> Indices:
    numbers = column.fill_null(0).to_numpy()  # unsigned ones have no -1
    if len(numbers) and numbers.max() > MAX_LABEL:
        raise DataError(f"{path}: it has the class {numbers.max()}, above {MAX_LABEL:,}: classes are counted from 0")
    return np.where(column.is_valid().to_numpy(), np.maximum(numbers.astype(np.int64), -1), -1)


def _flags(path: str, table: Any, names: Sequence[str]) -> Indices:
    _check_cells(path, table.num_rows, len(names))
    rows = np.empty((table.num_rows, len(names)), np.int64)
    for place, name in enumerate(names):
        column = table.column(name)
        values = column.fill_null(False if column.type == "bool" else 2).to_numpy().astype(np.int64)
        wrong = ~column.is_valid().to_numpy() | ((values != 0) & (values != 1))
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{path} row {row}: {name} is {column[row].as_py()}: expected 1 for an image of the class, or 0; leave "
                "columns out that are no classes"
            )
        rows[:, place] = values
    return rows


def _parts(path: str, column: Any) -> tuple[Indices, npt.NDArray[Any]]:
    """How many classes each image has, and the classes of all images one after the other: numbers, or names."""
    if column.null_count:
        raise DataError(f"{path}: a row has no list of labels: an image of no class has an empty one")
    chunks: list[Any] = column.chunks
    lengths = np.concatenate([np.diff(chunk.offsets.to_numpy()).astype(np.int64) for chunk in chunks] or [_NONE])
    lists = [chunk.flatten() for chunk in chunks]
    if any(each.null_count for each in lists):
        raise DataError(f"{path}: a list of labels has an empty place")
    if _is_text(column.type.value_type):
        flat: list[str | bytes] = [value for each in lists for value in each.to_pylist()]
        names = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in flat]
        return lengths, np.array(names, np.str_)
    numbers = np.concatenate([each.to_numpy() for each in lists] or [_NONE])
    wrong = numbers[(numbers < 0) | (numbers > MAX_LABEL)]
    if len(wrong):
        raise DataError(f"{path}: it has the class {wrong[0]}: classes are counted from 0, to {MAX_LABEL:,} at most")
    return lengths, numbers.astype(np.int64)


def _table(path: str, part: tuple[Indices, npt.NDArray[Any]], classes: int) -> Indices:
    counts, values = part
    _check_cells(path, len(counts), classes)
    rows = np.zeros((len(counts), classes), np.int64)
    rows[np.repeat(np.arange(len(counts)), counts), values] = 1
    return rows


def _check_cells(path: str, images: int, classes: int) -> None:
    if images * classes > _MAX_CELLS:
        raise DataError(f"{path}: {images:,} images of {classes:,} classes are more than can be held in memory")


def _described(path: str, description: bytes | None, column: str) -> tuple[str, ...]:
    """The names in Hugging Face's metadata; none where it names none."""
    if description is None:
        return ()
    try:
        value: object = json.loads(description)
        for key in ("info", "features", column):
            value = mapping(value).get(key, {})
        if isinstance(value, list):  # how lists were described at first
            value = cast("list[object]", value)[0] if value else {}
        inner = mapping(value).get("feature", value)
        names = texts(mapping(inner).get("names") or ())
    except (ValueError, RecursionError):
        raise DataError(f"{path}: the class names in its Hugging Face metadata cannot be understood") from None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two classes are called {twice!a}")
    return names
