"""The page's files, a route for each.

A folder mounted at `/` would also take requests that another route refuses: a wrong method would be an unknown route.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from torchclas.serving.explorer import STATIC

# Said here: what a machine calls a suffix may be wrong, and then no browser runs the scripts.
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def routes() -> list[Route]:
    """One for each file; the page itself is at `/`."""
    return [_route(file) for file in sorted(STATIC.iterdir()) if file.suffix in _KINDS]


def _route(file: Path) -> Route:
    async def answer(request: Request) -> FileResponse:
        return FileResponse(file, media_type=_KINDS[file.suffix])

    return Route("/" if file.name == "index.html" else f"/{file.name}", answer, include_in_schema=False)
