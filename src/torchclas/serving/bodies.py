"""What clients send, read within bounds: nothing is kept on a disk, and nothing that it names is opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from torchclas.serving.refusals import ClientGone, Refusal, crowded, too_large

BODY = "body"  # what an image without a name of its own is called
_NAME_LENGTH = 255  # of a file, as systems have it

# Routes read bodies themselves, so this is what /openapi.json says of them.
IMAGES = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    "required": ["file"],
                }
            },
        },
    }
}


@dataclass(frozen=True)
class Sent:
    """One image as it came, and what its sender calls it."""

    name: str
    content: bytes


class Memory:
    """What the bodies of all requests hold together: at most `limit` bytes, however many clients send."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0

    @contextmanager
    def share(self, largest: int) -> Generator[Share, None, None]:
        """What one request may hold until the block ends: at most `largest` bytes."""
        share = Share(self, largest)
        try:
            yield share
        finally:
            self.taken -= share.taken


class Share:
    """The part of the memory that one request holds."""

    def __init__(self, memory: Memory, largest: int) -> None:
        self._memory, self.largest, self.taken = memory, largest, 0

    def check(self, count: int) -> None:
        """Raise Refusal where `count` more bytes are too many for the request (413) or for all together (503)."""
        if self.taken + count > self.largest:
            raise too_large(self.largest)
        if self._memory.taken + count > self._memory.limit:
            raise crowded()

    def take(self, count: int) -> None:
        """Hold `count` more bytes; raises what `check` does."""
        self.check(count)
        self.taken += count
        self._memory.taken += count


async def read_body(request: Request, share: Share) -> bytes:
    """The body, as far as the share of the request allows; raises Refusal, or ClientGone."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "unsupported_type", "the body is compressed", "send it without Content-Encoding")
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal():
        share.check(int(announced))  # before anything is read
    parts: list[bytes] = []
    try:
        async for part in request.stream():
            share.take(len(part))
            parts.append(part)
    except ClientDisconnect:
        raise ClientGone from None
    return b"".join(parts)


def check_type(request: Request) -> bool:
    """Whether the body is a form; raises Refusal (415) where it is no image either."""
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return True
    # What curl calls every body unless it is told otherwise: it is taken for what it is when it is read.
    if kind in ("", "application/octet-stream", "application/x-www-form-urlencoded") or kind.startswith("image/"):
        return False
    raise Refusal(
        415,
        "unsupported_type",
        f"{kind[:100]} is neither an image nor a form with images",
        "with curl: --data-binary @FILE -H 'Content-Type: image/jpeg', or -F file=@FILE",
    )


async def read_images(request: Request, share: Share) -> list[Sent]:
    """The images of a request: its body, or the files of its form. Raises Refusal, or ClientGone."""
    is_form = check_type(request)
    body = await read_body(request, share)
    if not is_form:
        if not body:
            raise Refusal(422, "bad_image", "the body is empty", "send the content of an image")
        return [Sent(BODY, body)]
    images = await _files(request, body)
    if not images:
        raise Refusal(422, "bad_request", "the form holds no file", "with curl: -F file=@FILE")
    return images


class _InMemory(MultiPartParser):
    spool_max_size = 2**62  # a service may have no disk to write to; the body has been bounded before


async def _files(request: Request, body: bytes) -> list[Sent]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(request.headers, stream(), max_part_size=len(body)).parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        reason = str(getattr(error, "message", "")) or "it is damaged"
        raise Refusal(400, "bad_request", f"the form cannot be read: {reason[:200]}", "see RFC 7578") from None
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    return [Sent((upload.filename or BODY)[:_NAME_LENGTH], await upload.read()) for upload in uploads]
