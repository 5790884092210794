"""The `weights` commands: fetch published weights, convert and inspect files, tidy the cache."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torchclas import catalog
from torchclas.atomic import locked
from torchclas.catalog import Entry
from torchclas.errors import CheckpointError, Error, UnknownNameError
from torchclas.messages import label
from torchclas.reporting.amounts import mebibytes
from torchclas.reporting.console import Console, escape, print_pairs
from torchclas.sizes import show_size
from torchclas.version import __version__
from torchclas.weights import cache
from torchclas.weights.exported import SUFFIXES as EXPORTED_SUFFIXES
from torchclas.weights.location import CARD, checkpoint, converted_path, is_converted

if TYPE_CHECKING:
    from torch import Tensor

    from torchclas.weights.metadata import Metadata
    from torchclas.weights.naming import Format


def choose(names: Sequence[str], *, everything: bool, series: str | None) -> list[Entry]:
    """The entries that names and globs such as `PPLCNet*` stand for, each once.

    `everything` and `series` stand for those whose weights were published.
    """
    chosen = [entry for name in names for entry in _named(name)]
    if everything or series is not None:
        chosen += [entry for entry in map(catalog.find, catalog.names(series=series)) if entry.weights is not None]
    if not chosen:
        raise Error("name the models (globs such as 'PPLCNet*' will do), or say --series NAME or --all")
    return list({entry.name: entry for entry in chosen}.values())


def fetch(entries: Sequence[Entry], console: Console, errors: Console) -> bool:
    """Fetch and convert what is not here yet, whatever becomes of the others; return whether all of it is here."""
    from torchclas.weights.published import published_file  # torch, which what is here already does not need

    fetched, failed, size = 0, 0, 0
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        here = is_converted(entry)
        try:
            bytes_here = (converted_path(entry) if here else published_file(entry)).stat().st_size
        except Error as error:
            failed += 1
            errors.print(f"{entry.name:<{width}}  [bold red]failed[/]: {escape(str(error))}", **_PLAIN)
            continue
        fetched += not here
        size += bytes_here
        state = "already here" if here else "fetched"
        console.print(f"{entry.name:<{width}}  {mebibytes(bytes_here):>12}  {label(state)}", **_PLAIN)
    here = len(entries) - failed - fetched
    problem = f", [bold red]{failed} failed[/]" if failed else ""
    counts = f"{fetched} fetched, {here} already here{problem}"
    console.print(f"{counts}; {mebibytes(size)} altogether in {escape(str(cache.cache_dir()))}", **_PLAIN)
    return not failed


def convert(source: Path, destination: Path, *, model: str | None, layout: str, labels: Path | None = None) -> None:
    """Convert a weights file to our own format, or, where `destination` ends in .pdparams, to PaddlePaddle's.

    `labels` is a file with names of the classes, for weights that do not say.

    Raises:
        CheckpointError: the file cannot be read, or does not fit the model exactly.
        UnknownNameError: no such model, or the architecture has no such layout.
    """
    from torchclas.spec import find_model
    from torchclas.weights.checkpoint import save_checkpoint
    from torchclas.weights.export import to_pdparams
    from torchclas.weights.metadata import origin_of
    from torchclas.zoo import load_model

    if destination.suffix not in (".safetensors", ".pdparams"):
        raise Error(f"{destination}: the name must end in .safetensors (torchclas) or .pdparams (PaddlePaddle)")
    spec = find_model(model, weights=source, labels=labels)
    network = load_model(spec)
    if destination.suffix == ".pdparams":
        to_pdparams(network, destination, layout=layout)
        return
    assert spec.path is not None
    save_checkpoint(network, destination, spec.metadata(**origin_of(spec.path)))


@dataclass(frozen=True)
class Pushed:
    """What was pushed: its page on the Hub, its lasting address, the size of all files in bytes.

    `error` is the largest one of timm's logits, relative to the largest logit; None where timm has no such network.
    """

    url: str
    address: str
    size: int
    error: float | None
    card_kept: bool


def push(
    model: str | Path,
    repository: str,
    *,
    weights: Path | None = None,
    labels: Path | None = None,
    message: str | None = None,
    license: str | None = None,  # noqa: A002 - the Hub's word
    private: bool = False,
    new_card: bool = False,
) -> Pushed:
    """Upload a model to the repository `OWNER/NAME` of the Hugging Face Hub, with its page.

    The model is named as for `torchclas.Classifier`. Where timm has the network, the files are those of
    `export --to timm`, compared first; else they are a checkpoint of ours. `license` is what its page states, an SPDX
    identifier.

    Raises:
        CheckpointError: the model is an exported one.
        DivergenceError: timm computes something else.
        DownloadError: the Hub does not allow it, or cannot be reached.
    """
    from torchclas.exporting.files import WEIGHTS
    from torchclas.exporting.repository import write_repository
    from torchclas.reporting.model_card import PublishedAs, model_card
    from torchclas.spec import find_model
    from torchclas.weights import hub
    from torchclas.weights.metadata import origin_of
    from torchclas.zoo import load_model, weights_of

    repository = repository.removeprefix("hf://")
    hub.check_push(repository)
    spec = find_model(model, weights=weights, labels=labels)
    if spec.graph is not None:
        raise CheckpointError(f"{spec.path} was exported already: push the checkpoint that it was made from")
    network = load_model(spec)
    with TemporaryDirectory(prefix="torchclas-") as place:
        folder = Path(place) / "repository"
        compared = write_repository(network, folder, spec.metadata(**origin_of(weights_of(spec))))
        there = PublishedAs(repository, folder / WEIGHTS, None if compared is None else compared[0])
        card = model_card(spec, address=f"hf://{repository}", license=license, published_as=there)
        (folder / CARD).write_text(card, encoding="utf-8", errors="replace")
        size = sum(file.stat().st_size for file in folder.iterdir())
        message = message or f"{spec.file_name}, pushed by torchclas {__version__}"
        done = hub.push(folder, repository, message=message, private=private, new_card=new_card)
    error = None if compared is None else compared[1]
    return Pushed(done.url, f"hf://{repository}@{done.commit}", size, error, done.card_kept)


def inspect(path: Path, console: Console, *, model: str | None, list_tensors: bool) -> bool:
    """Say what a weights file is; return whether it fits `model` (or, without one, can be read)."""
    from torchclas.weights.hub import address_of, fetch
    from torchclas.weights.metadata import find_metadata

    address = address_of(path)
    path = checkpoint(path) if address is None else fetch(address)[0]
    metadata = find_metadata(path)
    lines = [("file", f"{path} ({mebibytes(path.stat().st_size)})")]
    if metadata is not None and path.suffix in EXPORTED_SUFFIXES:
        lines += [("format", _EXPORTED[path.suffix]), *_of_metadata(metadata)]
        fits = model is None or catalog.find(model).arch == metadata.arch
        if model is not None:
            lines.append((f"as {model}", "it was exported from that" if fits else f"it is a {metadata.arch}"))
        print_pairs(lines, console)
        return fits

    import torch

    from torchclas.weights.load import read_checkpoint
    from torchclas.weights.metadata import find_metadata

    kind, tensors = read_checkpoint(path)
    arrays = {name: torch.as_tensor(value) for name, value in tensors.items()}
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in Counter(map(_dtype, arrays.values())).items())
    values = sum(tensor.numel() for tensor in arrays.values())
    bad = [name for name, tensor in arrays.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    lines += [
        ("format", _FORMATS[kind]),
        ("tensors", f"{len(arrays)} ({dtypes}), {values:,} values"),
        ("NaN, infinity", f"in {len(bad)}: {_some(bad)}" if bad else "none"),
    ]
    if metadata is not None:
        lines += _of_metadata(metadata)
    elif model is None:
        from torchclas.weights.identity import recognise

        found = recognise(path, kind, tensors)
        lines.append(
            ("fits", _some(list(map(str, found)), 8) or "no architecture here exactly; -m NAME says what differs")
        )
        if found:
            lines.append(("use it", f"-m {found[0].arch} --weights {shlex.quote(str(path))}"))
    fits = True
    if model is not None:
        fits, verdict = _coverage(path, model, kind, tensors)
        lines.append((f"as {model}", verdict))
    print_pairs(lines, console)
    if list_tensors:
        pairs = [(name, f"{_dtype(tensor)} {list(tensor.shape)}") for name, tensor in arrays.items()]
        console.print()
        print_pairs(pairs, console)
    return fits


def path_of(name: str | None) -> Path:
    """The folder of the cache, or the file in it that holds a model's weights once they are fetched."""
    return cache.cache_dir() if name is None else converted_path(catalog.find(name))


