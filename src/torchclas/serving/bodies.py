"""What clients send, read within bounds: nothing is kept on a disk, and nothing that it names is opened."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from torchclas.serving.refusals import ClientGone, Refusal, too_large

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


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes; raises Refusal, or ClientGone."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "unsupported_type", "the body is compressed", "send it without Content-Encoding")
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large(limit)
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


async def read_images(request: Request, limit: int) -> list[Sent]:
    """The images of a request: its body, or the files of its form. Raises Refusal, or ClientGone."""
    is_form = check_type(request)
    body = await read_body(request, limit)
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
