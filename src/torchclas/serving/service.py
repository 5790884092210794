"""From a request's bytes to rows: places in the queue, decoding on threads, the batch, the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from torchclas.data.loader import load_one
from torchclas.errors import ImageError
from torchclas.serving.batching import Batcher, Image, Row
from torchclas.serving.bodies import Sent
from torchclas.serving.metrics import Metrics
from torchclas.serving.models import Model, Registry
from torchclas.serving.options import ServeOptions
from torchclas.serving.refusals import ClientGone, Refusal, too_slow
from torchclas.vocabulary import Output

T = TypeVar("T")
R = TypeVar("R")


class Service:
    """What all routes share."""

    def __init__(self, options: ServeOptions, registry: Registry, metrics: Metrics, threads: int) -> None:
        self.options, self.registry, self.metrics = options, registry, metrics
        self.decoding = ThreadPoolExecutor(threads, thread_name_prefix="torchclas-decoding")
        self.draining = False  # the process was asked to end

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return not self.draining

    async def answer(
        self,
        request: Request,
        name: str | None,
        read: Callable[[Request, int], Awaitable[R]],
        work: Callable[[Model, R], Coroutine[Any, Any, T]],
    ) -> T:
        """What `work` makes of what `read` reads, with a place in the queue of the model `name`, in time.

        Raises Refusal; ClientGone where nobody waits for the answer any more, whose work is then dropped.
        """
        loop, seconds = asyncio.get_running_loop(), self.options.deadline
        until = loop.time() + seconds
        model = self.registry.find(name)
        request.state.model = model.name
        with model.used(), self.registry.places(model.name).take(1):
            try:
                content = await asyncio.wait_for(read(request, self.options.max_body), seconds)
            except asyncio.TimeoutError:
                raise Refusal(
                    408, "slow_body", f"the body took longer than {seconds:g} s", "send less", {"Connection": "close"}
                ) from None
            return await self._while_wanted(request, work(model, content), until - loop.time())

    async def rows(self, model: Model, output: Output, images: Sequence[Sent]) -> list[Row | ImageError]:
        """What the model gives for each image, or why there is nothing, in order."""
        with self.registry.places(model.name).take(len(images) - 1, held=1):
            batcher = await self.registry.batcher(model, output)
            if len(images) == 1:  # nearly always
                return [await self._row(model, batcher, images[0])]
            return list(await asyncio.gather(*(self._row(model, batcher, image) for image in images)))

    async def tensor_rows(self, model: Model, output: Output, images: Sequence[Image]) -> list[Row]:
        """What the model gives for each image that a client has prepared."""
        with self.registry.places(model.name).take(len(images) - 1, held=1):
            batcher = await self.registry.batcher(model, output)
            return list(await asyncio.gather(*map(batcher, images)))

    async def on_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what would hold up other requests."""
        return await asyncio.get_running_loop().run_in_executor(self.decoding, function, *arguments)

    def close(self) -> None:
        """Let threads and models go."""
        self.registry.close()
        self.decoding.shutdown(wait=False, cancel_futures=True)

    async def _row(self, model: Model, batcher: Batcher, sent: Sent) -> Row | ImageError:
        with batcher.announced():
            image = await self.on_thread(load_one, sent.name, sent.content, model.classifier.preprocess)
        return image if isinstance(image, ImageError) else await batcher(image)

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
