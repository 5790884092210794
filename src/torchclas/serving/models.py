"""The models of a service: opened, replaced and given up while requests go on.

A request holds the model that it began with. A new one takes the name at once; the old one is closed when its last
request is answered. All of this happens on the event loop, so that nothing needs a lock; only opening takes a thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchclas.atomic import atomic_path, locked
from torchclas.errors import Error, UnknownNameError
from torchclas.inference.classifier import Classifier
from torchclas.serving.batching import Batcher, Outputs
from torchclas.serving.metrics import Metrics
from torchclas.serving.options import ServeOptions
from torchclas.serving.refusals import Refusal, overloaded
from torchclas.serving.sources import Fingerprint, Source, in_repository, sources
from torchclas.vocabulary import Output

if TYPE_CHECKING:
    from torchclas.explanation.explainer import Explainer

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_SECONDS = 0.5  # between two looks at the files of models


class Model:
    """One opened model, with a thread that runs its engine and the queue before it."""

    def __init__(
        self,
        source: Source,
        classifier: Classifier,
        fingerprint: Fingerprint,
        *,
        metrics: Metrics,
        wait: float,
        open_explainer: Callable[[], Awaitable[Explainer]],
    ) -> None:
        self.name, self.source, self.classifier, self.fingerprint = source.name, source, classifier, fingerprint
        # The same in all processes, and after a restart.
        self.version = str(max((changed for *_, changed in fingerprint), default=10**6) // 10**6)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"torchclas-{source.name}")
        self._metrics = metrics
        self._batcher: Batcher | None = None
        self._wait = wait
        self._open_explainer = open_explainer
        self._explainer: asyncio.Future[Explainer] | None = None
        self._users = 0
        self._given_up = False

    @property
    def batcher(self) -> Batcher:
        """The queue before the engine; the first call needs the event loop."""
        if self._batcher is None:
            self._batcher = Batcher(
                self._run,
                size=self.classifier.batch_size,
                wait=self._wait,
                thread=self._thread,
                observe=lambda size: self._metrics.batch(self.name, size),
            )
        return self._batcher

    def check(self, output: Output) -> None:
        """Raise Refusal (400) for an output that the model does not give."""
        if output not in self.classifier.engine.outputs:
            raise Refusal(400, "no_such_output", f"{self.name} gives no {output}", "export it again with this output")

    @property
    def explains(self) -> bool:
        """Whether it can say where it sees a class; exported graphs have no gradients."""
        return self.classifier.spec.graph is None

    async def explainer(self) -> Explainer:
        """What explains it, which the first call opens. Raises Refusal (400), and what `Explainer` does."""
        if not self.explains:
            raise Refusal(400, "no_such_output", f"{self.name} is an exported graph", "serve what it was exported from")
        if self._explainer is None:
            self._explainer = asyncio.ensure_future(self._open_explainer())
        opening = self._explainer
        try:
            return await asyncio.shield(opening)  # a client that goes away leaves it to the next
        except Error:
            if self._explainer is opening:
                self._explainer = None
            raise

    async def on_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what computes as much as its engine, in turn with it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    @contextmanager
    def used(self) -> Generator[Model, None, None]:
        """Keep it open in the block."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if self._given_up and not self._users:
                self._close_soon()

    def give_up(self) -> None:
        """Close it when the last request that uses it is done."""
        self._given_up = True
        if not self._users:
            self._close_soon()

    def _run(self, images: NDArray[Any]) -> Outputs:
        with self._metrics.engine(self.name):
            return self.classifier.engine.run(images)

    def _close_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def _close(self) -> None:
        if self._batcher is not None:
            await self._batcher.close()
        # After what the thread may still be at.
        await asyncio.get_running_loop().run_in_executor(self._thread, self.classifier.close)
        self._thread.shutdown(wait=False)


_closing: set[asyncio.Task[None]] = set()  # a loop keeps no hold on its tasks


