"""Batches across requests: each result goes to the request that its image came with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from torchclas.serving.batching import Batcher, Outputs
from torchclas.serving.refusals import Refusal


def image(value: float) -> NDArray[np.float32]:
    return np.full((3, 2, 2), value, np.float32)


def double(images: NDArray[Any]) -> Outputs:
    return {"logits": 2 * images[:, :1, 0, 0]}


def with_batcher(
    run: Callable[[NDArray[Any]], Outputs],
    use: Callable[[Batcher], Awaitable[object]],
    size: int = 4,
    wait: float = 0.0,
) -> list[int]:
    """The sizes of the batches that `use` led to."""
    sizes: list[int] = []

    async def main() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(run, size=size, wait=wait, thread=thread, observe=sizes.append)
            try:
                await asyncio.wait_for(use(batcher), 20)
            finally:
                await batcher.close()

    asyncio.run(main())
    return sizes


def test_each_gets_its_own() -> None:
    async def use(batcher: Batcher) -> None:
        rows = await asyncio.gather(*(batcher(image(value)) for value in range(50)))
        assert [float(row["logits"][0]) for row in rows] == [2.0 * value for value in range(50)]

    sizes = with_batcher(double, use)
    assert sum(sizes) == 50
    assert max(sizes) == 4


def test_a_lone_image_does_not_wait() -> None:
    async def use(batcher: Batcher) -> None:
        start = asyncio.get_running_loop().time()
        await batcher(image(1))
        assert asyncio.get_running_loop().time() - start < 5

    with_batcher(double, use, wait=15.0)


def test_a_batch_waits_for_what_is_announced() -> None:
    async def use(batcher: Batcher) -> None:
        async def late(value: float) -> float:
            with batcher.announced():
                await asyncio.sleep(0.05)
            return float((await batcher(image(value)))["logits"][0])

        assert await asyncio.gather(late(1), late(2), _first(batcher)) == [2.0, 4.0, 6.0]

    async def _first(batcher: Batcher) -> float:
        return float((await batcher(image(3)))["logits"][0])

    assert with_batcher(double, use, wait=10.0) == [3]


def test_waiting_ends_when_what_was_announced_fails() -> None:
    async def use(batcher: Batcher) -> None:
        async def broken() -> None:
            with batcher.announced():
                await asyncio.sleep(0.05)

        start = asyncio.get_running_loop().time()
        await asyncio.gather(broken(), batcher(image(1)))
        assert asyncio.get_running_loop().time() - start < 5

    with_batcher(double, use, wait=15.0)


def test_what_fails_for_one_fails_for_it_alone() -> None:
    def run(images: NDArray[Any]) -> Outputs:
        if (images == 3).any():
            raise RuntimeError("three")
        return double(images)

    async def use(batcher: Batcher) -> None:
        rows = await asyncio.gather(*(batcher(image(value)) for value in range(8)), return_exceptions=True)
        failed = [value for value, row in enumerate(rows) if isinstance(row, BaseException)]
        assert failed == [3]
        fine = [float(row["logits"][0]) for row in rows if not isinstance(row, BaseException)]
        assert fine == [0, 2, 4, 8, 10, 12, 14]

    with_batcher(run, use)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_wrong_number_of_rows_is_nobodys_answer(rows: int) -> None:
    async def use(batcher: Batcher) -> None:
        results = await asyncio.gather(*(batcher(image(value)) for value in range(3)), return_exceptions=True)
        if rows == 1:  # which is right for each of them, one by one
            assert not any(isinstance(result, BaseException) for result in results)
        else:
            assert all(isinstance(result, ValueError) for result in results)

    with_batcher(lambda images: {"logits": np.zeros((rows, 1), np.float32)}, use)


def test_who_leaves_is_not_computed() -> None:
    entered, go_on = threading.Event(), threading.Event()
    seen: list[float] = []

    def run(images: NDArray[Any]) -> Outputs:
        entered.set()
        assert go_on.wait(20)
        seen.extend(images[:, 0, 0, 0].tolist())
        return double(images)

    async def use(batcher: Batcher) -> None:
        first = asyncio.ensure_future(batcher(image(1)))
        await asyncio.to_thread(entered.wait, 20)
        gone, stays = asyncio.ensure_future(batcher(image(2))), asyncio.ensure_future(batcher(image(3)))
        await asyncio.sleep(0)
        gone.cancel()
        go_on.set()
        assert [float((await task)["logits"][0]) for task in (first, stays)] == [2.0, 6.0]

    with_batcher(run, use)
    assert seen == [1.0, 3.0]


def test_who_waits_when_it_closes_is_told() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def run(images: NDArray[Any]) -> Outputs:
        entered.set()
        assert go_on.wait(20)
        return double(images)

    async def use(batcher: Batcher) -> None:
        tasks = [asyncio.ensure_future(batcher(image(value))) for value in range(6)]
        await asyncio.to_thread(entered.wait, 20)
        await batcher.close()
        go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, Refusal) and result.status == 503 for result in results)
        with pytest.raises(Refusal):
            await batcher(image(1))

    with_batcher(run, use)
