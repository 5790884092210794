"""`/docs`: all routes on a plain page, made from the same description as /openapi.json.

Swagger's page would fetch its scripts from another host, and needs scripts that the service's own policy forbids.
"""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

router = APIRouter(include_in_schema=False)


@cache
def _template() -> Template:
    environment = Environment(loader=PackageLoader("torchclas.serving"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("reference.html")


@router.get("/docs", response_class=HTMLResponse)
def reference(request: Request) -> HTMLResponse:
    """All routes."""
    description = request.app.openapi()
    return HTMLResponse(_template().render(paths=description["paths"], version=description["info"]["version"]))
