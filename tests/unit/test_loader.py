"""Loading: one row per input, in order, whatever goes wrong."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from torchclas.catalog import Preset
from torchclas.data.loader import Batch, load
from torchclas.data.preprocess import Preprocess
from torchclas.errors import ImageError

IMAGES = Path(__file__).parents[1] / "data" / "preprocess" / "images"
PREPROCESS = Preprocess(Preset(4, (4, 4), "bilinear", "opencv", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def gray(value: int) -> NDArray[Any]:
    return np.full((4, 4, 3), value, np.uint8)


@pytest.fixture
def loader_threads() -> Callable[..., Any]:
    """What gives the threads that a test has started, and no other one's."""
    before = threading.enumerate()
    return lambda: [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("torchclas-loader") and thread not in before
    ]


def wait_for(condition: Callable[..., Any], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


BAD = [b"", b"no image", "/no/such/file.jpg", np.zeros((4, 4, 3), np.float32), object()]


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.lists(st.one_of(st.integers(0, 255), st.sampled_from(BAD)), max_size=40),
    batch_size=st.integers(1, 12),
    workers=st.integers(0, 4),
)
def test_one_row_per_input_in_order(inputs: Any, batch_size: int, workers: int) -> None:
    images = [gray(item) if isinstance(item, int) else item for item in inputs]
    batches = list(load(iter(images), PREPROCESS, batch_size=batch_size, workers=workers))

    assert [len(batch.sources) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert all(len(batch.sources) == len(batch.errors) and len(batch.sources) > 0 for batch in batches)
    assert all(batch.images.shape[1:] == (3, 4, 4) and batch.images.dtype == np.float32 for batch in batches)

    rows = [row for batch in batches for row in batch.rows([round(image[0, 0, 0] * 255) for image in batch.images])]
    assert len(rows) == len(inputs)
    for index, (item, (source, result)) in enumerate(zip(inputs, rows, strict=True)):
        if isinstance(item, int):
            assert (source, result) == (f"array[{index}]", item)
        else:
            assert isinstance(result, ImageError)
            assert source == (item if isinstance(item, str) else source)


def test_names_and_reasons(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"text")
    path = IMAGES / "cat.jpg"
    inputs = [str(path), path, path.read_bytes(), gray(0), Image.fromarray(gray(0)), tmp_path / "bad.jpg", "none.jpg"]
    [batch] = load(inputs, PREPROCESS, batch_size=16, workers=2)
    names = [str(path), str(path), "bytes[2]", "array[3]", "image[4]", str(tmp_path / "bad.jpg"), "none.jpg"]
    assert list(batch.sources) == names
    assert batch.images.shape == (5, 3, 4, 4)
    assert batch.errors[:5] == (None,) * 5
    assert str(batch.errors[5]).startswith("is not an image")
    assert str(batch.errors[6]) == "no such file"


def test_batch_does_not_depend_on_its_companions() -> None:
    path = IMAGES / "cat.jpg"
    [alone] = load([path], PREPROCESS, batch_size=1, workers=0)
    [together] = load([b"", gray(7), path, b""], PREPROCESS, batch_size=4, workers=3)
    np.testing.assert_array_equal(together.images[1], alone.images[0])


def test_unexpected_exception_stays_with_its_image() -> None:
    class Hostile(np.ndarray):
        @property
        def dtype(self) -> Any:
            raise MemoryError("no room")

    [batch] = load([gray(1), gray(2).view(Hostile), gray(3)], PREPROCESS, batch_size=8, workers=2)
    assert [str(error) for error in batch.errors] == ["None", "unexpected MemoryError: no room", "None"]


def test_rows_need_a_result_per_image() -> None:
    [batch] = load([gray(1), b""], PREPROCESS, batch_size=2, workers=0)
    with pytest.raises(ValueError, match="2 results for 1 images"):
        list(batch.rows([1, 2]))


@pytest.mark.parametrize("options", [{"batch_size": 0, "workers": 1}, {"batch_size": 1, "workers": -1}])
def test_impossible_options(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        next(load([], PREPROCESS, **options))


def test_look_ahead_is_bounded() -> None:
    taken: list[int] = []

    def endless() -> Iterator[Any]:
        for number in count():
            taken.append(number)
            yield gray(0)

    batches = cast("Generator[Batch]", load(endless(), PREPROCESS, batch_size=8, workers=2))
    for number in range(1, 4):
        next(batches)
        assert len(taken) <= 8 * number + 8 + 2 * 2 + 1
    batches.close()


def test_closing_stops_the_threads(loader_threads: Callable[..., Any]) -> None:
    batches = cast("Generator[Batch]", load((gray(0) for _ in count()), PREPROCESS, batch_size=4, workers=3))
    next(batches)
    assert len(loader_threads()) == 3
    batches.close()
    wait_for(lambda: not loader_threads())


def test_error_of_the_source_list_reaches_the_caller(loader_threads: Callable[..., Any]) -> None:
    def interrupted() -> Iterator[Any]:
        yield gray(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(load(interrupted(), PREPROCESS, batch_size=4, workers=2))
    wait_for(lambda: not loader_threads())
