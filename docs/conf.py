"""How Sphinx makes the site of the Markdown pages in this folder: `make site` runs it for English and for Chinese.

`SITE_LANGUAGE` is `en` or `zh`. A page of the Chinese site is its `.zh-CN.md` file, or the English one where there is
no Chinese; both sites have the same page names, so that a page has its twin at the same place. The order of pages is in
contents.toml.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jieba
from sphinx.search.zh import SearchChinese

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports] - installed where Python has none

if TYPE_CHECKING:
    from sphinx.application import Sphinx

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "src")]

from python_page import read_docstring, resolve, with_plain_lines  # noqa: E402 - it is beside this file

LANGUAGE = os.environ.get("SITE_LANGUAGE", "en")
TWIN = {
    "en": {"site": "zh", "lang": "zh-CN", "name": "简体中文"},
    "zh": {"site": "en", "lang": "en", "name": "English"},
}[LANGUAGE]
CONTENTS: dict[str, Any] = tomllib.loads((FOLDER / "contents.toml").read_text(encoding="utf-8"))
# On a code host, this is how a page says that it has a twin; here a button does.
SWITCH = re.compile(r"^(?:English \| \[简体中文\]\([^)]+\)|\[English\]\([^)]+\) \| 简体中文)(?: · )?", re.MULTILINE)
# Chinese has no spaces between its words, and a browser would show one where a line of the source ends.
WITHIN_CHINESE = re.compile(r"(?<=[一-鿿、。，；：！？）」】])\n(?=[一-鿿（「【])")
LINK_UP = re.compile(r"(?<=\]\()\.\./[^)#]+\.md(?=\))")

project = "torchclas"
language = {"en": "en", "zh": "zh_CN"}[LANGUAGE]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Chinese pages come first: of two files for a page, Sphinx takes that of the first suffix.
source_suffix = {".zh-CN.md": "markdown", ".md": "markdown"} if LANGUAGE == "zh" else {".md": "markdown"}
exclude_patterns = ["_*"] + (
    [str(page.relative_to(FOLDER)).replace(".zh-CN.md", ".md") for page in FOLDER.rglob("*.zh-CN.md")]
    if LANGUAGE == "zh"
    else ["**.zh-CN.md"]
)
templates_path = ["_templates"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
maximum_signature_line_length = 100
python_use_unqualified_type_names = True
# Text may look like anything on a code host; only what is written as code is highlighted.
highlight_language = "text"

html_theme = "furo"
html_title = "torchclas"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": ["view"]}


class ChineseSearch(SearchChinese):
    """Sphinx's search in Chinese, made to run in a browser."""

    # Names the stemmer's class in JavaScript, and it is the English one that Sphinx ships for Chinese pages.
    language_name = "English"
    # The index has words as jieba parts them; by default a browser would look for 知识蒸馏 as one.
    js_splitter_code = """
var splitQuery = (query) =>
  [...new Intl.Segmenter("zh", { granularity: "word" }).segment(query)]
    .filter((part) => part.isWordLike)
    .map((part) => part.segment);
"""


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    jieba.setLogLevel("WARNING")  # otherwise it says on stderr that it reads its dictionary
    app.add_search_language(ChineseSearch)
    app.connect("source-read", prepare_page)
    app.connect("autodoc-process-docstring", read_docstring, priority=400)  # before napoleon, which reads sections
    app.connect("missing-reference", resolve)
    app.connect("html-page-context", complete_context, priority=900)  # after furo, whose tree of pages it corrects


def prepare_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Take the line of languages from a page, and give it the pages that stand below it."""
    folder = (FOLDER / name).parent
    text = SWITCH.sub("", source[0], count=1)
    text = LINK_UP.sub(lambda link: _as_download(folder, link), text)
    if LANGUAGE == "zh":
        text = WITHIN_CHINESE.sub("", text)
    if name == "commands":
        from commands_page import commands

        text += "\n" + commands("zh" if LANGUAGE == "zh" else "en")
    if name == "index":
        text += "".join(_toctree(section["pages"], section[LANGUAGE]) for section in CONTENTS["section"])
    elif name in CONTENTS["below"]:
        text += _toctree(CONTENTS["below"][name])
    source[0] = text


def _as_download(folder: Path, link: re.Match[str]) -> str:
    """A Markdown file of the checkout that is no page of the site, as a file to download."""
    outside = FOLDER not in (folder / link[0]).resolve().parents
    return f"path:{link[0]}" if outside else link[0]


def _toctree(pages: list[str], caption: str = "") -> str:
    options = [":hidden:", ":glob:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *pages, "```", ""])


def complete_context(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Tell the templates where the page is in the other language, and the headings of the tree their level."""
    context["twin"] = {**TWIN, "href": f"{'../' * (name.count('/') + 1)}{TWIN['site']}/{name}.html"}
    if name == "api":
        context["body"] = with_plain_lines(context["body"])
    if name == "errors":  # messages are longer than a phone is wide, and may be broken
        context["body"] = context["body"].replace('class="highlight-text', 'class="wraps highlight-text')
    if "furo_navigation_tree" in context:
        tree = context["furo_navigation_tree"]
        context["furo_navigation_tree"] = tree.replace(' role="heading"', ' role="heading" aria-level="2"')
