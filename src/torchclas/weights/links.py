"""Names that libraries written in Rust take for files."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def utf8_path(path: Path) -> Generator[Path]:
    """Yield `path` or, where its name is no UTF-8, which safetensors does not open, a link to it that lasts a while."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link = Path(folder, f"link{path.suffix}")
            link.symlink_to(path.resolve())
            yield link
    else:
        yield path
