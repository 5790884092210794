"""ONNX Runtime for browsers: one version, whose files are known by their content wherever they come from.

`npm` fetches its package once, from the registry that npm itself would ask (`npm_config_registry`); `cdn` leaves that
to visitors' browsers, which compare what they get; anything else is a place where the package already is.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from torchclas.errors import DownloadError, Error
from torchclas.weights.cache import published_path, show_download
from torchclas.weights.download import fetch, remove

VERSION = "1.30.0"
_REGISTRY = "https://registry.npmjs.org"
_PACKAGE = f"onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
_PACKAGE_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
CDN = "https://cdn.jsdelivr.net"

Provider = Literal["wasm", "webgpu"]  # what computes in the browser


@dataclass(frozen=True)
class Part:
    """One file of the package: its name in `dist`, what it is, and its size in bytes."""

    name: str
    integrity: str
    size: int

    @property
    def cdn(self) -> str:
        """Its address for those who do not keep it."""
        return f"{CDN}/npm/onnxruntime-web@{VERSION}/dist/{self.name}"


SCRIPTS: Mapping[Provider, Part] = {
    "wasm": Part(
        "ort.wasm.bundle.min.mjs",
        "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG",
        73_054,
    ),
    "webgpu": Part(
        "ort.webgpu.bundle.min.mjs",
        "sha384-1ntMeyj+z5diX6vBR5h+zlJBPc4iNvhCxE6nlammh8daBYcLBZkzrwDkuJjhwI+f",
        117_732,
    ),
}
BINARIES: Mapping[Provider, Part] = {
    "wasm": Part(
        "ort-wasm-simd-threaded.wasm",
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
        14_239_897,
    ),
    "webgpu": Part(
        "ort-wasm-simd-threaded.asyncify.wasm",
        "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
        26_781_914,
    ),
}
PARTS = (*SCRIPTS.values(), *BINARIES.values())


@dataclass(frozen=True)
class Runtime:
    """The content of each of `PARTS` by name; None where visitors fetch them from the CDN."""

    files: Mapping[str, bytes] | None


def find_runtime(choice: str | Path | None) -> Runtime:
    """The runtime from `npm`, the `cdn`, or a path: the package unpacked, its `dist` folder, or its archive.

    Without a choice it is what npm gave before.

    Raises:
        DownloadError: it cannot be fetched, or what came is something else.
        Error: nothing was chosen or is at that path, or it is another version.
    """
    if choice == "cdn":
        return Runtime(None)
    if choice == "npm":
        return Runtime(_of_archive(_fetched()))
    if choice is not None:
        return Runtime(_at(Path(choice)))
    kept = _kept()
    if not kept.is_file():
        raise Error(
            f"a site needs onnxruntime-web {VERSION}: add `--runtime npm`, which fetches it from the npm registry "
            "(33 MB, kept in the cache), `--runtime cdn`, with which visitors' browsers fetch it, or `--runtime PATH`, "
            "where its package is"
        )
    return Runtime(_of_archive(kept))


def integrity(content: bytes, algorithm: Literal["sha384", "sha512"] = "sha384") -> str:
    """What browsers and npm compare: `sha384-` and the digest in base64."""
    return f"{algorithm}-{base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"


def _kept() -> Path:
    return published_path(f"{_REGISTRY}/{_PACKAGE}")  # wherever it is fetched from


def _fetched() -> Path:
    given = (value for name, value in os.environ.items() if name.lower() == "npm_config_registry" and value)
    registry = next(given, _REGISTRY)
    url, path = f"{registry.rstrip('/')}/{_PACKAGE}", _kept()
    with show_download(f"onnxruntime-web {VERSION} from {urlsplit(url).hostname}") as progress:
        fetch(url, path, progress=progress, mirror=False)
    if integrity(path.read_bytes(), "sha512") != _PACKAGE_INTEGRITY:
        remove(path)
        raise DownloadError(
            f"{url}: what the registry sent is not onnxruntime-web {VERSION}, and was dropped: name another registry "
            "(npm_config_registry), or where the package is (`--runtime PATH`)"
        )
    return path


def _at(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return _of_archive(path)
    folder = next((place for place in (path / "dist", path) if (place / PARTS[0].name).is_file()), None)
    if folder is None:
        raise Error(f"{path}: no package onnxruntime-web is there: it has a folder dist with {PARTS[0].name}")
    return _checked(path, {part.name: _read(folder / part.name, part) for part in PARTS})


def _read(path: Path, part: Part) -> bytes:
    if not path.is_file() or path.stat().st_size != part.size:
        return b""  # which is not what it should be
    return path.read_bytes()


def _of_archive(path: Path) -> dict[str, bytes]:
    found = dict.fromkeys((part.name for part in PARTS), b"")
    sizes = {f"package/dist/{part.name}": part.size for part in PARTS}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.isfile() and sizes.get(member.name) == member.size:
                    file = archive.extractfile(member)
                    assert file is not None  # it is a file
                    found[Path(member.name).name] = file.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise Error(f"{path}: not an archive of npm ({error})") from error
    return _checked(path, found)


def _checked(path: Path, found: dict[str, bytes]) -> dict[str, bytes]:
    for part in PARTS:
        if integrity(found[part.name]) != part.integrity:
            raise Error(f"{path}: {part.name} is not that of onnxruntime-web {VERSION}: give that version's package")
    return found
