"""Files of torch.save: what is read of them, and what is refused before it is read."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import resource
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchclas.errors import CheckpointError
from torchclas.weights.torch_file import PREFIXES, WRAPPERS, read_torch

STATE: dict[str, Tensor] = {
    "conv.weight": torch.randn(4, 3, 3, 3),
    "bn.bias": torch.randn(4).half(),
    "bn.num_batches_tracked": torch.tensor(7),
    "fc.weight": torch.randn(5, 4).bfloat16(),
    "mask": torch.tensor([True, False]),
}
FORMS: list[dict[str, Any]] = [
    {},
    {"pickle_protocol": 4},
    {"pickle_protocol": 5},
    {"_use_new_zipfile_serialization": False},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 3},
]


def same(read: dict[str, Tensor], expected: dict[str, Tensor] = STATE) -> bool:
    return list(read) == list(expected) and all(
        read[name].dtype == tensor.dtype and torch.equal(read[name], tensor) for name, tensor in expected.items()
    )


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_state_dicts_of_any_version(tmp_path: Path, form: dict[str, Any]) -> None:
    path = tmp_path / "a.pth"
    torch.save(STATE, path, **form)
    assert same(read_torch(path))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_training_checkpoints(tmp_path: Path, form: dict[str, Any]) -> None:
    """Optimizers, options and objects of any class beside the weights are passed over."""
    module = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    others: dict[Any, Any] = {
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1),
        "epoch": 3,
        (1, 2): {4},
    }
    path = tmp_path / "a.pth"
    torch.save(
        {"model": STATE, **others, "text": "x" * 5000, "half": torch.zeros(2, dtype=torch.complex64)}, path, **form
    )
    assert same(read_torch(path))


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("prefix", ["", *PREFIXES, "module._orig_mod."])
def test_wrappers_and_prefixes(tmp_path: Path, wrapper: str, prefix: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"epoch": 3, wrapper: {prefix + name: tensor for name, tensor in STATE.items()}}, path)
    assert same(read_torch(path))


def test_averaged_weights_go_first_and_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": STATE, "ema": {"decay": 0.999}}, path)
    with pytest.warns(UserWarning, match=r"a\.pth: the weights are those of state_dict_ema, not of state_dict"):
        assert same(read_torch(path))
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    torch.save(averaged.state_dict(), path)
    assert list(read_torch(path)) == ["weight", "bias"]


def test_views_parameters_and_tied_weights(tmp_path: Path) -> None:
    large = torch.arange(24.0).reshape(4, 6)
    state = {"t": large.T, "row": large[1], "step": large[::2, 1:], "again": large, "p": nn.Parameter(large)}
    path = tmp_path / "a.pth"
    torch.save(state, path)
    assert same(read_torch(path), {name: tensor.detach() for name, tensor in state.items()})


def test_a_large_file_takes_its_own_size_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(2**24), "optimizer": 3} | {"model": {"w": torch.zeros(2**24)}}, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_torch(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.3 * 2**16  # kB: of "model" alone


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_nothing_is_run(tmp_path: Path, form: dict[str, Any]) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": STATE, "hook": Bomb(tmp_path / "ran")}, path, **form)
    assert same(read_torch(path))
    torch.save({"weight": Bomb(tmp_path / "ran")}, path, **form)
    with pytest.raises(CheckpointError, match="no weights under a usual name"):
        read_torch(path)
    assert not (tmp_path / "ran").exists()


class WithEndlessKey(OrderedDict[object, Tensor]):
    """Has beside the weights a key that holds itself twice, and so on: whoever hashes it never comes to an end."""

    def __reduce__(self) -> Any:
        key: object = "x"
        for _ in range(100):
            key = (key, key)
        return OrderedDict, (), None, None, iter([*STATE.items(), (key, torch.zeros(1))])


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    QUANTIZED = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    SPARSE = torch.eye(3).to_sparse_csr()
    NESTED = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
UNUSABLE: dict[str, tuple[object, str]] = {
    "list": ([torch.zeros(1)], "a tensor or a list"),
    "tensor": (torch.zeros(1), "a tensor or a list"),
    "number": (5, "not a dictionary"),
    "module": (nn.Linear(2, 2), r"a whole object \(torch\.nn\.modules\.linear\.Linear\)"),
    "nothing": ({}, "no tensors"),
    "others": ({"epoch": 3, "lr": "x"}, r"no weights under a usual name, but epoch \(3\), lr \(text\)"),
    "mixed": ({**STATE, "epoch": 3}, r"besides 5 tensors it holds what is none: epoch \(3\)"),
    "number as key": ({**STATE, 3: torch.zeros(1)}, r"what is none: 3"),
    "tuple as key": (WithEndlessKey(), "what is none: a key"),
    "bytes as key": ({**STATE, b"\x1b[31m": torch.zeros(1), 2.5: 1}, "is none"),
    "sparse": ({"w": torch.eye(3).to_sparse()}, "w \\(a sparse tensor"),
    "sparse csr": ({"w": SPARSE}, "w \\(a sparse tensor"),
    "meta": ({"w": torch.zeros(3, device="meta")}, "meta device"),
    "quantized": ({"w": QUANTIZED}, "quantized"),
    "nested": ({"w": NESTED}, "nested"),
    "complex": ({"w": torch.zeros(3, dtype=torch.complex64)}, "w is of type ComplexFloat"),
    "float8": ({"w": torch.zeros(3).to(torch.float8_e4m3fn)}, r"w .*(rare type|of type)"),
    "conjugate": ({"w": torch.zeros(3, dtype=torch.complex64).conj()}, "w "),
    "empty": ({"w": torch.zeros(0, 3)}, "w is empty"),
    "expanded": ({"w": torch.zeros(1).expand(2**34)}, "repeats its values"),
    "array": ({"w": torch.zeros(3).numpy()}, r"w \(a NumPy array\)"),
    "escape": ({"\x1b[2J": 3, **STATE}, r"\\x1b\[2J"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_dense_tensor(tmp_path: Path, kind: str, zipped: bool) -> None:
    content, message = UNUSABLE[kind]
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_torch(path)
    assert str(caught.value).isprintable()
    assert "weights_only" not in str(caught.value)


def test_tensors_that_share_their_bytes_are_bounded(tmp_path: Path) -> None:
    large = torch.zeros(100_000)
    path = tmp_path / "a.pth"
    torch.save({f"w{number}": large for number in range(20)}, path)
    with pytest.raises(CheckpointError, match="views of the same bytes"):
        read_torch(path)


def records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def rewritten(path: Path, compression: int = zipfile.ZIP_STORED, **changes: bytes | None) -> None:
    """The archive with other records in it; `data_0` stands for `a/data/0`."""
    new = records(path) | {f"a/{name.replace('__', '.').replace('_', '/')}": value for name, value in changes.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in new.items():
            if content is not None:
                archive.writestr(name, content)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.pth"
    torch.save(STATE, path)
    return path


def test_the_archive_is_looked_at_before_it_is_read(saved: Path) -> None:
    whole = saved.read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_torch(saved)
        saved.write_bytes(whole)

    rewritten(saved, zipfile.ZIP_DEFLATED, data_0=bytes(2**26))
    assert saved.stat().st_size < 2**18
    refused("compressed")
    rewritten(saved, data_0=b"\0" * 7)
    refused("other bytes in the file than it needs")
    rewritten(saved, data_0=None)
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data.pkl", b"x")
    refused("twice")
    rewritten(saved, byteorder=b"big")
    refused("little-endian")
    rewritten(saved, data__pkl=b"\x80\x02}" + b"}" * 1_000_000 + b".")
    refused("opcodes")
    rewritten(saved, data__pkl=bytes(64 * 2**20 + 1))
    refused("data.pkl has")
    saved.write_bytes(whole[:-30])
    refused("damaged")
    saved.write_bytes(whole.replace(STATE["conv.weight"].numpy().tobytes()[:4], b"\1\2\3\4"))
    refused("checksum")
    at = whole.rindex(b"PK\6\6")
    saved.write_bytes(whole[: at + 40] + (2**40).to_bytes(8, "little") + whole[at + 48 :])
    refused("damaged")
    assert same(read_torch(saved))


@pytest.mark.filterwarnings("ignore")
def test_programs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    module = nn.Linear(2, 2)
    traced: Any = torch.jit.trace(module, torch.ones(1, 2))
    traced.save(str(path))
    with pytest.raises(CheckpointError, match="TorchScript"):
        read_torch(path)
    path = tmp_path / "a.pt2"
    torch.export.save(torch.export.export(module, (torch.ones(1, 2),)), path)
    with pytest.raises(CheckpointError, match=r"exported program \(\.pt2\)"):
        read_torch(path)


def test_records_that_overlap_are_refused(saved: Path) -> None:
    """A directory may name the same bytes many times over: 10 MB would become 10 GB."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a/data.pkl", records(saved)["a/data.pkl"])
        archive.writestr("a/data/0", os.urandom(100_000))
    content = data.getvalue()
    first, at = content.index(b"PK\1\2"), content.rindex(b"PK\1\2")
    end = content.rindex(b"PK\5\6")
    entry = content[at:end]
    entries = content[first:at] + b"".join(entry.replace(b"a/data/0", f"a/data/{n}".encode()) for n in range(10))
    count = (11).to_bytes(2, "little")
    place = len(entries).to_bytes(4, "little") + first.to_bytes(4, "little")
    tail = b"PK\5\6" + bytes(4) + count + count + place + bytes(2)
    saved.write_bytes(content[:first] + entries + tail)
    with pytest.raises(CheckpointError, match=r"damaged|larger than the file"):
        read_torch(saved)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\3\4", b"\x80\x02.", b"<html>", b"PK\3\4" + b"PK\5\6" + bytes(18)])
def test_files_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_torch(path)
    with pytest.raises(CheckpointError, match="cannot be read: "):
        read_torch(tmp_path / "none.pth")


def test_a_foreign_class_in_the_file_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing alone can run code."""
    (tmp_path / "evil.py").write_text("class Thing: pass\n")
    path = tmp_path / "a.pth"
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        torch.save({"model": STATE, "x": importlib.import_module("evil").Thing()}, path)
        del sys.modules["evil"]
        assert same(read_torch(path))
        assert "evil" not in sys.modules
