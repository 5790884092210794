"""The run folder: what a training run leaves behind, and all it needs to go on.

run.json            what the run was started with; another command on the same folder is an error
recipe.toml         the recipe, every setting resolved
environment.json    versions and machine, one entry for each time it was started
log.csv             one row per epoch
tensorboard/        the same for TensorBoard
last/               the two newest checkpoints: enough to go on bit by bit
best.safetensors    the best network so far, with all that other commands need to run it
"""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
import warnings
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock, Timeout

from torchclas.atomic import atomic_path
from torchclas.errors import Error, OutputError
from torchclas.layers.network import Network
from torchclas.recipes import Recipe
from torchclas.training.loop import Epoch, Progress
from torchclas.weights.checkpoint import save_checkpoint
from torchclas.weights.metadata import Metadata

_LOCK = ".lock"
FINGERPRINT = "fingerprint"  # the setting that stands for the images
KEPT = 2  # checkpoints: should the last not be readable, the one before is
_PACKAGES = (
    "torchclas",
    "torch",
    "lightning-fabric",
    "numpy",
    "opencv-python-headless",
    "pillow",
)


class RunError(Error):
    """A run folder that does not go with the command."""


@dataclass(frozen=True)
class RunFolder:
    """A folder on disk; `metadata` is what best.safetensors will say of itself."""

    path: Path
    metadata: Metadata

    @property
    def best(self) -> Path:
        """The best network so far."""
        return self.path / "best.safetensors"

    @property
    def log(self) -> Path:
        """One row per epoch."""
        return self.path / "log.csv"

    def begin(self, settings: Mapping[str, Any], recipe: Recipe) -> None:
        """Make the folder, or find it begun by the same command; call it while the folder is `owned`.

        `settings` decide what comes out of the run. Raises `RunError` where the folder's are others, or it holds
        something else.
        """
        check(self.path, settings, recipe)
        for folder in (self.path, self.path / "last"):  # what was being written when a process was killed
            for temporary in folder.glob(f".*.{'[0-9a-f]' * 12}*"):
                temporary.unlink(missing_ok=True)
        if not self.checkpoints():
            with atomic_path(self.path / "recipe.toml") as path:
                path.write_text(recipe.to_toml(), encoding="utf-8", errors="surrogateescape")
            _write_json(self.path / "run.json", dict(settings))
        starts = _read_json(self.path / "environment.json", [])
        _write_json(self.path / "environment.json", [*starts, environment()])

    @contextmanager
    def owned(self) -> Generator[None]:
        """Make the folder, and keep a second process from training in it; raises `RunError` where one does already."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK, timeout=0)
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"{self.path}: another process trains here: wait for it, or choose another folder"
            ) from error
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        return _checkpoints(self.path)

    def latest(self) -> dict[str, Any] | None:
        """The newest state that can be read; None where there is none. One that cannot is reported and passed over."""
        found = self.checkpoints()
        for path in reversed(found):
            try:
                return _read_state(path)
            except Exception as error:  # torch, zipfile and pickle raise all kinds for a damaged file
                warnings.warn(f"{path}: damaged, the checkpoint before it is taken instead ({error})", stacklevel=2)
        if found:
            raise RunError(f"{self.path / 'last'}: none of its checkpoints can be read: begin a new run elsewhere (-o)")
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state whole or not at all, and forget all but the two newest."""
        progress = state["progress"]
        target = self.path / "last" / f"epoch-{progress['epoch']:05d}-step-{progress['step']:07d}.pt"
        with atomic_path(target) as path:
            torch.save(state, path)
        for old in self.checkpoints()[:-KEPT]:
            old.unlink(missing_ok=True)

    def save_best(self, network: Network, row: Epoch, thresholds: tuple[float, ...] = ()) -> None:
        """Write best.safetensors, with the thresholds of its classes where images have several."""
        scores = {key: value for key, value in _known(row).items() if key.startswith("val_") or key == "epoch"}
        origin = {**self.metadata.origin, **scores}
        save_checkpoint(network, self.best, replace(self.metadata, origin=origin, thresholds=thresholds))

    def record(self, progress: Progress) -> None:
        """Write log.csv and, where tensorboard is installed, the events of the last epoch."""
        with atomic_path(self.log) as path, path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
            writer.writeheader()
            writer.writerows(_known(row) for row in progress.history)
        try:
            from torch.utils.tensorboard.writer import SummaryWriter

            str(self.path).encode()
        except (ImportError, UnicodeEncodeError):  # it writes to no path that is not UTF-8
            return
        row = _known(progress.history[-1])
        epoch = row.pop("epoch")
        # A writer of its own for every epoch: `purge_step` makes an epoch that is repeated after a kill count once.
        with SummaryWriter(str(self.path / "tensorboard"), purge_step=epoch) as writer:
            for name, value in row.items():
                writer.add_scalar(name.replace("_", "/", 1), value, epoch)

    def where(self) -> str:
        """Which files hold the run's last good state."""
        kept = self.checkpoints()
        last = f"{kept[-1]} is the last checkpoint" if kept else "there is no checkpoint yet"
        return f"{last}, {self.best} the best network" if self.best.exists() else last


def check(folder: Path, settings: Mapping[str, Any], recipe: Recipe) -> None:
    """Raise `RunError` unless `folder` is new or was begun with the same settings and recipe.

    A run that ended before its first checkpoint has nothing that another could spoil.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: choose a folder for the run (-o)")
    known = folder / "run.json"
    if not known.exists():
        if folder.is_dir() and any(entry.name not in ("recipe.toml", _LOCK) for entry in folder.iterdir()):
            raise RunError(f"{folder} is not empty and holds no training run: choose another folder (-o)")
        return
    if not _checkpoints(folder):
        return
    differences = _differences(_read_json(known, {}), json.loads(json.dumps(dict(settings))))
    written = folder / "recipe.toml"
    if not differences and written.exists():
        before = Recipe.from_toml(written.read_text(encoding="utf-8", errors="surrogateescape"))
        differences = _differences(_flat(before), _flat(recipe))
    if differences:
        shown = "; ".join(differences[:3]) + ("; …" if len(differences) > 3 else "")
        raise RunError(
            f"{folder} holds a run of another command ({shown}): repeat that one, or choose another folder (-o)"
        )


def stored(folder: Path) -> dict[str, Any]:
    """The settings that a run goes on with; empty where there is none, or it ended before its first checkpoint."""
    return _read_json(folder / "run.json", {}) if _checkpoints(folder) else {}


def _known(row: Epoch) -> dict[str, Any]:
    """The figures that a row has."""
    return {key: value for key, value in asdict(row).items() if value is not None}


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "last").glob("epoch-*.pt"))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    keys = [*old, *(key for key in new if key not in old)]
    different = [key for key in keys if old.get(key) != new.get(key)]
    if FINGERPRINT in different and len(different) == 1:
        return ["its images, or the folders of its classes, have been added, removed or renamed since"]
    return [f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in different if key != FINGERPRINT]


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Every setting under the name that --set knows it by."""
    flat: dict[str, Any] = {}
    for key, value in asdict(recipe).items():
        inner = cast(dict[str, Any], value) if isinstance(value, dict) else None
        flat |= {key: value} if inner is None else {f"{key}.{name}": found for name, found in inner.items()}
    return flat


def environment() -> dict[str, Any]:
    """What a run ran on."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read_state(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
    return torch.load(path, map_location="cpu", weights_only=True)


def _read_json(path: Path, default: Any) -> Any:
    if not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}): choose another folder for the run (-o)") from error


def _write_json(path: Path, values: object) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")  # lone surrogates, as JSON escapes them
