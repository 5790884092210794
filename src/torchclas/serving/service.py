"""From a request's bytes to rows: places in the queue, decoding on threads, the batch, the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from torchclas.data.loader import load_one
from torchclas.errors import ImageError
from torchclas.serving.batching import Image, Row
from torchclas.serving.bodies import Memory, Sent, Share, read_body
from torchclas.serving.metrics import Metrics
from torchclas.serving.models import Model, Registry
from torchclas.serving.options import ServeOptions
from torchclas.serving.refusals import ClientGone, Refusal, too_slow

SMALL_BODY = 2**16

T = TypeVar("T")
R = TypeVar("R")


class Service:
    """What all routes share."""

    def __init__(self, options: ServeOptions, registry: Registry, metrics: Metrics, threads: int) -> None:
        self.options, self.registry, self.metrics = options, registry, metrics
        self.decoding = ThreadPoolExecutor(threads, thread_name_prefix="torchclas-decoding")
        self.memory = Memory(options.body_memory)
        self.draining = False  # the process was asked to end

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return not self.draining

    async def answer(
        self,
        request: Request,
        name: str | None,
        read: Callable[[Request, Share], Awaitable[R]],
        work: Callable[[Model, R], Coroutine[Any, Any, T]],
    ) -> T:
        """What `work` makes of what `read` reads, with a place in the queue of the model `name`, in time.

        Raises Refusal; ClientGone where nobody waits for the answer any more, whose work is then dropped.
        """
        loop, seconds = asyncio.get_running_loop(), self.options.deadline
        until = loop.time() + seconds
        model = self.registry.find(name)
        request.state.model = model.name
        memory = self.memory.share(self.options.max_body)
        with model.used(), self.registry.places(model.name).take(1), memory as share:
            content = await self.in_time(read(request, share))
            return await self._while_wanted(request, work(model, content), until - loop.time())

    async def small_body(self, request: Request) -> bytes:
        """The body of a request that has little to say; raises Refusal, or ClientGone."""
        with self.memory.share(SMALL_BODY) as share:
            return await self.in_time(read_body(request, share))

    async def in_time(self, reading: Awaitable[R]) -> R:
        """What is read, within the deadline; raises Refusal (408)."""
        seconds = self.options.deadline
        try:
            return await asyncio.wait_for(reading, seconds)
        except asyncio.TimeoutError:
            raise Refusal(
                408, "slow_body", f"the body took longer than {seconds:g} s", "send less", {"Connection": "close"}
            ) from None

    async def rows(self, model: Model, images: Sequence[Sent]) -> list[Row | ImageError]:
        """What the model gives for each image, or why there is nothing, in order."""
        with self.registry.places(model.name).take(len(images) - 1, held=1):
            if len(images) == 1:  # nearly always
                return [await self._row(model, images[0])]
            return list(await asyncio.gather(*(self._row(model, image) for image in images)))

    async def tensor_rows(self, model: Model, images: Sequence[Image]) -> list[Row]:
        """What the model gives for each image that a client has prepared."""
        with self.registry.places(model.name).take(len(images) - 1, held=1):
            return list(await asyncio.gather(*map(model.batcher, images)))

    async def on_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what would hold up other requests."""
        return await asyncio.get_running_loop().run_in_executor(self.decoding, function, *arguments)

    def close(self) -> None:
        """Let threads and models go."""
        self.registry.close()
        self.decoding.shutdown(wait=False, cancel_futures=True)

    async def _row(self, model: Model, sent: Sent) -> Row | ImageError:
        with model.batcher.announced():
            image = await self.on_thread(load_one, sent.name, sent.content, model.classifier.preprocess)
        return image if isinstance(image, ImageError) else await model.batcher(image)

    async def _while_wanted(self, request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({task, gone}, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ClientGone if gone.done() else too_slow(self.options.deadline)
        finally:
            gone.cancel()
            task.cancel()
            await asyncio.wait({task, gone})  # so that its places are free


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
