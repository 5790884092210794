"""What surrounds every request: its id, who may ask, security headers, a line of the log, and figures."""

from __future__ import annotations

import hmac
import json
import logging
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchclas.serving.options import is_loopback
from torchclas.serving.refusals import Refusal, overloaded
from torchclas.serving.service import Service

IMAGE_ROUTES = ("/v1/classify", "/v1/embed", "/infer")  # how the paths end that images are sent to
HEALTH = ("/v2/health/live", "/v2/health/ready")  # asked by what starts and stops services
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# The page loads nothing from elsewhere and talks to this service alone; nobody else's page shows it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Log = Callable[[dict[str, Any]], object]


class Access:
    """The outermost part of the application."""

    def __init__(self, app: ASGIApp, *, service: Service, token: str | None, log: Log) -> None:
        options = service.options
        self.app, self.service, self.metrics, self.log = app, service, service.metrics, log
        self._token = None if token is None else token.encode()
        # Without a token this machine alone asks, and no page that gives its own name to this machine's address.
        self._only_this_machine = token is None and not options.open_to_all
        self.running = 0  # requests
        self._closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope)
        asked = given.get("X-Request-Id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        start, status, sent = time.perf_counter(), 0, 0

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if self._closing:
                    headers["Connection"] = "close"
            else:
                sent += len(message.get("body", b""))
            await send(message)

        self.running += 1
        try:
            if (refusal := self._refused(scope, given)) is not None:
                self.metrics.error(refusal.kind)
                await refusal.answer(scope["path"])(scope, receive, answer)
            else:
                await self.app(scope, receive, answer)
        except Exception as error:  # its answer, 500, has been sent by the application
            self.log({"event": "failed", "id": request_id, "trace": "".join(traceback.format_exception(error))})
        finally:
            self.running -= 1
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.request(route, status, seconds)
            client = scope.get("client")
            self.log(
                {
                    "event": "request",
                    "id": request_id,
                    "client": client[0] if client else None,
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status,
                    "bytes": sent,
                    "seconds": round(seconds, 6),
                    "model": scope["state"].get("model"),
                }
            )

    def close_connections(self) -> None:
        """Be no longer ready, and end connections with their next answers."""
        self._closing = self.service.draining = True

    def _refused(self, scope: Scope, headers: Headers) -> Refusal | None:
        path: str = scope["path"]
        host = headers.get("Host", "")
        if self._only_this_machine and host and not is_loopback(_host(host)):
            message = f"{_host(host)[:100]} is no name of this machine alone"
            return Refusal(403, "forbidden", message, "start with --token-file or --open")
        if self._token is not None and path.startswith(("/v1", "/v2", "/metrics")) and path not in HEALTH:
            scheme, _, given = headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                return Refusal(
                    401,
                    "unauthorized",
                    "the token is missing or wrong",
                    "send Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )
        changes = path.startswith("/v2/repository/") and path.endswith(("/load", "/unload"))
        if changes and self._token is None and not is_loopback(_host(host)):
            return Refusal(403, "forbidden", "models change by clients with a token", "start with --token-file")
        # Browsers say where a request comes from: the pages of others have nothing to ask here.
        elsewhere = headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        origin = headers.get("Origin")
        if (elsewhere and scope["method"] == "POST") or (
            changes and origin is not None and urlsplit(origin).netloc != host
        ):
            return Refusal(403, "forbidden", "the page of another host asks for this", "ask from here")
        # Here it takes a fraction of the time that the routes would, so that the time is left for what was accepted.
        if scope["method"] == "POST" and path.endswith(IMAGE_ROUTES) and self.service.registry.full:
            return overloaded("every model")
        return None


def _host(header: str) -> str:
    return urlsplit(f"//{header}").hostname or ""


def log_line(values: dict[str, Any]) -> None:
    """Write a line of JSON to standard error; what clients made of it cannot command a terminal."""
    line = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **values}
    print(json.dumps(line), file=sys.stderr, flush=True)


class JsonHandler(logging.Handler):
    """What libraries and torchclas itself log, as such lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        values: dict[str, Any] = {"event": "log", "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            values["trace"] = "".join(traceback.format_exception(*record.exc_info))
        log_line(values)
