"""Labelled images in object stores: what an address holds, and copies of the files that are read at random places."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torchclas.atomic import atomic_path, locked, need_space
from torchclas.data import stores
from torchclas.data.datasets import Dataset, Sample
from torchclas.data.folders import DEEPEST, INSTEAD, Split, in_order, instead, purpose, split_of
from torchclas.data.sources import is_image
from torchclas.data.stores import StoreError
from torchclas.errors import DataError

ARCHIVES = (".tar", ".parquet")
LISTS = (".txt", ".csv", ".tsv", ".lst")


@dataclass(frozen=True)
class FoundInStore:
    """What an address holds: a list, archives, or a folder of class folders; `split` is what was taken of several."""

    kind: Literal["list", "archives", "classes"]
    addresses: tuple[str, ...]
    split: Split | None = None
    notes: tuple[str, ...] = ()


def find_in_store(address: str, split: Split, *, depth: int = 0) -> FoundInStore:
    """Find what of an address is read for a split, by the names of what lies right below it.

    Raises DataError: nothing is there, or the store cannot be read.
    """
    suffix = Path(address).suffix.lower()
    if suffix in ARCHIVES or suffix in LISTS:
        return FoundInStore("archives" if suffix in ARCHIVES else "list", _named(address))
    base = f"{address.rstrip('/')}/"
    folders, files = _inside(base)
    parts, archives = _parts(folders, files), _archives(files)
    for part in INSTEAD[split]:
        if part in parts:
            found = [f"{base}{name}" for name in parts[part]]
            notes = [*instead(address, split, part), f"{found[0]} is taken for the images for {purpose(part)}"]
            if len(found) == 1 and depth < DEEPEST:
                inner = find_in_store(found[0], split, depth=depth + 1)
                return replace(inner, split=part, notes=(*notes, *inner.notes))
            return FoundInStore("archives", tuple(found), part, tuple(notes))
    if archives:
        return FoundInStore("archives", tuple(f"{base}{name}" for name in archives))
    if len(folders) == 1 and depth < DEEPEST and not _holds_images(f"{base}{folders[0]}/"):
        only = f"{base}{folders[0]}"
        inner = find_in_store(f"{only}/", split, depth=depth + 1)
        return replace(inner, notes=(f"{only} is taken, the only folder there", *inner.notes))
    return FoundInStore("classes", (base,))


def splits_in_store(address: str) -> frozenset[Split]:
    """The splits that a folder in a store holds. Raises DataError."""
    return frozenset(_parts(*_inside(f"{address.rstrip('/')}/")))


def class_folders_in_store(base: str) -> Dataset:
    """The images `base/class_name/**/image`, as `torchclas.data.folders.class_folders` has them of a folder.

    Raises DataError: there are none, or the store cannot be read.
    """
    images = dict[str, list[str]]()
    pictures = 0
    try:
        root = stores.folder(base)
        for found in stores.files(base):
            if is_image(found.url):
                name, slash, _ = found.url[len(root) :].partition("/")
                pictures += 1
                if slash:
                    images.setdefault(name, []).append(found.url)
    except StoreError as error:
        raise DataError(f"{base}: {error}") from None
    if not images:
        what = f"holds {pictures:,} pictures, but no class folders" if pictures else "no class folders"
        raise DataError(f"{base}: {what}; expected {base}class_name/image.jpg")
    classes = in_order(images)
    samples = [Sample(address, label) for label, name in enumerate(classes) for address in images[name]]
    return Dataset(samples, tuple(classes), root)


def local_copy(address: str) -> Path:
    """A copy in the cache of a file that is read at random places, or whole; made once for each of its versions.

    Raises:
        DataError: it is not there, or cannot be read.
        OutputError: the disk is full.
    """
    from torchclas.weights.cache import data_path  # and with it what downloads weights

    try:
        found = stores.look(address)
        if found is None:
            raise DataError(f"{address}: no such object")
        name = Path(address)
        state = f"{found.size} {found.version}"
        path = data_path(f"{name.stem[:40].lstrip('.')}-{_digest(address)}-{_digest(state)}{name.suffix}")
        if path.is_file() and path.stat().st_size == found.size:
            return path
        with locked(path):
            if not (path.is_file() and path.stat().st_size == found.size):  # another process may have made it
                need_space(path, found.size)
                with atomic_path(path) as temporary:
                    with temporary.open("wb") as file:
                        stores.copy_to(address, file)
                    if (size := temporary.stat().st_size) != found.size:
                        raise DataError(f"{address}: {size:,} of its {found.size:,} bytes arrived: try again")
    except StoreError as error:
        raise DataError(f"{address}: {error}") from None
    return path


def _named(pattern: str) -> tuple[str, ...]:
    """The addresses that one with wildcards stands for."""
    if not stores.is_pattern(pattern):
        return (pattern,)
    try:
        return tuple(sorted(found.url for found in stores.matches(pattern))) or (pattern,)
    except StoreError as error:
        raise DataError(f"{pattern}: {error}") from None


def _inside(base: str) -> tuple[list[str], list[str]]:
    try:
        return stores.inside(base)
    except StoreError as error:
        raise DataError(f"{base}: {error}") from None


def _parts(folders: Sequence[str], files: Sequence[str]) -> dict[Split, tuple[str, ...]]:
    """What there is of each split: a list, else a folder, else archives."""
    parts = dict[Split, tuple[str, ...]]()
    for name in _archives(files):
        if (part := split_of(name)) is not None:
            parts[part] = (*parts.get(part, ()), name)
    for name in (*(f"{name}/" for name in folders), *files):
        if (name.endswith("/") or name.lower().endswith(".txt")) and (part := split_of(name.rstrip("/"))) is not None:
            parts[part] = (name,)
    return parts


def _archives(files: Sequence[str]) -> list[str]:
    return [name for name in files if Path(name).suffix.lower() in ARCHIVES]


def _holds_images(base: str) -> bool:
    return any(map(is_image, _inside(base)[1]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def parent(address: str) -> str:
    """The folder of an address."""
    return address.rpartition("/")[0]
