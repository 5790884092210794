"""Inputs are numbered once, and a later run notices that they are others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from torchclas.data.listing import Listing, ListingChangedError

NAMES = ["a.jpg", "/b\nc.jpg", "http://host/d.png", "latin-\udce9.jpg", "null\0.jpg"]


def first_run(path: Path, names: list[str] = NAMES, *, asked: int | None = None) -> None:
    with Listing(path, names) as listing:
        if asked is None:
            assert listing.read_all() == len(names)
        else:
            numbered = listing.names()
            assert [next(numbered) for _ in range(asked)] == names[:asked]


def test_names_come_back_as_they_were(tmp_path: Path) -> None:
    with Listing(tmp_path / "inputs", NAMES) as listing:
        assert [*listing.names()] == NAMES
        assert listing.complete
        assert [*listing.names(2)] == NAMES[2:]
        assert [*listing.names(9)] == []


def test_names_that_arrive_slowly_hold_nobody_up(tmp_path: Path) -> None:
    asked: list[int] = []

    def arriving() -> Iterator[str]:
        for number, name in enumerate(NAMES):
            asked.append(number)
            yield name

    with Listing(tmp_path / "inputs", arriving()) as listing:
        names = listing.names()
        assert [next(names), next(names)] == NAMES[:2]
        assert asked == [0, 1]
        assert not listing.complete


@pytest.mark.parametrize("asked", [None, 0, 2, 5])
def test_the_same_names_again(tmp_path: Path, asked: int | None) -> None:
    first_run(tmp_path / "inputs", asked=asked)
    first_run(tmp_path / "inputs")
    with Listing(tmp_path / "inputs", NAMES) as listing:
        assert [*listing.names(1)] == NAMES[1:]


def test_half_a_line_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "inputs"
    first_run(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        first_run(path)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "aa.jpg", *NAMES[1:]], "input 2 was /b\nc.jpg, and now is aa.jpg"),
        ([*NAMES, "z.jpg"], "there were 5 inputs, and now z.jpg follows"),
        (NAMES[:4], "input 5 was null\0.jpg, and now there are 4"),
        ([], "input 1 was a.jpg, and now there are 0"),
    ],
)
def test_other_names_are_noticed(tmp_path: Path, names: list[str], message: str) -> None:
    first_run(tmp_path / "inputs")
    with Listing(tmp_path / "inputs", names) as listing, pytest.raises(ListingChangedError) as changed:
        listing.read_all()
    assert str(changed.value) == message
    first_run(tmp_path / "inputs")  # nothing was lost by that


def test_relative_names_are_others_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_run(tmp_path / "relative")
    first_run(tmp_path / "absolute", NAMES[1:3])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    first_run(tmp_path / "absolute", NAMES[1:3])
    with (
        Listing(tmp_path / "relative", NAMES) as listing,
        pytest.raises(ListingChangedError, match=r"a\.jpg was one in"),
    ):
        listing.read_all()
