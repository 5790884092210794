"""The site that `make site` builds: no link leads nowhere, both languages are found by search, axe finds nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("sphinx", reason="there is no Sphinx here: make setup")
pytest.importorskip("playwright.sync_api", reason="there is no Playwright here: make setup")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

import torchclas

DOCS = Path(__file__).parents[2] / "docs"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.sweep
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")


def build(docs: Path, site: Path, language: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(site.parent / f"pages-{language}")]
    return subprocess.run(
        [*command, str(docs), str(site / language)],
        env={**os.environ, "SITE_LANGUAGE": language},
        capture_output=True,
        text=True,
        timeout=180,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    for language in ("en", "zh"):
        built = build(DOCS, folder, language)
        assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    return folder


class Html(HTMLParser):
    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("href", "src") and value:
                self.links.append(value)


def test_every_link_image_and_anchor_is_there(site: Path) -> None:
    pages = {file.resolve(): Html(file) for file in site.rglob("*.html")}
    assert len(pages) > 100
    broken: list[str] = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            there = target in pages and (not parts.fragment or unquote(parts.fragment) in pages[target].ids)
            # "#" is the top of a page.
            if not there and link != "#" and not (target.suffix != ".html" and target.is_file()):
                broken.append(f"{file.relative_to(site.resolve())}: {link}")
    assert broken == []


def test_both_languages_have_the_same_pages(site: Path) -> None:
    names = [
        {str(file.relative_to(site / language)) for file in (site / language).rglob("*.html")}
        for language in ("en", "zh")
    ]
    assert names[0] == names[1]
    assert 'lang="zh-CN"' in (site / "zh" / "training.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_api_links_its_types_here_and_elsewhere(site: Path, language: str) -> None:
    page = Html(site / language / "api.html")
    assert {
        "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor",
        "https://numpy.org/doc/stable/reference/generated/numpy.ndarray.html#numpy.ndarray",
        "https://docs.python.org/3/library/pathlib.html#pathlib.Path",
        "#torchclas.Preset",
        "#torchclas.layers.network.Network",
        "#torchclas.errors.CheckpointError",
    } <= set(page.links)
    assert {f"torchclas.{name}" for name in torchclas.__all__} - {"torchclas.__version__"} <= page.ids


def test_a_page_that_no_table_of_contents_names_fails_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("conf.py", "python_page.py", "elsewhere.toml", "_templates", "_static"):
        copy = shutil.copytree if (DOCS / name).is_dir() else shutil.copy
        copy(DOCS / name, docs / name)
    contents = '[[section]]\nen = "A"\nzh = "A"\npages = ["named"]\n[below]\n'
    (docs / "contents.toml").write_text(contents, encoding="utf-8")
    for name in ("index", "named"):
        (docs / f"{name}.md").write_text(f"# {name}\n", encoding="utf-8")
    assert build(docs, tmp_path / "site", "en").returncode == 0
    (docs / "forgotten.md").write_text("# Forgotten\n", encoding="utf-8")
    built = build(docs, tmp_path / "site", "en")
    assert built.returncode != 0
    assert "forgotten.md: WARNING: document isn't included in any toctree" in built.stderr


@needs_chromium
def test_search_without_a_network_finds_words_of_both_languages(site: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox())
        page = browser.new_page()
        searches = {"蒸馏": "distillation", "知识蒸馏": "distillation", "量化": "int8"}
        for language, words in (("zh", searches), ("en", {"distillation": "distillation", "quantize": "int8"})):
            for word, name in words.items():
                page.goto(f"{(site / language / 'search.html').as_uri()}?q={word}")
                expect(page.locator(f"#search-results a[href*='{name}.html']").first).to_be_visible()
        browser.close()


@needs_chromium
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_axe_finds_nothing_and_the_button_leads_to_the_twin(site: Path, width: int) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox())
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            for name in ("index", "start", "api", "errors", "distillation", "series/PPLCNet"):
                page.goto((site / "zh" / f"{name}.html").as_uri())
                found = Axe().run(page)
                assert found.violations_count == 0, found.generate_report()
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                page.locator(".language a").click()
                assert page.url == (site / "en" / f"{name}.html").as_uri()
            page.close()
        browser.close()


def sandbox() -> list[str]:
    # Chromium's sandbox refuses root, as which continuous integration runs.
    return ["--no-sandbox"] if os.getuid() == 0 else []
