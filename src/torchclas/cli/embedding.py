"""Commands that make vectors of images, and search them: `embed`, `gallery`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.types import PositiveInt

from torchclas.cli.app import (
    FLAT,
    BatchSize,
    Device,
    Engine,
    MaxPixels,
    Model,
    OnePrecision,
    Relabel,
    Threads,
    Verbose,
    Weights,
    Workers,
    app,
    start_lean,
    stderr,
    stdout,
)
from torchclas.cli.spellings import refuse_options
from torchclas.completion import MODELS
from torchclas.messages import say
from torchclas.text import printable
from torchclas.vocabulary import RowFormat, VectorType

if TYPE_CHECKING:
    from torchclas.tasks.gallery import Changed, MakeEmbedder, Summary


@dataclass(frozen=True)
class Running:
    """How a model is run."""

    batch_size: BatchSize = None
    workers: Workers = None
    max_pixels: MaxPixels = 100_000_000
    device: Device = "auto"
    engine: Engine = "auto"
    precision: OnePrecision = "fp32"
    threads: Threads = None

    def options(self) -> dict[str, Any]:
        """The same as arguments of `torchclas.Embedder`."""
        return {**asdict(self), "batch_size": self.batch_size or 16}


RUNNING = Running()  # where nothing is said


@app.command
def embed(
    *sources: Annotated[
        str | Path,
        Parameter(
            help="Images: files, folders, globs, URLs; - reads such names from standard input.",
            allow_leading_hyphen=True,  # for - itself
        ),
    ],
    output: Annotated[
        Path, Parameter(name=("--output", "-o"), help="File for the vectors: .parquet, .npz or .safetensors.")
    ],
    model: Model = None,
    weights: Weights = None,
    normalize: Annotated[
        bool, Parameter(negative="", help="Scale vectors to unit length (L2), so that products are cosines.")
    ] = False,
    dtype: Annotated[VectorType, Parameter(help="Type of the vectors' numbers.")] = "fp32",
    running: Annotated[Running, FLAT] = RUNNING,
    verbose: Verbose = False,
) -> int:
    """Write a vector for each image, one row each, in order: what a model knows of it before it names a class.

    An image that cannot be read has a row that says why; the exit code is then 1. Ctrl-C keeps the rows done so far.
    """
    refuse_options(app, "embed", sources)
    start_lean(verbose)

    from torchclas.inference.embedder import Embedder
    from torchclas.tasks.embed import embed as task

    summary = task(
        list(map(str, sources)),
        lambda: Embedder(
            model,
            weights=weights,
            normalize=normalize,
            dtype=dtype,
            **running.options(),
        ),
        output,
    )
    print(f"{say(str(summary))}, {summary.seconds:.1f} s → {printable(str(output))}", file=sys.stderr)
    return 1 if summary.errors else 0


gallery_app = App(name="gallery", help="Find pictures again, and recognise classes by example, without training.")
app.command(gallery_app)

Pictures = Annotated[
    str | Path,
    Parameter(help="Class folders or a list file; with --class or --unlabelled any images, as for predict."),
]
Inputs = Annotated[
    str | Path,
    Parameter(
        help="Images: files, folders, globs, URLs; - reads such names from standard input.",
        allow_leading_hyphen=True,
    ),
]
GalleryFile = Annotated[Path, Parameter(name=("--gallery", "-g"), help="The gallery's file.")]
Maker = Annotated[
    str | None,
    MODELS,
    Parameter(name=("--model", "-m"), help="The model, where it is not to be had as the gallery names it."),
]
Format = Annotated[
    RowFormat | None, Parameter(name="--format", help="Default: what the output's suffix stands for, or else table.")
]
Rows = Annotated[Path | None, Parameter(name=("--output", "-o"), help="File instead of standard output.")]
Montage = Annotated[
    Path | None,
    Parameter(help="Draw the pictures beside what they were found to be like: a picture, or a page (.html)."),
]
Exact = Annotated[
    bool, Parameter(negative="", help="Compare with all pictures, also where there is an index (`gallery index`).")
]


@dataclass(frozen=True)
class Labelled:
    """Where the classes of pictures come from."""

    one_class: Annotated[str | None, Parameter(name="--class", help="The class of all pictures that are named.")] = None
    unlabelled: Annotated[
        bool, Parameter(negative="", help="The pictures have no classes: they are found, not named.")
    ] = False
    labels: Annotated[
        Path | None,
        Parameter(help="Names of the classes, one per line (`cat` or `0 cat`), in the order of a list's numbers."),
    ] = None
    root: Annotated[Path | None, Parameter(help="Folder of a list's paths. Default: the list's own.")] = None
    delimiter: Annotated[str, Parameter(help=r"Stands between path and label in a list file; '\t' is a tab.")] = " "
    relabel: Relabel = False


LABELLED = Labelled()  # where nothing is said


@gallery_app.command
def build(
    *pictures: Pictures,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help="The gallery's file.")],
    model: Model = None,
    weights: Weights = None,
    labelled: Annotated[Labelled, FLAT] = LABELLED,
    running: Annotated[Running, FLAT] = RUNNING,
    verbose: Verbose = False,
) -> int:
    """Make a gallery of pictures: their vectors, classes and paths in one file.

    Pictures that cannot be read are left out and listed; the exit code is then 1.
    """
    refuse_options(app, "gallery build", pictures)
    start_lean(verbose)

    from torchclas.tasks import gallery as task

    named = task.pictures_named([*map(str, pictures)], **asdict(labelled))
    make = _maker(model, weights, running)
    return _tell(task.build(named, make, output), output)


@gallery_app.command
def add(
    *pictures: Pictures,
    gallery: GalleryFile,
    model: Maker = None,
    weights: Weights = None,
    labelled: Annotated[Labelled, FLAT] = LABELLED,
    running: Annotated[Running, FLAT] = RUNNING,
    verbose: Verbose = False,
) -> int:
    """Put more pictures into a gallery, of classes that it has or new ones; those that it has are replaced.

    Pictures that cannot be read are left out and listed; the exit code is then 1.
    """
    refuse_options(app, "gallery add", pictures)
    start_lean(verbose)

    from torchclas.tasks import gallery as task

    named = task.pictures_named([*map(str, pictures)], **asdict(labelled))
    make = _maker(model, weights, running)
    return _tell(task.add(named, make, gallery), gallery)


@gallery_app.command
def remove(
    *pictures: Annotated[str | Path, Parameter(help="Pictures of the gallery: files, folders, globs.")],
    gallery: GalleryFile,
    classes: Annotated[
        tuple[str, ...],
        Parameter(name="--class", negative="", show_default=False, help="A class, with all of it; may be repeated."),
    ] = (),
) -> int:
    """Take pictures, or all of a class, out of a gallery; the pictures' own files stay."""
    from torchclas.tasks import gallery as task

    return _tell(task.remove(gallery, classes=classes, sources=[*map(str, pictures)]), gallery)


