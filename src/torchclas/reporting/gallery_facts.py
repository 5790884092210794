"""What a gallery holds, and what a change did to it, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchclas.messages import label
from torchclas.reporting.console import Console, Table, escape, print_pairs, verbatim
from torchclas.retrieval.gallery import Gallery

SHOWN = 10  # files that cannot be read


def print_change(
    gallery: Gallery,
    added: int,
    removed: int,
    unreadable: Sequence[tuple[str, str]],
    notes: Sequence[str],
    path: Path,
    console: Console,
) -> None:
    """Print what came and went, what the gallery has now, and from where on a picture is known."""
    for note in notes:
        console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    if unreadable:
        console.print(f"[bold red]{len(unreadable):,} pictures cannot be read, and are left out:[/]")
        for source, error in unreadable[:SHOWN]:
            console.print(f"  {escape(source)}: {escape(error)}", soft_wrap=True)
        if len(unreadable) > SHOWN:
            console.print(f"  … and {len(unreadable) - SHOWN:,} more")
    change = f"{removed:,} pictures removed" if removed else f"{added:,} pictures added"
    console.print(escape(change), soft_wrap=True)
    console.print(escape(f"{len(gallery):,} pictures in {len(gallery.classes):,} classes"), end=" → ", soft_wrap=True)
    console.print(escape(str(path)), soft_wrap=True, highlight=False)
    for line in calibration_lines(gallery):
        console.print(escape(line), soft_wrap=True)


def print_gallery(gallery: Gallery, console: Console) -> None:
    """Print the model, the calibration and the classes."""
    made = gallery.provenance
    rows = [
        ("model", made.model if made.model == made.arch else f"{made.model} ({made.arch})"),
        ("weights", made.path or made.weights),
        ("pictures", f"{len(gallery):,}"),
        ("vectors", f"{made.dimension:,} × fp32"),
        ("engine", made.engine),
    ]
    print_pairs(rows, console)
    for line in calibration_lines(gallery):
        console.print(escape(line), soft_wrap=True)
    if gallery.counts:
        table = Table(title="Classes")
        table.add_column("class")
        table.add_column("pictures", justify="right")
        for name, count in gallery.counts.items():
            table.add_row(verbatim(name), f"{count:,}")
        if none := int((gallery.labels < 0).sum()):
            table.add_row(f"[dim]{label('without a class')}[/]", f"{none:,}")
        console.print(table)


def calibration_lines(gallery: Gallery) -> list[str]:
    """What the gallery's own pictures say of similarities, in sentences."""
    found = gallery.calibration
    if not gallery.classes:
        return ["No picture has a class: search finds similar ones, recognize has nothing to name."]
    if found.threshold is None or found.kept is None or found.rejected is None:
        return ["From which similarity on a picture is known cannot be told: add a second class, and pictures to both."]
    return [
        f"Unknown below {found.threshold:.3f}: of {found.pictures:,} of its pictures, {100 * found.kept:.1f} % are at "
        f"least as similar to another of their class, and {100 * found.rejected:.1f} % less to all other classes.",
    ]
