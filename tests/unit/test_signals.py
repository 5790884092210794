"""What asks a process to end: nothing is spoilt, and what was to be ignored stays ignored."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from torchclas import signals

each = pytest.mark.parametrize("number", signals.ASKING)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in signals.ASKING}
    yield
    assert handlers == {number: signal.getsignal(number) for number in signals.ASKING}


@each
def test_all_of_them_interrupt(number: int) -> None:
    with pytest.raises(KeyboardInterrupt) as stopped, signals.as_interrupts():
        signal.raise_signal(number)
    assert isinstance(stopped.value, signals.Stopped)
    assert stopped.value.number == number


@each
def test_they_wait_for_the_end_of_a_write(number: int) -> None:
    done: list[str] = []

    def work() -> None:
        with signals.as_interrupts():
            with signals.held_back():
                signal.raise_signal(number)
                done.append("written")
            done.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["written"]


def test_ctrl_c_waits_where_nothing_else_was_set() -> None:
    with pytest.raises(KeyboardInterrupt), signals.held_back():
        signal.raise_signal(signal.SIGINT)


@each
def test_the_second_of_a_kind_ends_what_only_looks_from_time_to_time(number: int) -> None:
    with signals.as_interrupts(), signals.collected() as received:
        signal.raise_signal(number)
        assert received == [number]
        with pytest.raises(signals.Stopped):
            signal.raise_signal(number)


@each
def test_what_is_ignored_stays_ignored(number: int) -> None:
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        with signals.as_interrupts(), signals.held_back(), signals.collected() as received:
            signal.raise_signal(number)
            assert received == []
    finally:
        signal.signal(number, previous)
