"""What a client is told that gets no answer: a status, and what is wrong and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

RETRY_SECONDS = "1"  # when to ask again, of a service that has too much to do


class Refusal(Exception):  # noqa: N818 - an answer, though no good one
    """A request that is not fulfilled. `kind` is for programs, `message` and `hint` are for people."""

    def __init__(
        self, status: int, kind: str, message: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.hint = status, kind, message, hint
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("Retry-After", RETRY_SECONDS)

    def answer(self, path: str) -> JSONResponse:
        """The answer to a request for `path`; errors of the Open Inference Protocol are texts."""
        content: dict[str, Any] = {"error": {"kind": self.kind, "message": self.message, "hint": self.hint}}
        if path.startswith("/v2"):
            content = {"error": f"{self.message}: {self.hint}" if self.hint else self.message}
        return JSONResponse(content, self.status, self.headers)


class ClientGone(Exception):  # noqa: N818 - nobody is left to be told
    """The client closed the connection before its answer."""


def too_large(limit: int) -> Refusal:
    """413: a body of more than `limit` bytes."""
    return Refusal(
        413, "too_large", f"the body is larger than {limit:,} bytes", "send a smaller image, or fewer at once"
    )


def bad_image(message: str) -> Refusal:
    """422: the one image of a request cannot be read."""
    return Refusal(
        422, "bad_image", f"the image {message}", "send a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or JPEG 2000"
    )


def overloaded(model: str) -> Refusal:
    """429: as many images as may be are on their way already."""
    return Refusal(429, "overloaded", f"the queue of {model} is full", "ask again after the time in Retry-After")


def crowded() -> Refusal:
    """503: the bodies of the requests that run take all the memory that they may."""
    return Refusal(503, "overloaded", "the requests that run are too large together", "ask again after Retry-After")


def too_slow(seconds: float) -> Refusal:
    """504: no answer was ready in time."""
    return Refusal(504, "deadline", f"no answer was ready within {seconds:g} s", "ask again, with fewer images at once")
