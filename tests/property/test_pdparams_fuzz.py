"""Whatever the bytes, the .pdparams reader returns arrays or raises CheckpointError, soon and within bounds."""

from __future__ import annotations

import contextlib
import pickle
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.property.damage import damaged
from torchclas.errors import CheckpointError
from torchclas.weights.pdparams import read_pdparams, write_pdparams

DATA = Path(__file__).parents[1] / "data" / "pdparams"
SEEDS = [path.read_bytes() for path in sorted(DATA.glob("*.pdparams"))]
assert SEEDS
OPCODES = [getattr(pickle, name) for name in pickle.__all__ if isinstance(getattr(pickle, name), bytes)]
GLOBALS = [b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n"]
STRINGS = [b"C\x01a", b"U\x02f4", b"X\x06\x00\x00\x00latin1", b"C\x04abcd", b"X\x01\x00\x00\x00<"]

fuzz = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def read(path: Path, content: bytes) -> None:
    """Read `content`; pass on everything but the error that is meant to come."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with contextlib.suppress(CheckpointError):
            assert all(isinstance(tensor, np.ndarray) for tensor in read_pdparams(path).values())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 200 * len(content)


@given(content=damaged(SEEDS, OPCODES))
@fuzz
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    read(tmp_path / "damaged.pdparams", content)


@given(pieces=st.lists(st.one_of(st.sampled_from(OPCODES + GLOBALS + STRINGS), st.binary(max_size=3)), max_size=60))
@fuzz
def test_opcode_soup(tmp_path: Path, pieces: list[bytes]) -> None:
    read(tmp_path / "soup.pdparams", b"\x80\x04" + b"".join(pieces) + b".")


@pytest.mark.parametrize("protocol", [2, 3, 4])
@given(
    tensors=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        arrays.arrays(
            st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_]),
            arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        ),
        min_size=1,
        max_size=5,
    ),
    part_bytes=st.integers(1, 200),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(
    tmp_path: Path, protocol: Literal[2, 3, 4], tensors: dict[str, np.ndarray], part_bytes: int
) -> None:
    path = tmp_path / "round.pdparams"
    write_pdparams(path, tensors, protocol=protocol, part_bytes=part_bytes)
    result = read_pdparams(path)
    assert set(result) == set(tensors)
    for name, tensor in tensors.items():
        assert result[name].dtype == tensor.dtype
        assert result[name].shape == tensor.shape
        assert result[name].tobytes() == tensor.tobytes()