class Places:
    """How many images of one model may be on their way at once, from the first byte of their request on."""

    def __init__(self, name: str, limit: int, changed: Callable[[int], object]) -> None:
        self.name, self.limit, self.taken, self._changed = name, limit, 0, changed

    @contextmanager
    def take(self, count: int, held: int = 0) -> Generator[None, None, None]:
        """Take places for the block, beside those that a request holds.

        Raises Refusal: 429, or 413 where there are not so many at all.
        """
        if (images := count + held) > self.limit:
            raise Refusal(413, "too_many", f"{images} images at once, {self.limit} are possible", "send fewer at once")
        if self.taken + count > self.limit:
            raise overloaded(self.name)
        self._add(count)
        try:
            yield
        finally:
            self._add(-count)

    @property
    def full(self) -> bool:
        """Whether there is no place for one more image."""
        return self.taken >= self.limit

    def _add(self, count: int) -> None:
        self.taken += count
        self._changed(self.taken)


class Registry:
    """What can be served under which name, and what is open."""

    def __init__(self, options: ServeOptions, metrics: Metrics, *, threads: int | None, shared: Path | None) -> None:
        """`shared` is a file through which processes tell each other what was loaded and unloaded."""
        self.options, self.metrics, self.threads, self.shared = options, metrics, threads, shared
        self.named = sources(options)
        self.opener = ThreadPoolExecutor(1, thread_name_prefix="torchclas-opening")
        self._open: dict[str, Model] = {}
        self._reasons: dict[str, str] = {}  # why a model is not open
        self._tried: dict[str, Fingerprint] = {}
        self._seen: dict[str, int] = {}  # the last order of `shared` that was followed
        self._changing: dict[str, asyncio.Lock] = {}
        self._places: dict[str, Places] = {}

    @property
    def known(self) -> dict[str, Source]:
        """What names stand for: those of the start, and what is in the repository now."""
        named = {source.name: source for source in self.named}
        return {**named, **in_repository(self.options.repository), **named}

    @property
    def opened(self) -> list[Model]:
        """What is open, in the order of the start."""
        return [self._open[name] for name in self.known if name in self._open]

    @property
    def full(self) -> bool:
        """Whether no open model has a place for one more image."""
        return bool(self._open) and all(name in self._places and self._places[name].full for name in self._open)

    def open_all(self) -> None:
        """Open the models of the start, before there is an event loop; raises what `Classifier` does."""
        for source in self.named:
            self._open[source.name] = self._opened(source)
        for name, (loaded, order) in self._orders().items():  # this process takes the place of one that knew them
            self._seen[name] = order
            if not loaded:
                self._open.pop(name, None)
            elif name not in self._open and name in self.known:
                with suppress(Error):
                    self._open[name] = self._opened(self.known[name])

    def find(self, name: str | None) -> Model:
        """The open model of this name, by default the first of the start, or the only one; raises Refusal."""
        if name is None and self.named:
            name = self.named[0].name
        if name is None:
            if len(self._open) == 1:
                return next(iter(self._open.values()))
            raise Refusal(422, "bad_parameter", f"{len(self._open)} models are loaded", "say which one: ?model=NAME")
        if name in self._open:
            return self._open[name]
        if name in self.known:
            raise Refusal(503, "unavailable", f"{name} is not loaded", f"POST /v2/repository/models/{name}/load")
        raise self._unknown(name)

    def places(self, name: str) -> Places:
        """The places of a model; they stay the same when it is replaced."""
        if name not in self._places:
            self._places[name] = Places(name, self.options.queue, lambda taken: self.metrics.queue(name, taken))
        return self._places[name]

    def index(self) -> list[dict[str, str]]:
        """All names with their states, as the protocol lists them."""
        rows: list[dict[str, str]] = []
        for name in self.known:
            if model := self._open.get(name):
                rows.append({"name": name, "version": model.version, "state": "READY", "reason": ""})
            else:
                reason = self._reasons.get(name, "not loaded")
                rows.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": reason})
        return rows

    async def load(self, name: str) -> None:
        """Open a model, or open it again; raises Refusal."""
        if name not in self.known:
            raise self._unknown(name)
        try:
            await self._replace(name)
        except Error as error:
            log.warning("%s cannot be loaded: %s", name, error)
            raise Refusal(400, "cannot_load", f"{name} cannot be loaded", "the service's log says why") from error
        self._order(name, loaded=True)

    async def unload(self, name: str) -> None:
        """Close a model once its requests are answered; raises Refusal."""
        if name not in self.known and name not in self._open:
            raise self._unknown(name)
        async with self._lock(name):
            self._drop(name)
        self._order(name, loaded=False)

    async def watch(self) -> None:
        """Follow what happens to the files of the open models, and the orders of other processes; never ends."""
        before: dict[str, Fingerprint] = {}
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for model in self.opened:
                now = await asyncio.to_thread(model.source.fingerprint)
                settled = before.get(model.name) == now  # nobody is writing any more
                before[model.name] = now
                if now and settled and now not in (model.fingerprint, self._tried.get(model.name)):
                    await self._try(model.name, self._replace, now)
            for name, (loaded, order) in self._orders().items():
                if order > self._seen.get(name, 0):
                    self._seen[name] = order
                    if loaded:
                        await self._try(name, self._replace, None)
                    else:
                        self._drop(name)

    def close(self) -> None:
        """Let all models go."""
        for name in list(self._open):
            self._drop(name)
        self.opener.shutdown(wait=False, cancel_futures=True)

    async def _try(self, name: str, action: Callable[[str], Awaitable[None]], now: Fingerprint | None) -> None:
        try:
            await action(name)
        except Exception as error:  # whatever it is, what was open goes on
            if now is not None:
                self._tried[name] = now
            log.warning("%s: its new file cannot be served, the old one goes on: %s", name, error)

    async def _replace(self, name: str) -> None:
        async with self._lock(name):
            source = self.known.get(name)
            if source is None:
                raise self._unknown(name)
            loop = asyncio.get_running_loop()
            try:
                model = await loop.run_in_executor(self.opener, self._opened, source)
            except Error as error:
                self._reasons[name] = "it could not be loaded"
                raise error
            old, self._open[name] = self._open.get(name), model
            log.info("%s is served in version %s", name, model.version)
            if old is not None:
                old.give_up()

    def _drop(self, name: str) -> None:
        if model := self._open.pop(name, None):
            self._reasons[name] = "unloaded"
            log.info("%s is no longer served", name)
            model.give_up()

    def _opened(self, source: Source) -> Model:
        model, before = source.snapshot()
        classifier = Classifier(
            model,
            labels=source.labels,
            engine=self.options.engine,
            precision=self.options.precision,
            threads=self.threads,
            batch_size=self.options.batch_size,
            max_pixels=self.options.max_pixels,
            workers=0,
            outputs=None,  # one engine answers every request
        )
        # Engines and libraries reserve what they need at the first image: it should not be a client's.
        spec = classifier.spec
        shape, dtype = ((32, 32, 3), np.uint8) if spec.pixels else ((spec.in_channels, *spec.preset.size), np.float32)
        classifier.engine.run(np.zeros((1, *shape), dtype))

        def explainer() -> Explainer:
            from torchclas.explanation.explainer import Explainer  # needs torch, which an engine may not

            return Explainer(model, labels=source.labels, max_pixels=self.options.max_pixels)

        async def open_explainer() -> Explainer:
            return await asyncio.get_running_loop().run_in_executor(self.opener, explainer)

        return Model(
            source,
            classifier,
            before,
            metrics=self.metrics,
            wait=self.options.batch_wait,
            open_explainer=open_explainer,
        )

    def _lock(self, name: str) -> asyncio.Lock:
        return self._changing.setdefault(name, asyncio.Lock())

    def _unknown(self, name: str) -> Refusal:
        error = UnknownNameError("model", name[:100], self.known, "GET /v1/models lists them")
        message, _, hint = str(error).partition(": ")
        return Refusal(404, "unknown_model", message, hint)

    def _orders(self) -> dict[str, tuple[bool, int]]:
        if self.shared is None:
            return {}
        try:
            return {name: (loaded, order) for name, (loaded, order) in json.loads(self.shared.read_bytes()).items()}
        except FileNotFoundError:
            return {}

    def _order(self, name: str, *, loaded: bool) -> None:
        if self.shared is not None:
            with locked(self.shared):
                orders = self._orders()
                order = max((order for _, order in orders.values()), default=0) + 1
                self._seen[name] = order
                with atomic_path(self.shared) as temporary:
                    temporary.write_text(json.dumps({**orders, name: (loaded, order)}), encoding="utf-8")
