"""The code blocks of documentation, as a reader would run them: in order, from a fresh folder.

A block of shell or Python is run, unless a comment before it, `<!-- not run: why -->`, says why not; one behind the
title, `<!-- not run on this page: why -->`, holds for all blocks of a page. What a page says of pictures,
`<!-- start/sheet.jpg is sheet.png -->`, is for `python -m tests.documented_blocks start.md`, which runs a page and
keeps them; of a page in HTML that a command wrote (`zoo.html`), `zoo.png` is what Chromium shows.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LANGUAGES = ("bash", "python")
WIDEST = 1200  # pixels of a kept picture

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^>]+) -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
_WHOLE_PAGE = re.compile(r"^<!-- not run on this page: ([^>]+) -->$", re.MULTILINE)
_ASSIGNMENT = re.compile(r"\w+=")
_JOINTS = ("|", "&&", ";")
_ENDS = (*_JOINTS, "&", ">", ">>", "2>")
_PICTURE = re.compile(r"<!-- (\S+) is (\S+) -->")


@dataclass(frozen=True)
class Block:
    """Shell or Python on a page; `why_not` is the reason that it gives for not being run."""

    language: str
    code: str
    why_not: str | None


def pages() -> list[Path]:
    """Pages that a reader follows: those in English, whose blocks the Chinese ones repeat."""
    return [page for page in sorted(DOCS.rglob("*.md")) if not page.name.endswith(".zh-CN.md")]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that could be run, in order."""
    text = page.read_text(encoding="utf-8")
    whole = _WHOLE_PAGE.search(text)
    return [
        Block(match["language"], match["code"], match["why"] or (whole[1] if whole else None))
        for match in _BLOCK.finditer(text)
        if match["language"] in LANGUAGES
    ]


def commands(code: str) -> Iterator[list[str]]:
    """The arguments of each `torchclas` in a block of shell, but for those in variables, pipes and redirections."""
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"\$\{.*\}", word)]
        for start, word in enumerate(words):
            before = next((word for word in reversed(words[:start]) if not _ASSIGNMENT.match(word)), ";")
            if word == "torchclas" and before in (*_JOINTS, "-m"):
                rest = words[start + 1 :]
                yield rest[: next((place for place, word in enumerate(rest) if word in _ENDS), None)]


def run(page: Path, folder: Path, cache: Path) -> None:
    """Run the blocks of a page in `folder`, each in a process of its own; raises AssertionError with what it said."""
    programs = folder.parent / "bin"
    programs.mkdir()
    command = programs / "torchclas"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m torchclas "$@"\n')
    command.chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "TORCHCLAS_CACHE": str(cache),
        "TORCHCLAS_OFFLINE": "1",
        "GOMP_SPINCOUNT": "0",
        "LC_ALL": "C.UTF-8",
    }
    for block in blocks(page):
        if block.why_not is not None:
            continue
        program = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
        said = folder.parent / "said"
        with said.open("w") as output:
            process = subprocess.Popen(
                [*program, block.code],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=300)
            finally:  # what it left behind, such as a server, ends with it
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
        assert code == 0, f"{page.name}:\n{block.code}\n{said.read_text()}"


def keep_pictures(page: Path, folder: Path) -> list[Path]:
    """Copy the pictures that a page shows from where its commands made them."""
    kept: list[Path] = []
    for name, made in _PICTURE.findall(page.read_text(encoding="utf-8")):
        target = page.parent / name
        target.parent.mkdir(exist_ok=True)
        if not (folder / made).exists():
            _photograph((folder / made).with_suffix(".html"), folder / made)
        with Image.open(folder / made) as picture:
            picture.thumbnail((WIDEST, 4 * WIDEST))
            picture.convert("RGB").save(target, quality=85)
        kept.append(target)
    return kept


def _photograph(page: Path, target: Path) -> None:
    """A picture of a page that a command wrote, as Chromium shows it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        shown = browser.new_page(viewport={"width": 1200, "height": 900})
        shown.goto(page.as_uri())
        shown.wait_for_timeout(1000)
        shown.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary, "work")
            work.mkdir()
            run(DOCS / name, work, Path(temporary, "cache"))
            for picture in keep_pictures(DOCS / name, work):
                print(picture)
