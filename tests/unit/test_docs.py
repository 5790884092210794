import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from torchclas import catalog

ROOT = Path(__file__).parents[2]
SERIES = ROOT / "docs" / "series"
PAGES = sorted(SERIES.glob("*.md"))
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_chinese(page: Path) -> bool:
    return page.name.endswith(".zh-CN.md")


def test_every_series_has_a_page_in_both_languages() -> None:
    names = ["README", *(series.id for series in catalog.all_series())]
    assert {page.name for page in PAGES} == {f"{name}{suffix}" for name in names for suffix in (".md", ".zh-CN.md")}


def test_generated_parts_are_current(generate: ModuleType) -> None:
    stale = [page.name for page, text in generate.pages().items() if page.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"


@pytest.mark.parametrize("chinese", [False, True])
def test_every_model_is_on_the_page_of_its_series_and_no_other(chinese: bool) -> None:
    rows = [
        (name, page.name.split(".")[0])
        for page in PAGES
        if is_chinese(page) is chinese and not page.name.startswith("README")
        for name in re.findall(r"^\| `([^`]+)`", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(rows) == sorted((entry.name, entry.series.id) for entry in catalog.entries())


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_links_stay_in_the_language_but_for_the_twin(page: Path) -> None:
    name = page.name.split(".")[0]
    twin = f"{name}.md" if is_chinese(page) else f"{name}.zh-CN.md"
    text = page.read_text(encoding="utf-8")
    assert f"]({twin})" in text.splitlines()[2]
    pages = [link.partition("#")[0] for link in LINK.findall(text)]
    others = {link for link in pages if link.endswith(".md") and link.endswith(".zh-CN.md") is not is_chinese(page)}
    assert others == {twin}


@every_page
def test_prose_is_in_the_language(page: Path) -> None:
    text = re.sub(r"\[简体中文\]", "", page.read_text(encoding="utf-8"))
    assert bool(re.search("[一-鿿]", text)) is is_chinese(page)


def test_notes_have_no_stale_translation(generate: ModuleType) -> None:
    notes = {entry.note for entry in catalog.entries()} | {series.note for series in catalog.all_series()}
    unused = [pattern for pattern in generate.NOTES_ZH if not any(re.fullmatch(pattern, note) for note in notes)]
    assert not unused
