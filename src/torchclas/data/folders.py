"""What a folder holds: classes, splits of them, lists or archives of splits, or one folder around all that.

A folder is taken where it is clear what it is, and every guess is noted. Where it is not clear, the error names the
level at which the classes seem to be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torchclas.data.datasets import Dataset, Sample
from torchclas.data.sources import SUFFIXES, expand, is_folder
from torchclas.errors import DataError

Split = Literal["train", "val", "test"]

SPLITS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
INSTEAD: Mapping[Split, tuple[Split, ...]] = {"train": ("train",), "val": ("val", "test", "train"), "test": ("test",)}
SHOWN = 3  # names in a message
DEEPEST = 6  # folders around the data

_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
_SPLIT = re.compile(rf"({_WORDS})(?:[ ._-]?(?:set|data|split|images?|\d{{4}}))?", re.IGNORECASE)
_SPLIT_LIST = re.compile(rf"({_WORDS})(?:[_-]list)?\.txt", re.IGNORECASE)
_SPLIT_ARCHIVE = re.compile(rf"(?:^|[^a-z])({_WORDS})(?![a-z])", re.IGNORECASE)
# What systems and programs put beside the user's own folders, if not hidden by a dot.
_STRAY = frozenset({"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "__pycache__"})
_PICTURES = frozenset({"images", "image", "imgs", "img", "jpegimages", "pictures", "photos"})
_ANNOTATIONS = frozenset(
    {"labels", "label", "annotations", "annotation", "masks", "mask", "xml", "xmls", "labels_xml", "imagesets"}
)


@dataclass(frozen=True)
class Found:
    """What is to be read: one list file, archives, or the folder of class folders.

    `classes` are the names of the class folders that hold images, and `split` is what was taken of several.
    """

    kind: Literal["list", "archives", "classes"]
    paths: tuple[Path, ...]
    classes: tuple[str, ...] = ()
    split: Split | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Inside:
    """A folder at a glance: whether images lie in it, and otherwise its folders that are not stray."""

    images: bool
    folders: tuple[str, ...] = ()
    archives: bool = False

    @property
    def nested(self) -> bool:
        """Whether it holds what a split holds: folders or archives, and no images beside them."""
        return not self.images and (bool(self.folders) or self.archives)


def find(folder: Path, split: Split, *, known: Collection[str] = (), depth: int = 0) -> Found:
    """Find what of a folder is read for a split; `known` are names that classes may have.

    For `val`, images for testing or else for training are taken where there are no others, and that is noted.

    Raises:
        DataError: it holds no classes, or it is not clear which of its folders they are.
    """
    if depth > DEEPEST:
        raise DataError(f"{folder}: no class folders; expected {folder}/class_name/image.jpg")
    folders, stray, files = _entries(folder)
    inside = {name: look(folder / name) for name in folders}
    parts = _split_parts(folder, folders, files, inside)
    for part in INSTEAD[split]:
        if part in parts:
            taken = _take(folder, part, parts[part], known, depth)
            notes = [*instead(folder, split, part), *taken.notes]
            if {"val", "test"} <= set(parts) and part == "val" and split == "val":
                notes.append(f"{folder} holds images for testing too: name {_only(parts['test'])} to use those")
            return replace(taken, split=part, notes=(*notes, *_left_out(folder, folders, inside, parts, stray)))
    if archives := archives_in(folder):
        return Found("archives", archives)
    return _class_folders(folder, folders, inside, stray, files, split, known, depth)


def splits_in(folder: Path) -> frozenset[Split]:
    """The splits that a folder, or the one folder in it, holds."""
    for _depth in range(DEEPEST):
        folders, _stray, files = _entries(folder)
        inside = {name: look(folder / name) for name in folders}
        if parts := _split_parts(folder, folders, files, inside):
            return frozenset(parts)
        full = [name for name in folders if _holds_images(folder / name, inside[name])]
        if len(full) != 1 or inside[full[0]].images or archives_in(folder):
            return frozenset()
        folder = folder / full[0]
    return frozenset()


def class_folders(root: str | Path, names: Sequence[str] | None = None) -> Dataset:
    """Read `root/class_name/**/image`: the sorted folders are the classes, those named 0, 1, 2 … as numbers.

    `names` are the folders to read, by default all that hold images. Names that are not UTF-8 are read as Chinese.

    Raises:
        DataError: no such folder, no images, or a folder's name is no text.
    """
    root = Path(root)
    if names is None:
        names = [name for name in _entries(root)[0] if _holds_images(root / name, look(root / name))]
        if not names:
            raise DataError(f"{root}: no class folders; expected {root}/class_name/image.jpg")
    folder_of = {name: folder for folder, name in class_names(root, names).items()}
    classes = in_order(folder_of)
    samples = [
        Sample(path, label)
        for label, name in enumerate(classes)
        for path in expand([root / folder_of[name]])
        if os.path.splitext(path)[1].lower() in SUFFIXES  # noqa: PTH122 - a million of them
    ]
    return Dataset(samples, tuple(classes), str(root))


def in_order(names: Collection[str]) -> list[str]:
    """Names of classes, sorted; those named 0, 1, 2 … as numbers."""
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def class_names(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """The names of class folders as text.

    Where one is not UTF-8, all come from a Windows that has GBK, and some of those may be UTF-8 by chance.

    Raises:
        DataError: a name is no text, or two are the same.
    """
    gbk = any(map(_is_bytes, folders))
    names = dict[str, str]()
    for folder in folders:
        name = folder
        if gbk and not folder.isascii():
            try:
                # Not all of GBK: its other pairs end in an ASCII letter, as accented letters of the West do.
                name = os.fsencode(folder).decode("gb2312")
            except UnicodeDecodeError:
                if _is_bytes(folder):
                    raise DataError(f"{root}: the name of its folder {folder!r} is not UTF-8: rename it") from None
        if any(ord(character) < 32 or ord(character) == 127 for character in name):
            raise DataError(f"{root}: the name of its folder {folder!r} holds control characters: rename it")
        names[folder] = name
    if len(set(names.values())) < len(names):
        raise DataError(f"{root}: two of its class folders have the same name, once as UTF-8 and once as GBK")
    return names


def archives_in(folder: Path) -> tuple[Path, ...]:
    """The tar or Parquet files of a folder, or of `data` in it, as on the Hugging Face hub."""
    for place in (folder, folder / "data"):
        for suffix in (".tar", ".parquet"):
            if found := sorted(path for path in place.glob(f"*{suffix}") if not path.name.startswith(".")):
                return tuple(found)
    return ()


def look(folder: Path) -> _Inside:
    """See what a folder holds, up to its first image; nothing where it cannot be read."""
    folders, archives = list[str](), False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - of every entry
                if is_folder(entry):
                    if entry.name.lower() not in _STRAY:
                        folders.append(entry.name)
                elif suffix in SUFFIXES:
                    return _Inside(images=True)
                archives |= suffix in (".tar", ".parquet")
    except OSError:
        return _Inside(images=False)
    return _Inside(images=False, folders=tuple(sorted(folders)), archives=archives)


def listed(names: Sequence[str]) -> str:
    """A few names for a message, and how many more there are."""
    shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def _entries(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Folders, stray folders, and files, sorted; hidden ones are left out."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    folders, stray, files = list[str](), list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    is_stray = entry.name.lower() in _STRAY
                    (stray if is_stray else folders if is_folder(entry) else files).append(entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    return sorted(folders), sorted(stray), sorted(files)


def _split_parts(
    folder: Path, folders: Sequence[str], files: Sequence[str], inside: Mapping[str, _Inside]
) -> dict[Split, tuple[Path, ...]]:
    """What there is of each split: a list file, else a folder, else archives.

    Raises DataError where two folders look like the same split.
    """
    archives = dict[Split, list[Path]]()
    for path in archives_in(folder):
        if split := split_of(path.name):
            archives.setdefault(split, []).append(path)
    # In this order val_list.txt takes the place of val.txt.
    listed_in: dict[Split, str] = {
        split: name
        for name in sorted(files, key=lambda name: "list" in name.lower())
        if name.lower().endswith(".txt") and (split := split_of(name))
    }
    parts: dict[Split, tuple[Path, ...]] = {split: tuple(paths) for split, paths in archives.items()}
    others = [name for name in folders if split_of(name) not in listed_in]  # pictures of a list may lie anyhow
    for split, names in _split_folders(folder, others, inside).items():
        if len(names) > 1:
            raise DataError(
                f"{folder}: {' and '.join(names)} may both be the images for {purpose(split)}: name one of them"
            )
        parts[split] = (folder / names[0],)
    for split, name in listed_in.items():
        parts[split] = (folder / name,)
    return parts


def split_of(name: str) -> Split | None:
    """The split that a folder, a list (.txt) or an archive (.tar, .parquet) of this name holds."""
    if name.lower().endswith(".txt"):
        match = _SPLIT_LIST.fullmatch(name)
    elif name.lower().endswith((".tar", ".parquet")):
        match = _SPLIT_ARCHIVE.search(name)
    else:
        match = _SPLIT.fullmatch(name)
    return SPLITS[match[1].lower()] if match else None


def _split_folders(folder: Path, folders: Sequence[str], inside: Mapping[str, _Inside]) -> dict[Split, list[str]]:
    """The folders of each split, or none where folders of these names are classes."""
    role: dict[str, Split] = {name: split for name in folders if (split := split_of(name))}
    if [name.lower() for name in role] == ["tr"]:  # too short to mean a split by itself: a country, a language …
        role = {}
    # A split holds folders of classes; a class called train, beside one called car, holds pictures.
    parts = [name for name in role if inside[name].nested and _holds_images(folder / name, inside[name])]
    flat = [name for name in role if inside[name].images]
    others = [name for name in folders if name not in role and _holds_images(folder / name, inside[name])]
    if not parts:
        if not others and {"train"} < {role[name] for name in flat}:
            raise DataError(
                f"{folder}: {listed(flat)} look like splits, but hold pictures instead of class folders: expected "
                f"{folder}/{flat[0]}/class_name/image.jpg, or list files such as train_list.txt"
            )
        return {}
    found = {role[name] for name in (*parts, *flat)}
    if others and not ("train" in found and len(found) > 1):
        if all(not inside[name].images for name in others):
            raise DataError(
                f"{folder}: {listed(parts)} looks like a split, {listed(others)} does not: name the folder that holds "
                f"the class folders, such as {folder / parts[0]}"
            )
        return {}
    result = dict[Split, list[str]]()
    for name in (*parts, *flat):
        result.setdefault(role[name], []).append(name)
    return result


def _take(folder: Path, split: Split, paths: tuple[Path, ...], known: Collection[str], depth: int) -> Found:
    [first, *more] = paths
    if more or first.suffix in (".tar", ".parquet"):
        return Found("archives", paths)
    if first.is_file():
        return Found("list", paths)
    found = find(first, split, known=known, depth=depth + 1)
    return replace(found, notes=(f"{first} is taken for the images for {purpose(split)}", *found.notes))


def instead(folder: Path | str, wanted: Split, taken: Split) -> list[str]:
    """What to say where images for one purpose are taken for another."""
    if wanted == taken:
        return []
    return [f"{folder} holds no images for {purpose(wanted)}: those for {purpose(taken)} are taken"]


def purpose(split: Split) -> str:
    """What a split is for."""
    return {"train": "training", "val": "validation", "test": "testing"}[split]


def _only(paths: tuple[Path, ...]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} …"


def _left_out(
    folder: Path,
    folders: Sequence[str],
    inside: Mapping[str, _Inside],
    parts: Mapping[Split, tuple[Path, ...]],
    stray: Sequence[str],
) -> list[str]:
    used = {path.name for paths in parts.values() for path in paths}
    if any(path.suffix.lower() == ".txt" for paths in parts.values() for path in paths):
        return []  # the lists say where the pictures are
    others = [name for name in folders if name not in used and name != "data"]  # data may hold the archives
    full = [name for name in others if _holds_images(folder / name, inside[name])]
    empty = [name for name in (*others, *stray) if name not in full]
    notes = [f"{folder}: left out, beside the splits: {listed(full)}"] if full else []
    return [*notes, *([f"{folder}: left out, as they hold no images: {listed(empty)}"] if empty else [])]


def _class_folders(
    folder: Path,
    folders: Sequence[str],
    inside: Mapping[str, _Inside],
    stray: Sequence[str],
    files: Sequence[str],
    split: Split,
    known: Collection[str],
    depth: int,
) -> Found:
    """The folder's own folders as classes, or what the only one of them holds."""
    pictures = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122
    if not folders:
        what = f"holds {len(pictures):,} pictures, but no class folders" if pictures else "no class folders"
        raise DataError(f"{folder}: {what}; expected {folder}/class_name/image.jpg")
    _refuse_annotations(folder, folders, inside)
    full = [name for name in folders if _holds_images(folder / name, inside[name])]
    if len(full) > 1:  # one may be a folder of archives
        full = [name for name in full if _holds_images(folder / name, inside[name], archives=False)]
    if not full:
        raise DataError(f"{folder}: none of its {len(folders)} class folders holds an image")
    empty = [*(name for name in folders if name not in full), *stray]
    notes = [f"{folder}: left out, as they hold no images: {listed(empty)}"] if empty else []
    if len(full) == 1 and not inside[full[0]].images and full[0] not in known:
        found = find(folder / full[0], split, known=known, depth=depth + 1)
        return replace(found, notes=(*notes, f"{folder / full[0]} is taken, the only folder there", *found.notes))
    notes += _check_level(folder, full, inside, known)
    if pictures:
        notes.append(
            f"{folder}: left out: {len(pictures):,} pictures beside the class folders, such as {listed(pictures[:1])}"
        )
    if odd := {name: text for name, text in class_names(folder, full).items() if name != text}:
        read = ", ".join(f"{name!r} as {text}" for name, text in list(odd.items())[:SHOWN])
        notes.append(f"names of folders that are not UTF-8 were read as GBK: {read}")
    return Found("classes", (folder,), tuple(full), notes=tuple(notes))