def clear(names: Sequence[str], *, everything: bool) -> int:
    """Delete cached weights of some models, or all; return the number of bytes freed."""
    if everything:
        return cache.clear()
    return sum(_delete(path) for entry in choose(names, everything=False, series=None) for path in _files_of(entry))


_PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False}
_EXPORTED = {
    ".onnx": "ONNX, a whole model",
    ".xml": "OpenVINO, a whole model",
    ".param": "ncnn, a whole model",
    ".mnn": "MNN, a whole model",
    ".pte": "ExecuTorch, a whole model",
}
_FORMATS = {
    "paddle": "PaddlePaddle (.pdparams)",
    "paddle-onnx": "ONNX, exported from PaddlePaddle",
    "paddle-inference": "an inference model of PaddlePaddle (program and .pdiparams)",
    "torch": "PyTorch",
    "torchclas": "safetensors",
}


def _named(name: str) -> Iterable[Entry]:
    if not any(character in name for character in "*?["):
        return [catalog.find(name)]
    found = catalog.names(name)
    if not found:
        raise UnknownNameError("model", name, catalog.names())
    return map(catalog.find, found)


def _of_metadata(metadata: Metadata) -> list[tuple[str, str]]:
    """What a file of ours says of itself."""
    channels = "" if metadata.in_channels == 3 else f", input channels: {metadata.in_channels}"
    preset = metadata.preset
    before = f"{preset.resize_short} → " if preset.fit == "crop" else f"{preset.fit} to "
    size = f"{before}{show_size(preset.size)}"
    return [
        ("model", f"{metadata.name or metadata.arch} ({metadata.arch}{channels})"),
        ("classes", f"{metadata.num_classes} ({metadata.labels or _some(metadata.class_names)})"),
        ("preprocessing", f"{size}, {metadata.preset.interpolation} ({metadata.preset.backend})"),
        *((key, str(value)) for key, value in metadata.origin.items()),
    ]


