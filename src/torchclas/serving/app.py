"""The application: routes, errors, and what surrounds them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from torchclas.errors import Error
from torchclas.serving import metrics, page, protocol, reference, simple
from torchclas.serving.access import Access, Log, log_line
from torchclas.serving.metrics import Metrics
from torchclas.serving.models import Registry
from torchclas.serving.options import ServeOptions
from torchclas.serving.refusals import ClientGone, Refusal
from torchclas.serving.service import Service
from torchclas.version import __version__


def create_app(
    options: ServeOptions, registry: Registry, figures: Metrics, *, threads: int, log: Log = log_line
) -> Access:
    """The application that serves what `registry` has opened; `threads` decode images."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None, None]:
        watching = asyncio.create_task(registry.watch())
        yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        service.close()

    app = FastAPI(
        title="torchclas",
        version=__version__,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.metrics = figures
    app.state.service = service = Service(options, registry, figures, threads)
    for router in (simple.router, protocol.router, metrics.router, reference.router):
        app.include_router(router)
    for kind, handler in (
        (Refusal, _refused),
        (ClientGone, _gone),
        (Error, _error),
        (RequestValidationError, _wrong),
        (HTTPException, _http),
        (Exception, _failed),
    ):
        app.add_exception_handler(kind, handler)
    app.router.routes.extend(page.routes())
    return Access(app, service=service, token=options.token(), log=log)


async def _refused(request: Request, error: Any) -> Response:
    request.app.state.metrics.error(error.kind)
    return error.answer(request.url.path)


async def _gone(request: Request, error: Any) -> Response:
    request.app.state.metrics.error("client_gone")
    return Response(status_code=499)  # which nobody reads


async def _error(request: Request, error: Any) -> Response:
    """An error of torchclas that no route expected: a damaged model, an engine that fails."""
    log_line({"event": "failed", "id": request.state.request_id, "message": str(error)})
    return await _refused(request, Refusal(500, "failed", "the model failed", "the service's log says why"))


async def _wrong(request: Request, error: Any) -> Response:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"][1:])
    return await _refused(request, Refusal(422, "bad_parameter", f"{where}: {problem['msg']}", "see /docs"))


async def _http(request: Request, error: Any) -> Response:
    kind, hint = {404: ("unknown_route", "see /docs"), 405: ("wrong_method", "see /docs")}.get(
        error.status_code, ("bad_request", "")
    )
    return await _refused(request, Refusal(error.status_code, kind, str(error.detail), hint, error.headers))


async def _failed(request: Request, error: Any) -> Response:
    return await _refused(request, Refusal(500, "failed", "this is a bug of the service", "its log says more"))