@gallery_app.command
def search(
    *pictures: Inputs,
    gallery: GalleryFile,
    count: Annotated[PositiveInt, Parameter(name=("--count", "-k"), help="Pictures to find for each.")] = 5,
    format: Format = None,  # noqa: A002 - the option's name
    output: Rows = None,
    montage: Montage = None,
    exact: Exact = False,
    model: Maker = None,
    weights: Weights = None,
    running: Annotated[Running, FLAT] = RUNNING,
    verbose: Verbose = False,
) -> int:
    """Find the pictures of a gallery that are most like others: one row for each of these, in order.

    An image that cannot be read has a row that says why; the exit code is then 1.
    """
    refuse_options(app, "gallery search", pictures)
    start_lean(verbose)

    from torchclas.tasks import gallery as task

    make = _maker(model, weights, running)
    summary = task.search(
        [*map(str, pictures)],
        gallery,
        make,
        count=count,
        output=output,
        output_format=format,
        montage=montage,
        exact=exact,
    )
    return _tell_rows(summary, output)


@gallery_app.command
def recognize(
    *pictures: Inputs,
    gallery: GalleryFile,
    count: Annotated[PositiveInt, Parameter(name=("--count", "-k"), help="Classes to give for each.")] = 1,
    threshold: Annotated[
        float | None,
        Parameter(help="Similarity below which a picture is unknown. Default: what the gallery was calibrated to."),
    ] = None,
    format: Format = None,  # noqa: A002 - the option's name
    output: Rows = None,
    montage: Montage = None,
    exact: Exact = False,
    model: Maker = None,
    weights: Weights = None,
    running: Annotated[Running, FLAT] = RUNNING,
    verbose: Verbose = False,
) -> int:
    """Name the class of pictures by those of a gallery, or say that it is unknown: one row for each, in order.

    An image that cannot be read has a row that says why; the exit code is then 1.
    """
    refuse_options(app, "gallery recognize", pictures)
    start_lean(verbose)

    from torchclas.tasks import gallery as task

    make = _maker(model, weights, running)
    summary = task.search(
        [*map(str, pictures)],
        gallery,
        make,
        count=count,
        recognize=True,
        threshold=threshold,
        output=output,
        output_format=format,
        montage=montage,
        exact=exact,
    )
    return _tell_rows(summary, output)


@gallery_app.command
def index(gallery: Annotated[Path, Parameter(help="The gallery's file.")], /) -> int:
    """Make an index of a gallery of 100,000 pictures or more, with faiss: searches on this machine then use it.

    After a change of the gallery it is not used any more: make it anew.
    """
    from torchclas.tasks import gallery as task

    made = task.index(gallery)
    share, agreement = 100 * made.looked_at, 100 * (made.agreement or 0)
    remark = f"searches compare {share:.1f} % of the pictures, and find {agreement:.1f} % of the ten nearest"
    print(say(remark), file=sys.stderr)
    return 0


@gallery_app.command
def info(gallery: Annotated[Path, Parameter(help="The gallery's file.")], /) -> int:
    """Say what a gallery holds: its model, its classes with their numbers of pictures, and its threshold."""
    from torchclas.reporting.gallery_facts import print_gallery
    from torchclas.retrieval.gallery import Gallery

    print_gallery(Gallery.read(gallery), stdout())
    return 0


def _maker(model: str | None, weights: Path | None, running: Running) -> MakeEmbedder:
    """What opens the model that was named, or else the one that a gallery was made with."""
    from torchclas.inference.embedder import Embedder, Provenance
    from torchclas.retrieval.searcher import maker_of

    options = running.options()

    def make(provenance: Provenance | None) -> Embedder:
        if provenance is None or model is not None or weights is not None:
            return Embedder(model, weights=weights, normalize=True, **options)
        return maker_of(provenance, **options)

    return make


def _tell(changed: Changed, path: Path) -> int:
    from torchclas.reporting.gallery_facts import print_change

    print_change(changed.gallery, changed.added, changed.removed, changed.unreadable, changed.notes, path, stderr())
    return 1 if changed.unreadable else 0


def _tell_rows(summary: Summary, output: Path | None) -> int:
    if summary.errors or output is not None:
        where = "" if output is None else f" → {printable(str(output))}"
        print(f"{say(str(summary))}, {summary.seconds:.1f} s{where}", file=sys.stderr)
    return 1 if summary.errors else 0
