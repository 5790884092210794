"""Images of many requests become batches: each goes to the engine beside others, its result back to its own request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torchclas.serving.refusals import Refusal
from torchclas.vocabulary import Output

Image: TypeAlias = NDArray[Any]  # prepared: [channels, H, W]
Outputs: TypeAlias = dict[Output, NDArray[np.float32]]  # of a batch: [N, …]
Row: TypeAlias = dict[Output, NDArray[np.float32]]  # of one image


@dataclass(eq=False)
class _Waiting:
    image: Image
    result: asyncio.Future[Row]
    since: float


class Batcher:
    """The queue before one engine. It belongs to one event loop.

    `run` computes images [N, …] → outputs [N, …] on `thread`. A batch has at most `size` images; the first of them
    waits at most `wait` seconds for others, and only while some are announced. `observe` is told the size of each
    batch.
    """

    def __init__(
        self,
        run: Callable[[NDArray[Any]], Outputs],
        *,
        size: int,
        wait: float,
        thread: Executor,
        observe: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._run, self._size, self._wait, self._thread, self._observe = run, size, wait, thread, observe
        self._queue: deque[_Waiting] = deque()
        self._announced = 0
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._work())

    @contextmanager
    def announced(self) -> Generator[None, None, None]:
        """While the block prepares an image, a batch may wait for it."""
        self._announced += 1
        try:
            yield
        finally:
            self._announced -= 1
            self._changed.set()

    async def __call__(self, image: Image) -> Row:
        """The row for one image. A caller that is cancelled leaves the queue."""
        if self._task.done():
            raise _ending()
        waiting = _Waiting(image, self._loop.create_future(), self._loop.time())
        self._queue.append(waiting)
        self._changed.set()
        return await waiting.result

    async def close(self) -> None:
        """Stop; whoever still waits is told so."""
        self._task.cancel()
        await asyncio.wait([self._task])
        _end(self._queue)

    async def _work(self) -> None:
        while True:
            if batch := await self._collect():
                await self._compute(batch)

    async def _collect(self) -> list[_Waiting]:
        while not self._queue:
            self._changed.clear()
            await self._changed.wait()
        until = self._queue[0].since + self._wait
        while len(self._queue) < self._size and self._announced and (left := until - self._loop.time()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                break
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._size:
            waiting = self._queue.popleft()
            if not waiting.result.done():  # else its request has gone
                batch.append(waiting)
        return batch

    async def _compute(self, batch: Sequence[_Waiting]) -> None:
        images = [waiting.image for waiting in batch]
        try:
            rows = await self._loop.run_in_executor(self._thread, self._rows, images)
        except asyncio.CancelledError:
            _end(batch)
            raise
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].result.done():
                    batch[0].result.set_exception(error)
                return
            for waiting in batch:  # one by one: what fails for one image must not fail for the others
                if not waiting.result.done():
                    await self._compute([waiting])
            return
        self._observe(len(batch))
        for waiting, row in zip(batch, rows, strict=True):
            if not waiting.result.done():
                waiting.result.set_result(row)

    def _rows(self, images: Sequence[Image]) -> Sequence[Row]:
        outputs = self._run(np.stack(images))
        for output, values in outputs.items():
            if len(values) != len(images):
                raise ValueError(f"{len(values)} rows of {output} for {len(images)} images")
        return [{output: values[place] for output, values in outputs.items()} for place in range(len(images))]


def _ending() -> Refusal:
    return Refusal(503, "stopping", "the service is ending", "ask again")


def _end(queue: Iterable[_Waiting]) -> None:
    for waiting in queue:
        if not waiting.result.done():
            waiting.result.set_exception(_ending())
