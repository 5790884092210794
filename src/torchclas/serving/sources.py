"""What the names of a service stand for: published models, and files of the operator's.

Files are served from copies. Engines map a model's file into memory, and one that is written over in place, as `cp`
does, would take the process down with it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torchclas.atomic import atomic_path, locked
from torchclas.errors import CheckpointError, Error, OutputError
from torchclas.serving.options import ServeOptions, split_name, twice
from torchclas.spec import find_model
from torchclas.weights import cache
from torchclas.weights.hub import address_of
from torchclas.weights.kinds import SUFFIXES
from torchclas.weights.location import checkpoint

log = logging.getLogger(__name__)

_BESIDE = (".bin", ".pdiparams")  # where the weights of a program are
_ABOUT = "inference.yml"  # what stands beside an inference model of PaddlePaddle

Fingerprint = tuple[tuple[str, int, int, int], ...]  # name, inode, size and time of change of each file


@dataclass(frozen=True)
class Source:
    """What a name stands for: a published name, an address of the Hugging Face Hub, or a file or folder."""

    name: str
    model: str | Path | None
    labels: Path | None = None

    def fingerprint(self) -> Fingerprint:
        """What changes when the files do; empty of a published model."""
        found: list[tuple[str, int, int, int]] = []
        for file in self._files():
            with suppress(FileNotFoundError):
                status = file.stat()
                found.append((file.name, status.st_ino, status.st_size, status.st_mtime_ns))
        return tuple(found)

    def snapshot(self) -> tuple[str | Path | None, Fingerprint]:
        """The model, or a copy of its files, and the fingerprint that those had.

        Raises:
            CheckpointError: the files change meanwhile.
        """
        before, files = self.fingerprint(), self._files()
        if not files:
            return self.model, before
        place = hashlib.sha256(str(files[0].absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        folder = cache.compiled_folder(f"served-{place}")
        try:
            with locked(folder / files[0].name):
                for file in files:
                    if not _same(file, folder / file.name):  # another process may have copied it
                        with atomic_path(folder / file.name) as temporary:
                            shutil.copyfile(file, temporary)
                            shutil.copystat(file, temporary)  # by which what engines compiled of it is found again
        except OutputError as error:
            log.warning("%s is served from its own file, which must not be written over: %s", self.name, error)
            return files[0], before
        except OSError as error:
            raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from None
        if self.fingerprint() != before:
            raise CheckpointError(f"{files[0]}: it is being written")
        return folder / files[0].name, before

    def _files(self) -> list[Path]:
        """The file that is opened, and those that it needs beside it; none of a published model."""
        with suppress(Error, OSError):
            if isinstance(self.model, Path):
                path = checkpoint(self.model)
                beside = [path.with_suffix(suffix) for suffix in _BESIDE if suffix != path.suffix]
                if any(file.suffix == ".pdiparams" and file.exists() for file in beside):
                    beside.append(path.with_name(_ABOUT))
                return [path, *(file for file in beside if file.is_file())]
        return []


def sources(options: ServeOptions) -> list[Source]:
    """What the models of the start stand for.

    Raises:
        What `torchclas.spec.find_model` does; Error for two of one name, or a repository that is no folder.
    """
    if options.repository is not None and not options.repository.is_dir():
        raise Error(f"--repository {options.repository}: no such folder")
    models = options.models or (() if options.repository is not None else (None,))
    found: list[Source] = []
    for text in models:
        name, model = (None, None) if text is None else _named(text)
        spec = find_model(model, labels=options.labels)
        if spec.address is not None:
            model = str(spec.address)
        elif model is not None and spec.path is not None and Path(model).exists():
            model = Path(model).absolute()
        found.append(Source(name or spec.file_name, model, options.labels))
    if name := twice([source.name for source in found]):
        raise Error(f"two models are called {name}: give one of them a name of its own (NAME={name})")
    return found


def pinned(options: ServeOptions) -> ServeOptions:
    """The same with models of the Hugging Face Hub as they are now, for every process and as long as it serves.

    Raises:
        What `sources` does.
    """
    models = zip(options.models, sources(options), strict=False)  # none are named where there is a default
    return replace(
        options,
        models=tuple(f"{source.name}={source.model}" if address_of(source.model) else text for text, source in models),
    )


def in_repository(folder: Path | None) -> dict[str, Source]:
    """The models in a folder: files, and folders of runs, by their names without suffix."""
    if folder is None:
        return {}
    try:
        with os.scandir(folder) as entries:
            paths = sorted(Path(entry.path).absolute() for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        log.warning("%s cannot be listed: %s", folder, error.strerror)
        return {}
    # Of several files of one name, as exports write them, the first kind of `SUFFIXES`.
    ranked = sorted((SUFFIXES.index(path.suffix), path) for path in paths if path.suffix in SUFFIXES and path.is_file())
    found = {path.stem: Source(path.stem, path) for _, path in reversed(ranked)}
    return {**{path.name: Source(path.name, path) for path in paths if path.is_dir()}, **found}


def _named(text: str) -> tuple[str | None, str | Path]:
    return (None, text) if Path(text).exists() else split_name(text)


def _same(file: Path, copy: Path) -> bool:
    try:
        one, other = file.stat(), copy.stat()
    except FileNotFoundError:
        return False
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