def _coverage(path: Path, model: str, kind: Format, tensors: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the file is exactly what `model` needs, with any number of classes, and the report in words."""
    import torch

    from torchclas import models
    from torchclas.weights.identity import identify
    from torchclas.weights.load import load_weights

    entry = catalog.find(model)
    try:
        found = identify(path, entry.arch, kind, tensors)
        classes, channels = found.num_classes or entry.num_classes, found.in_channels
        with torch.device("meta"):
            network = models.build(entry.arch, num_classes=classes, in_channels=channels)
        report = load_weights(network, path, strict=False)
    except CheckpointError as error:
        return False, str(error)
    others = f", {classes} classes" if classes != entry.num_classes else ""
    return report.complete, f"{report.summary()}{others}"


def _files_of(entry: Entry) -> Iterator[Path]:
    if entry.weights is None:
        return
    converted = converted_path(entry)
    yield from (converted, cache.record_path(converted))
    yield from cache.compiled_folder(converted.stem).parent.glob(f"{converted.stem}-*/*")
    if entry.weights.url:
        fetched = cache.published_path(entry.weights.url)
        yield from (fetched.with_name(f"{fetched.name}{ending}") for ending in ("", ".json", ".part", ".part.json"))


def _delete(path: Path) -> int:
    if not path.is_file():
        return 0
    with locked(path):  # not while another process is writing it
        return cache.delete(path)


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" … ({len(names)} in all)" if len(names) > most else "")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
