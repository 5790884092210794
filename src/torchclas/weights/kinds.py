"""What kind of file was given as weights, told by its beginning and its name; asking costs no import of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torchclas.errors import CheckpointError

Kind = Literal["safetensors", "torch", "paddle", "inference", "onnx", "openvino", "runtime"]

# What names of files with weights, or with whole models, end in; those that nothing here reads are told apart too.
SUFFIXES = (
    ".safetensors", ".pdparams", ".pth", ".pt", ".ckpt", ".onnx", ".xml", ".param", ".mnn", ".pte", ".pt2", ".pdmodel",
    ".pdiparams", ".pdopt", ".bin", ".engine", ".h5", ".tflite",
)  # fmt: skip

# The files of an inference model of PaddlePaddle.
PARAMETERS = ".pdiparams"
PROGRAMS = (".json", ".pdmodel")  # of PaddlePaddle 3, which comes first where both are there, and 2

_TAKEN = (
    "weights are taken from .safetensors, .pdparams, .pth, a Paddle inference model, or .onnx that paddle2onnx wrote; "
    "whole models from files that `torchclas export` wrote"
)
_LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # of files before torch 1.6

_NCNN = b"7767517\n"  # the first line of ncnn's text files

# Kinds that a name tells, whatever the content.
_BY_SUFFIX = {
    ".json": f"a JSON file, and no program of PaddlePaddle 3: {_TAKEN}",
    ".pdopt": "the state of a Paddle optimizer: the weights are in the .pdparams file beside it",
    ".pdstates": "the metrics of a Paddle run: the weights are in the .pdparams file beside it",
    ".pt2": "a program that torch.export wrote, for torch.export.load: give the model it was exported from",
    ".engine": "a TensorRT engine, which TensorRT runs: give the model it was exported from",
}
# Kinds that the first bytes tell.
_BY_START: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights: run `git lfs pull`"),
    (b"\x1f\x8b", "a compressed file: unpack it first"),
    (b"BZh", "a compressed file: unpack it first"),
    (b"\xfd7zXZ", "a compressed file: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a compressed file: unpack it first"),
    (b"Rar!", "a compressed file: unpack it first"),
    (b"\xff\xd8\xff", "a picture: pictures are given without an option"),
    (b"\x89PNG", "a picture: pictures are given without an option"),
    (b"\x89HDF", f"an HDF5 file, as Keras writes them: {_TAKEN}"),
    (b"ftrt", "a TensorRT engine, which TensorRT runs: give the model it was exported from"),
)


def kind_of(path: Path) -> Kind:
    """The kind of a file that holds weights or a model.

    Raises CheckpointError: it is not there, cannot be read, or is of another kind, which is named.
    """
    try:
        if path.is_dir():
            raise CheckpointError(f"{path}: a folder, where a file of weights is needed")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    kind = _weights(path, start, size)
    if kind is None:
        raise CheckpointError(f"{path}: {_other(path, start)}")
    return kind


def _weights(path: Path, start: bytes, size: int) -> Kind | None:
    suffix = path.suffix.lower()
    if (suffix in (".pdmodel", PARAMETERS) and start) or (suffix == ".json" and b'"pir"' in start):
        return "inference"
    if suffix in _BY_SUFFIX:
        return None
    if start[8:9] == b"{" and 8 + int.from_bytes(start[:8], "little") <= size:
        return "safetensors"
    if start.startswith((b"PK\x03\x04", _LEGACY_TORCH)):
        return "torch"
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "paddle"
    if suffix == ".onnx":
        return "onnx" if start and not _is_markup(start) else None
    if suffix == ".pte":
        return "runtime" if start[4:6] == b"ET" else None
    if suffix == ".mnn":  # FlatBuffers begin with no word of their own
        return "runtime" if start and not _is_markup(start) else None
    if suffix == ".param":
        return "runtime" if start.startswith(_NCNN) else None
    return "openvino" if suffix == ".xml" and b"<net" in start else None


def _other(path: Path, start: bytes) -> str:
    suffix = path.suffix.lower()
    if not start:
        return "the file is empty: what wrote or fetched it did not finish"
    if start.startswith(b"\0\0\0\0"):
        return "looks like the parameters of a Paddle inference model: its name must end in .pdiparams"
    if found := next((what for magic, what in _BY_START if start.startswith(magic)), None) or _BY_SUFFIX.get(suffix):
        return f"is {found}"
    if start[257:262] == b"ustar":
        return "is an archive: unpack it first"
    if start[4:8] == b"TFL3":
        return f"is a TensorFlow Lite model: {_TAKEN}"
    if _is_markup(start):
        return "is a web page (HTML or XML) saved as weights: check the address that it came from"
    if suffix == ".safetensors":
        return "is no safetensors file, or was cut off: get it again from where it came from"
    if _is_text(start):
        return f"is a text file: {_TAKEN}"
    return f"is of a kind that is not known here, or damaged: {_TAKEN}"


def _is_markup(start: bytes) -> bool:
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        text = "" if error.start < len(start) - 3 else start[: error.start].decode("utf-8")
    return bool(text) and all(character.isprintable() or character in "\t\r\n" for character in text)


def files_of(path: Path) -> tuple[Path, Path]:
    """The program and the parameters of the inference model that one of the two is given of.

    Raises CheckpointError: the other is not beside it.
    """
    if path.suffix.lower() != PARAMETERS:
        parameters = path.with_suffix(PARAMETERS)
        if not parameters.is_file():
            raise CheckpointError(
                f"{path}: the program of an inference model; its weights, {parameters.name}, are missing"
            )
        return path, parameters
    for suffix in PROGRAMS:
        if (program := path.with_suffix(suffix)).is_file():
            return program, path
    names = " or ".join(path.with_suffix(suffix).name for suffix in PROGRAMS)
    raise CheckpointError(f"{path}: the weights of an inference model; put its program, {names}, beside it")
