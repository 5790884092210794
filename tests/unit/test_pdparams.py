"""Reading and writing .pdparams, against files of PaddlePaddle itself and against hostile ones."""

from __future__ import annotations

import collections
import gzip
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from torchclas.errors import CheckpointError
from torchclas.weights.pdparams import read_pdparams, read_pdparams_with_names, write_pdparams

DATA = Path(__file__).parents[1] / "data" / "pdparams"
NAMES = {
    "conv.weight": "conv2d_0.w_0",
    "conv.bias": "conv2d_0.b_0",
    "norm.weight": "batch_norm2d_0.w_0",
    "norm.bias": "batch_norm2d_0.b_0",
    "norm._mean": "batch_norm2d_0.w_1",
    "norm._variance": "batch_norm2d_0.w_2",
    "fc.weight": "linear_0.w_0",
    "fc.bias": "linear_0.b_0",
}
RNG = np.random.default_rng(0)
TENSORS = {
    "conv.weight": RNG.normal(size=(5, 7, 3)).astype(np.float32),
    "half": RNG.normal(size=(40, 50)).astype(np.float16),
    "double": RNG.normal(size=9),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(2.5, np.float32),
    "byte": np.array(98, np.int8),
    "flags": np.array([True, False]),
    "count": np.arange(5),
    "fortran": np.asfortranarray(RNG.normal(size=(4, 6))),
    "层.权重": RNG.integers(0, 256, size=3_000_000, dtype=np.uint8),  # longer than one chunk of decoding
}


def expected(dtype: str) -> dict[str, np.ndarray]:
    with np.load(DATA / "expected.npz") as arrays:
        return {key.split("/")[1]: arrays[key] for key in arrays.files if key.startswith(f"{dtype}/")}