def _check_level(folder: Path, full: Sequence[str], inside: Mapping[str, _Inside], known: Collection[str]) -> list[str]:
    """Note, or raise DataError, where the classes may be one level below."""
    if any(inside[name].images for name in full) or set(full) <= set(known):
        return []
    below = [
        {sub for sub in inside[name].folders if _holds_images(folder / name / sub, look(folder / name / sub))}
        for name in full
    ]
    names = sorted(set[str]().union(*below))
    repeated = set(below[0]).intersection(*below[1:])
    if len(repeated) > 1 or (known and set(names) <= set(known)):
        raise DataError(
            f"{folder}: the classes seem to be one level below: {listed(full)} hold the folders {listed(names)}. Name "
            f"one of them, such as {folder / full[0]}, or write a list file"
        )
    if all(len(subs) == 1 for subs in below):  # n01440764/images/1.jpg
        return []
    return [f"the classes are {listed(full)}; the folders in these ({listed(names)}) are not"]


def _refuse_annotations(folder: Path, folders: Sequence[str], inside: Mapping[str, _Inside]) -> None:
    """Raise DataError for images/ beside labels/, as data sets for detection and segmentation have them."""
    images = next((name for name in folders if name.lower() in _PICTURES), None)
    labels = next((name for name in folders if name.lower() in _ANNOTATIONS), None)
    if images is None or labels is None or len(folders) > 4:
        return
    below = inside[images].folders
    where = f"name {folder / images}, if its folders ({listed(below)}) are the classes" if below else "sort the images"
    raise DataError(
        f"{folder}: {images} and {labels} are no classes, but pictures and what others say of them: {where}"
        + ("" if below else " into a folder for each class, or write a list file of `path label` lines")
    )


def _holds_images(folder: Path, inside: _Inside, depth: int = 0, *, archives: bool = True) -> bool:
    if inside.images or (archives and inside.archives):
        return True
    return depth < DEEPEST and any(
        _holds_images(folder / name, look(folder / name), depth + 1, archives=archives) for name in inside.folders
    )


def _is_bytes(name: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in name)
