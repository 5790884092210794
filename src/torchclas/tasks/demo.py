"""A first look without any server: name what photographs show, and tell how pages of text are turned."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from torchclas.atomic import atomic_path
from torchclas.data.sample_pages import ROTATIONS, render_page, turned
from torchclas.errors import Error, MissingDependencyError
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.reporting.console import Console, Table, escape
from torchclas.reporting.contact_sheet import open_montage

# The photographs of everyday things inside scikit-image's wheel; which of them ship depends on its version.
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "astronaut.png")
ORIENTATION_MODEL = "PPLCNet_x1_0_text_orientation"
PAGES = 8


def demo(output: Path, console: Console | None = None) -> None:
    """Classify sample photographs and pages, print the results, and write pictures of them into `output`.

    Raises:
        MissingDependencyError: scikit-image, whose photographs these are, is not installed.
        OutputError: `output` cannot be written.
    """
    console = console or Console()
    start = time.perf_counter()
    photographs = sample_photographs()
    written = [_classify(photographs, output / "photographs.png", console)]
    program = _program()
    next_commands = [f"{program} predict {shlex.quote(str(photographs[0]))}", f"{program} list 'PPLCNet*'"]
    try:
        pages = _check_orientation(output, console)
        written += pages
        next_commands.append(f"{program} predict -m {ORIENTATION_MODEL} {shlex.quote(str(pages[-1]))}")
    except MissingDependencyError as error:
        next_commands.append(f"{program} info {ORIENTATION_MODEL}")
        console.print(f"[yellow]Skipped the page-orientation model:[/] {escape(str(error))}", soft_wrap=True)
    console.print(f"\nDone in {time.perf_counter() - start:.1f} s, without fetching anything. Written:")
    for path in written:
        console.print(f"  {escape(str(path))}", soft_wrap=True)
    console.print("\nNext, try:")
    for command in next_commands:
        console.print(f"  [bold]{escape(command)}[/]", soft_wrap=True)


def _program() -> str:
    """How this command is called from where the user stands: by its name only where a shell finds it."""
    beside = Path(sys.executable).parent / "torchclas"
    found = shutil.which("torchclas")
    if found is not None and Path(found).parent.absolute() == beside.parent.absolute():
        return "torchclas"
    if not beside.is_file():  # such as torchclas.exe
        return f"{shlex.quote(sys.executable)} -m torchclas"
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def sample_photographs() -> list[Path]:
    """The photographs that come with the installed scikit-image."""
    package = find_spec("skimage")  # not imported: only its files are wanted
    if package is None or package.origin is None:
        raise MissingDependencyError("scikit-image", '"torchclas[demo]"')
    folder = Path(package.origin).parent / "data"
    found = [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]
    if not found:
        raise Error(f"{folder} holds none of the sample photographs: run `pip install --force-reinstall scikit-image`")
    return found


def _classify(photographs: Sequence[Path], picture: Path, console: Console) -> Path:
    """Print what the default model sees, and write the pictures with their labels."""
    classifier = Classifier(top_k=3, engine="torch")  # six photographs do not pay for preparing another
    table = Table(show_lines=True)
    table.add_column("photograph")
    table.add_column(f"the likeliest of {classifier.spec.num_classes:,} classes")
    with open_montage(picture, classifier) as sheet:
        for batch in classifier.batches(photographs):
            predictions = list(classifier.rows(batch))
            sheet.add(batch, predictions)
            for row in predictions:
                table.add_row(escape(Path(row.source).name), _ranking(row) if row.error is None else escape(row.error))
    console.print(f"\n[bold]{classifier.spec.name}[/] names what photographs show:")
    console.print(table)
    console.print("Low scores throughout mean that it is none of the classes: ImageNet has no astronauts.")
    return picture


def _ranking(prediction: Prediction) -> str:
    ranked = zip(prediction.scores, prediction.labels, strict=True)
    return "\n".join(f"{100 * score:4.1f} %  {escape(label)}" for score, label in ranked)


def _check_orientation(output: Path, console: Console) -> list[Path]:
    """Print how often the model is right about rendered pages, and write one of them in each rotation."""
    classifier = Classifier(ORIENTATION_MODEL, top_k=1, engine="torch")
    pages = [render_page(seed) for seed in range(PAGES)]
    table = Table()
    for column in ("turned clockwise by", "right", "mean score"):
        table.add_column(column, justify="right")
    written: list[Path] = []
    for degrees in ROTATIONS:
        rotated = [turned(page, degrees) for page in pages]
        predictions = list(classifier.predict(rotated))
        right = sum(row.class_ids == (str(degrees),) for row in predictions)
        mean = sum(row.scores[0] for row in predictions) / PAGES
        table.add_row(f"{degrees}°", f"{right} of {PAGES}", f"{mean:.3f}")
        written.append(output / f"page_{degrees:03}.png")
        with atomic_path(written[-1]) as path:
            rotated[0].save(path)
    console.print(f"\n[bold]{classifier.spec.name}[/] tells how rendered pages are turned:")
    console.print(table)
    return written