def assert_same(actual: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(actual) == set(wanted)
    for name, tensor in wanted.items():
        assert actual[name].dtype == tensor.dtype
        assert actual[name].shape == tensor.shape
        np.testing.assert_array_equal(actual[name], tensor)


@pytest.mark.parametrize(
    ("file", "dtype"),
    [
        ("float32_protocol2", "float32"),
        ("float32_protocol3", "float32"),
        ("float32_protocol4", "float32"),
        ("float16", "float16"),
        ("float64", "float64"),
        ("bfloat16", "bfloat16"),
        ("sliced_protocol2", "float32"),
    ],
)
def test_reads_what_paddle_wrote(file: str, dtype: str) -> None:
    assert_same(read_pdparams(DATA / f"{file}.pdparams"), expected(dtype))


def test_reads_paddles_parameter_names() -> None:
    tensors, names = read_pdparams_with_names(DATA / "float32_protocol4.pdparams")
    assert list(tensors) == list(NAMES)
    assert names == NAMES


def test_reads_tensors_saved_as_tuples() -> None:
    tensors, names = read_pdparams_with_names(DATA / "tuples.pdparams")
    assert_same(tensors, {**expected("float32"), "step": np.array([3])})
    assert names == NAMES


@pytest.mark.parametrize(("file", "culprits"), [("nested", "model, epoch"), ("optimizer", "LR_Scheduler")])
def test_names_what_is_no_tensor(file: str, culprits: str) -> None:
    with pytest.raises(CheckpointError, match=rf"besides \d tensors it holds {culprits}; save the model"):
        read_pdparams(DATA / f"{file}.pdparams")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_numpy_pickles(tmp_path: Path, protocol: Literal[2, 3, 4]) -> None:
    path = tmp_path / "numpy.pdparams"
    path.write_bytes(pickle.dumps(collections.OrderedDict(TENSORS), protocol))
    tensors = read_pdparams(path)
    assert_same(tensors, TENSORS)
    assert list(tensors) == list(TENSORS)


def test_reads_strings_of_python_2(tmp_path: Path) -> None:
    values = np.array([1.5, -2.0], np.float32)
    path = tmp_path / "python2.pdparams"
    path.write_bytes(
        b"\x80\x02}U\x01w"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01\x8a\x01\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + values.tobytes() + b"tbs."
    )
    assert_same(read_pdparams(path), {"w": values})


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("part_bytes", [64, 2**30 - 1])
def test_written_tensors_are_read_back(tmp_path: Path, protocol: Literal[2, 3, 4], part_bytes: int) -> None:
    path = tmp_path / "written.pdparams"
    tensors = {name: tensor[:1000] if tensor.ndim == 1 else tensor for name, tensor in TENSORS.items()}
    names = {"conv.weight": "conv2d_0.w_0"}
    write_pdparams(path, tensors, parameter_names=names, protocol=protocol, part_bytes=part_bytes)
    read, read_names = read_pdparams_with_names(path)
    assert_same(read, tensors)
    assert read_names == names


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_written_file_is_the_pickle_that_paddle_expects(tmp_path: Path, protocol: Literal[2, 3, 4]) -> None:
    path = tmp_path / "written.pdparams"
    write_pdparams(path, TENSORS, parameter_names={"half": "linear_0.w_0"}, protocol=protocol)
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    assert content.pop("StructuredToParameterName@@") == {"half": "linear_0.w_0"}
    assert_same(content, TENSORS)
    assert b"numpy._core" not in path.read_bytes(), "NumPy 1 has no such module"


def test_slices_as_paddle_does(tmp_path: Path) -> None:
    path = tmp_path / "sliced.pdparams"
    write_pdparams(path, expected("float32"), protocol=2, part_bytes=255)
    ours = pickle.loads(path.read_bytes(), encoding="latin1")
    paddles = pickle.loads((DATA / "sliced_protocol2.pdparams").read_bytes(), encoding="latin1")
    assert ours["UnpackBigParamInfor@@"] == paddles["UnpackBigParamInfor@@"]
    np.testing.assert_array_equal(ours["conv.weight@@.1"], paddles["conv.weight@@.1"])


@pytest.mark.parametrize(
    ("tensors", "names", "message"),
    [
        ({"a": np.array(["text"])}, None, "a is of type <U4"),
        ({"a": np.zeros(1)}, {"b": "c"}, "without a tensor: b"),
        ({"StructuredToParameterName@@": np.zeros(1)}, None, "reserved"),
        ({"a" * 2000: np.zeros(1)}, None, "longer than 1024 bytes"),
    ],
)
def test_refuses_to_write_what_cannot_be_read(
    tmp_path: Path, tensors: dict[str, Any], names: dict[str, str] | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_pdparams(tmp_path / "bad.pdparams", tensors, parameter_names=names)
    assert not list(tmp_path.iterdir())


def zip_bytes(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return path.read_bytes()


VALID = (DATA / "float32_protocol4.pdparams").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (gzip.compress(VALID), "unpack it first"),
        (struct.pack("<Q", 20) + b'{"a": {"dtype": "F32"', "safetensors"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"...", "PyTorch"),
        (b"\0\0\0\0\0\0\0\0\x01", "pdiparams"),
        (b"\xff\xd8\xff\xe0 a photograph", "no .pdparams file"),
        (pickle.dumps({"a": np.zeros(2)}, 0), "no .pdparams file"),
        (pickle.dumps({"a": np.zeros(2)}, 5), "protocol is not 2, 3 or 4"),
        (VALID[: len(VALID) // 2], "ends early"),
        (VALID[:-1], "ends early"),
        (pickle.dumps({}, 4), "no tensors"),
        (pickle.dumps(np.zeros(2), 4), "not a dictionary"),
        (pickle.dumps({"a": np.array([{}])}, 4), "type 'O8'"),
        (pickle.dumps({"a": np.array(["text"])}, 4), "type 'U4'"),
        (pickle.dumps({"a": np.zeros(2, ">f4")}, 4), "not little-endian"),
        (pickle.dumps({"a": collections.Counter()}, 4), "'collections.Counter'"),
        (
            pickle.dumps({"\x1b[2J" + "a" * 100: 1, **dict.fromkeys("bcdefgh")}, 4),
            r"holds '\\x1b\[2Ja{56}\\u2026', b, c, d, e and 3 more",
        ),
        (pickle.dumps({1: np.zeros(2)}, 4), "a name should be"),
        (pickle.dumps({"a": {1, 2}}, 4), "opcode"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.pdparams"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_pdparams(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_says_that_a_zip_is_pytorchs(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    zip_bytes(path)
    with pytest.raises(CheckpointError, match="PyTorch"):
        read_pdparams(path)


def test_says_that_a_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_pdparams(tmp_path / "missing.pdparams")


class Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)  # pyright: ignore[reportDeprecated]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_runs_nothing_of_the_file(tmp_path: Path, protocol: Literal[2, 3, 4]) -> None:
    path = tmp_path / "hostile.pdparams"
    trace = tmp_path / "trace"
    path.write_bytes(pickle.dumps({"w": np.zeros(3), "x": Payload(f"touch {trace}")}, protocol))
    with pytest.raises(CheckpointError, match=rf"'{os.name}.system'.*nothing of it was run"):
        read_pdparams(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the payload is a real one"


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
FLOAT = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R"
MILLION = b"J" + struct.pack("<i", 1_000_000)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        # an array of 4 TB; the same with a dimension of zero that would hide it
        (b"}C\x01a" + ARRAY + b"(K\x01" + MILLION * 2 + b"\x86" + FLOAT + b"\x89C\x04abcdtbs.", "impossible shape"),
        (b"}C\x01a" + ARRAY + b"(K\x01K\x00" + MILLION + b"\x86" + FLOAT + b"\x89C\x00tbs.", "impossible shape"),
        # a string of 2 GB
        (b"}C\x01aB\xff\xff\xff\x7f", "ends early"),
        (b"}C\x01a\x8e\xff\xff\xff\xff\xff\xff\xff\xff", "ends early"),
        # many arrays of the same bytes
        (
            b"C\xc8" + bytes(200) + b"q\x00" + FLOAT + b"q\x02" + (ARRAY + b"(K\x01K\x32\x85h\x02\x89h\x00tb") * 40,
            "larger than the file",
        ),
        # a deep structure
        (b")" + b"\x85" * 10_000 + b".", "not a dictionary"),
        # a dictionary within itself
        (b"}q\x00C\x01ah\x00s.", "besides 0 tensors it holds a"),
        # an array built twice, never built, or built of something else
        (b"}C\x01a" + ARRAY + b"s.", "besides 0 tensors it holds a"),
        (
            b"}C\x01a" + ARRAY + b"(K\x01K\x01\x85" + FLOAT + b"\x89C\x04abcdtb(K\x01K\x01\x85NNNtbs.",
            "other than an array",
        ),
        (b"}}b.", "a tuple should be"),
        (b"}()tb.", "other than an array"),
        (b"}C\x01a" + ARRAY + b"(K\x01K\x01\x85NNNtbs.", "a dtype"),
        # UTF-8 text that is no Latin-1, is too long, or is no UTF-8
        (
            b"}C\x01a" + ARRAY + b"(K\x01K\x01\x85" + FLOAT + b"\x89X\x06\0\0\0" + "中文".encode() + b"tbs.",
            "not valid text",
        ),
        (b"}C\x01a" + ARRAY + b"(K\x01K\x01\x85" + FLOAT + b"\x89X\x05\0\0\0abcdetbs.", "other than 4 bytes"),
        (b"}C\x01a" + ARRAY + b"(K\x01K\x01\x85" + FLOAT + b"\x89X\x05\0\0\0abcd\xfftbs.", "not valid text"),
        # other ways to call
        (b"Pid\n.", "opcode"),
        (b"(ios\nsystem\n.", "opcode"),
        (b"\x82\x01.", "opcode"),
        (b"cos\nsystem\n)\x81.", "'os.system'"),
        (b"X\x02\0\0\0osX\x06\0\0\0system\x93.", "'os.system'"),
        (b"cnumpy\nndarray\nK\xff\x85R.", "unexpected"),
        (b"c_codecs\nencode\nC\x01aC\x03zip\x86R.", "unexpected"),
        # references to nothing
        (b"h\x07.", "what is not there"),
        (b"t.", "what is not there"),
        (b".", "what is not there"),
        (b"c" + b"a" * 10_000, "without end"),
    ],
)
def test_hostile_streams_are_refused_without_large_allocations(tmp_path: Path, stream: bytes, message: str) -> None:
    path = tmp_path / "hostile.pdparams"
    path.write_bytes(b"\x80\x03" + stream)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=message):
            read_pdparams(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1e6 + 150 * len(stream)


PARTS = {"w@@.0": np.zeros(4, np.float32), "w@@.1": np.zeros(2, np.float32)}


@pytest.mark.parametrize(
    "table",
    [
        {"OriginShape": (3, 2), "slices": ["w@@.0"]},
        {"OriginShape": (3, 2), "slices": ["w@@.0", "w@@.1", "w@@.2"]},
        {"OriginShape": (3, 2), "slices": ["w@@.0", "w@@.0"]},
        {"OriginShape": (3, 2), "slices": []},
        {"OriginShape": (3, 2), "slices": "w@@.0"},
        {"OriginShape": (3, 2), "slices": [3, None]},
        {"OriginShape": (3, 3), "slices": list(PARTS)},
        {"OriginShape": (True, 6), "slices": list(PARTS)},
        {"OriginShape": (-3, -2), "slices": list(PARTS)},
        {"OriginShape": (2**70, 0), "slices": list(PARTS)},
        {"OriginShape": (1,) * 70 + (6,), "slices": list(PARTS)},
        {"OriginShape": [3, 2], "slices": list(PARTS)},
        {"OriginShape": None, "slices": list(PARTS)},
        {"slices": list(PARTS)},
        [],
        None,
    ],
    ids=str,
)
def test_slices_that_do_not_add_up(tmp_path: Path, table: object) -> None:
    path = tmp_path / "bad.pdparams"
    path.write_bytes(pickle.dumps({**PARTS, "UnpackBigParamInfor@@": {"w": table}}, 2))
    with pytest.raises(CheckpointError, match="the file is damaged"):
        read_pdparams(path)


def test_slices_of_different_types_are_not_joined(tmp_path: Path) -> None:
    """One complex number would make a large tensor of bytes sixteen times as large."""
    parts = {"w@@.0": np.zeros(1, np.complex128), "w@@.1": np.zeros(5, np.uint8)}
    table = {"OriginShape": (6,), "slices": list(parts)}
    path = tmp_path / "bad.pdparams"
    path.write_bytes(pickle.dumps({**parts, "UnpackBigParamInfor@@": {"w": table}}, 2))
    with pytest.raises(CheckpointError, match="do not add up"):
        read_pdparams(path)


@pytest.mark.parametrize("shape", [b"K\x00" + MILLION * 2, b"K\x00" + b"K\x01" * 40], ids=["large", "deep"])
def test_empty_arrays_of_impossible_shapes(tmp_path: Path, shape: bytes) -> None:
    """The file is larger than each dimension, and the array has no element: NumPy refuses it all the same."""
    path = tmp_path / "bad.pdparams"
    stream = b"}C\x01a" + ARRAY + b"(K\x01(" + shape + b"t" + FLOAT + b"\x89C\x00tbs."
    path.write_bytes(b"\x80\x03" + stream + bytes(10**6))
    with pytest.raises(CheckpointError, match="impossible shape"):
        read_pdparams(path)


@pytest.mark.parametrize("opcode", [b"(", b"}"])
def test_a_flood_of_opcodes_is_refused(tmp_path: Path, opcode: bytes) -> None:
    path = tmp_path / "flood.pdparams"
    path.write_bytes(b"\x80\x03" + opcode * 1_000_001)
    with pytest.raises(CheckpointError, match="more than 1,000,000 opcodes"):
        read_pdparams(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reading_takes_the_memory_of_the_tensors(tmp_path: Path, protocol: Literal[2, 3, 4]) -> None:
    path = tmp_path / "large.pdparams"
    tensors = {f"{i}": RNG.normal(size=2**20).astype(np.float32) for i in range(8)}
    path.write_bytes(pickle.dumps(tensors, protocol))
    total = sum(tensor.nbytes for tensor in tensors.values())
    tracemalloc.start()
    try:
        read = read_pdparams(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read) == 8
    assert total <= peak < 1.2 * total
