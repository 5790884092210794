"""What engines run, kept: networks as ONNX files, quantized ones, and what OpenVINO compiles of them.

Each network has a folder in the cache, named after its weights and the versions that write the file. What it takes to
run a network from there is the name of its weights, so a second start imports no torch.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from torchclas import catalog
from torchclas.atomic import locked
from torchclas.engines.forks import with_openmp
from torchclas.engines.graph import check_operators
from torchclas.engines.machine import this_machine
from torchclas.errors import CheckpointError
from torchclas.messages import say
from torchclas.sizes import show_size
from torchclas.spec import ModelSpec
from torchclas.text import printable
from torchclas.version import __version__
from torchclas.vocabulary import OUTPUTS, Output
from torchclas.weights import cache
from torchclas.weights.exported import operators
from torchclas.weights.location import converted_name
from torchclas.weights.metadata import read_metadata

log = logging.getLogger(__name__)

_NETWORK, _WITH_EMBEDDING = "network.onnx", "network-embedding.onnx"
_OF_CACHE: dict[str, tuple[Output, ...]] = {_NETWORK: ("logits",), _WITH_EMBEDDING: OUTPUTS}  # what these files give
_LAYOUT = 1  # of the folder; counts up when older ones must not be read any more


def folder(spec: ModelSpec) -> Path:
    """Where what engines run of a network is kept; it need not exist yet."""
    makers = _short(_LAYOUT, __version__, metadata.version("torch"))
    return cache.compiled_folder(f"{_weights_name(spec)}-{makers}")


def graph_file(spec: ModelSpec, outputs: tuple[Output, ...] = ("logits",)) -> Path:
    """The network as an ONNX file with at least these outputs, or the exported model that `spec` is.

    It is written at the first call.

    Raises:
        CheckpointError, DownloadError: the weights cannot be had.
        MissingDependencyError: what writing ONNX takes is not installed.
        OutputError: the cache cannot be written.
    """
    if spec.graph is not None:
        assert spec.path is not None
        return spec.path
    path = folder(spec) / (_NETWORK if outputs == ("logits",) else _WITH_EMBEDDING)
    if not path.is_file():
        with cache.writing(), locked(path):
            if not path.is_file():  # another process may have written it meanwhile
                _export(spec, path)
    return path


def graph_outputs(spec: ModelSpec, path: Path) -> tuple[Output, ...]:
    """What the graph of a model gives, by `graph_file` or `int8_file`; raises what `before_reading` does."""
    if spec.graph is not None:
        return spec.outputs
    if path.name in _OF_CACHE:
        return _OF_CACHE[path.name]
    before_reading(spec, path)  # of one that is damaged, nothing counts
    return read_metadata(path).outputs


def before_reading(spec: ModelSpec, path: Path) -> None:
    """Look at a graph, before an engine reads it, for what would end badly: damage, and loops in files of others.

    A damaged network of the cache is written anew.

    Raises:
        CheckpointError: the file cannot be relied on.
        What `graph_file` does.
    """
    intact = cache.is_intact(path)
    if spec.graph is None and path.name in _OF_CACHE:
        if not intact:
            with cache.writing(), locked(path):
                if not cache.is_intact(path):
                    log.info("%s is damaged, and written anew", path)
                    _export(spec, path)
        return
    if intact is False:
        raise CheckpointError(f"{path} has changed since it was written: run `torchclas quantize` again")
    if path.suffix == ".onnx":
        check_operators(path, operators(path))


def int8_path(spec: ModelSpec) -> Path:
    """Where the quantized network is kept once `torchclas quantize` has made it."""
    return folder(spec) / "int8.onnx"


def int8_file(spec: ModelSpec) -> Path:
    """The quantized network; raises `CheckpointError` where there is none yet."""
    if spec.graph == "int8":
        return graph_file(spec)
    path = int8_path(spec)
    if spec.graph is not None or not path.is_file():
        model = spec.name if spec.path is None else spec.path
        raise CheckpointError(
            f"{model} has not been quantized: run `torchclas quantize {model} --calibration FOLDER` with some hundred "
            "of your images first"
        )
    return path


def derived(spec: ModelSpec, graph: Path, name: str, *facts: object) -> Path:
    """Where to keep what was made of `graph` for this machine; `facts` are whatever else it depends on."""
    file, (stem, _, suffix) = graph.stat(), name.rpartition(".")
    return folder(spec) / f"{stem}-{_short(file.st_size, file.st_mtime_ns, this_machine().id, *facts)}.{suffix}"


def _weights_name(spec: ModelSpec) -> str:
    """Tells weights, and the network they are loaded into, apart."""
    if spec.path is None:
        return converted_name(catalog.find(spec.name)).removesuffix(".safetensors")
    try:
        file = spec.path.stat()
    except OSError as error:
        raise CheckpointError(f"{spec.path}: cannot be read ({error.strerror})") from error
    network = spec.arch, spec.num_classes, spec.in_channels, show_size(spec.preset.size)
    # The path comes first: what was made of a file's earlier contents is recognised by it.
    return f"{spec.path.stem[:64]}-{_short(spec.path.resolve(), *network)}-{_short(file.st_size, file.st_mtime_ns)}"


def _export(spec: ModelSpec, path: Path) -> None:
    from torchclas.exporting.files import folder_beside, give_names
    from torchclas.exporting.onnx import write_onnx
    from torchclas.zoo import load_model

    if sys.stderr.isatty():
        print(say(f"preparing {printable(spec.name)} for this machine, once …"), file=sys.stderr)
    metadata = replace(spec.metadata(), outputs=_OF_CACHE[path.name])
    with folder_beside(path) as building:
        with_openmp(lambda: write_onnx(load_model(spec).fuse(), building / path.name, metadata))
        cache.record(path, *give_names(building, path))
    _drop_outdated(spec, path.parent)


def _drop_outdated(spec: ModelSpec, current: Path) -> None:
    """Remove what was made of a file's earlier contents: training writes the same name again and again."""
    if spec.path is None:
        return
    weights = _weights_name(spec)
    network = weights.rpartition("-")[0]
    for other in current.parent.iterdir():
        if other.name.startswith(f"{network}-") and not other.name.startswith(f"{weights}-"):
            shutil.rmtree(other, ignore_errors=True)


def _short(*facts: object) -> str:
    return hashlib.sha256(repr([str(fact) for fact in facts]).encode()).hexdigest()[:8]
