"""Chromium, and visits to pages in which nothing may fail.

Screenshots go to the folder that `SCREENSHOTS` names, and nowhere without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
expect.set_options(timeout=60_000)  # ms: a machine that has other work to do computes slowly
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")


@contextmanager
def visit(browser: Browser, url: str, **context: Any) -> Generator[Page, None, None]:
    """Open a page; whatever fails in it, or asks another host, fails the test."""
    problems: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # Chromium itself calls every answer from 400 on an error.
        if message.type in ("error", "warning") and "server responded with a status" not in message.text:
            problems.append(message.text)

    def asked(request: Request) -> None:
        if not request.url.startswith((url, "blob:", "data:")):
            problems.append(f"asks {request.url}")

    settings: dict[str, Any] = {"locale": "en-US", "viewport": {"width": 1440, "height": 900}, **context}
    opened = browser.new_context(**settings)
    page = opened.new_page()
    page.set_default_timeout(15_000)
    page.on("console", heard)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", asked)
    page.goto(url)
    yield page
    opened.close()
    assert problems == []


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, animations="disabled")


def accuse(page: Page) -> None:
    """Assert that axe finds nothing, once what is on its way to other colours is there."""
    page.evaluate(
        """() => Promise.all(document.getAnimations()
            .filter((one) => one.effect.getComputedTiming().endTime !== Infinity)
            .map((one) => one.finished.catch(() => null)))"""
    )
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
