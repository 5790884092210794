"""A browser for all tests of pages."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="there is no Playwright here: make setup")

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from tests.browser.visits import CHROMIUM  # noqa: E402


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    arguments = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    if os.getuid() == 0:  # Chromium's sandbox refuses root, as which continuous integration runs
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()
