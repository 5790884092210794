"""Measure many models on one data set, beside what was published of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from torchclas.inference.accuracy_rows import AccuracyTable, Records, Row
from torchclas.inference.accuracy_table import Settings, measure_models
from torchclas.reporting.accuracy_table import print_accuracies, said, write_accuracies
from torchclas.reporting.console import Console, escape
from torchclas.reporting.evaluation_report import make_folder
from torchclas.reporting.progress import stages
from torchclas.signals import as_interrupts


def accuracy_table(
    models: Sequence[str],
    data: str | Path,
    settings: Settings,
    *,
    output: Path | None,
    console: Console,
    notes: Console,
) -> AccuracyTable:
    """Measure models as `torchclas.inference.accuracy_table.measure_models` does, and print the table.

    With `output`, a folder, what was measured is kept there, so that the same call goes on where it was interrupted,
    and the table is written as `table.csv` and `index.html`. Progress and remarks go to `notes`.

    Raises:
        What `measure_models` does.
        OutputError: the folder cannot be written, or another process measures into it.
    """
    rows = list[Row]()
    with ExitStack() as stack:
        records = None
        if output is not None:
            make_folder(output)
            records = stack.enter_context(Records(output))
        stack.enter_context(as_interrupts())
        begin = stack.enter_context(stages(notes))

        def done(row: Row) -> None:
            rows.append(row)
            notes.print(f"[dim]{len(rows)}/{len(models)}[/] {said(row)}", highlight=False, soft_wrap=True)

        try:
            table = measure_models(models, data, settings, records=records, begin=begin, done=done)
        except KeyboardInterrupt:
            print_accuracies(AccuracyTable(str(data), 0, tuple(rows)), console)
            if output is not None:
                notes.print("interrupted: the same command goes on", soft_wrap=True)
            raise
        written = [] if output is None else write_accuracies(table, output)
    print_accuracies(table, console)
    for path in written:
        notes.print(f"wrote {escape(str(path))}", soft_wrap=True)
    return table
