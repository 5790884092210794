"""Search and recognition by example: how good on real pictures, how fast among a million vectors.

`python benchmarks/search.py stamps`: with EfficientNet_lite0's real weights on Debian's tuxpaint-stamps-default, whose
stamps are laid on white. Categories are the folders of stamps with at least six; of each, every second stamp is held
out and looked for among the others. Instances are all stamps; each is pasted, turned by 15°, on a photograph that
scikit-image or scikit-learn has (its longer side is 70 % of the photograph's height), and looked for among the plain
ones. For `unknown`, a gallery has every second category, with half of its stamps; what `recognize` says of held-out
stamps of known and of unknown categories is counted. At last, altered copies are compared with their originals.

`python benchmarks/search.py million`: a gallery of 10^6 vectors of 1,280 numbers, each the vector of a stamp with noise
that leaves a cosine of 0.75 with it, is written to `--folder` (5 GB) and searched by a process of its own: the time of
a query alone, and of 64 together; the memory that is the process's own, and the pages of the file that it has mapped.
The same through an index of faiss, and whether both agree.
"""

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from markdown import table
from numpy.typing import NDArray
from photographs import photograph
from PIL import Image, ImageEnhance, ImageOps

from torchclas import Embedder, Gallery
from torchclas.inference.embedder import unit_length
from torchclas.metrics.retrieval import RetrievalTally
from torchclas.retrieval.building import empty_gallery
from torchclas.retrieval.exact import nearest
from torchclas.retrieval.faiss_index import index_file, make_index, open_index

HERE = Path(__file__).resolve().parent

STAMPS = Path("/usr/share/tuxpaint/stamps")
FEWEST = 6  # stamps of a category
TURN, HEIGHT = 15, 0.7
COUNT, DIMENSION, NOISE = 10**6, 1280, 0.88  # of a vector of length 1: their cosine is 1 / sqrt(1 + 0.88²) = 0.75
BLOCK = 10_000
PARTS = ("make", "index", "exact", "faiss")
Vectors = NDArray[np.float32]


def stamps() -> list[Path]:
    """All but the mirror images that Tux Paint makes of some."""
    return sorted(path for path in STAMPS.rglob("*.png") if not path.stem.endswith(("_mirror", "_flip")))


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGBA")


def on_white(stamp: Image.Image) -> Image.Image:
    paper = Image.new("RGBA", stamp.size, "white")
    paper.alpha_composite(stamp)
    return paper.convert("RGB")


def on_photograph(stamp: Image.Image, index: int) -> Image.Image:
    scene = Image.fromarray(np.ascontiguousarray(photograph(index)[:, :, ::-1])).convert("RGBA")
    turned = stamp.rotate(TURN, Image.Resampling.BICUBIC, expand=True)
    side = HEIGHT * scene.height / max(turned.size)
    size = max(1, round(turned.width * side)), max(1, round(turned.height * side))
    turned = turned.resize(size, Image.Resampling.LANCZOS)
    scene.alpha_composite(turned, ((scene.width - turned.width) // 2, (scene.height - turned.height) // 2))
    return scene.convert("RGB")


def vectors_of(embedder: Embedder, images: list[Image.Image]) -> Vectors:
    vectors = [row.vector for row in embedder.embed(images)]
    return np.stack([vector for vector in vectors if vector is not None])


def ranked(pictures: Vectors, labels: NDArray[np.int64], queries: Vectors, asked: NDArray[np.int64]) -> list[str]:
    tally = RetrievalTally()
    for line, label in zip(queries @ pictures.T, asked.tolist(), strict=True):
        tally.add(labels[np.argsort(-line, kind="stable")], label)
    figures = (tally.recall[1].value, tally.recall[5].value, tally.mean_average_precision, tally.accuracy[5].value)
    return [f"{100 * value:.1f} %" for value in figures]


def measure_stamps() -> None:
    paths = stamps()
    images = [opened(path) for path in paths]
    embedder = Embedder(normalize=True)
    plain = vectors_of(embedder, [on_white(image) for image in images])
    folders = [str(path.parent.relative_to(STAMPS)) for path in paths]
    names = sorted({folder for folder in folders if folders.count(folder) >= FEWEST})
    labels = np.array([names.index(folder) if folder in names else -1 for folder in folders])
    of_category = np.flatnonzero(labels >= 0)
    known, held = of_category[::2], of_category[1::2]
    title = f"{len(names)} categories, {len(held)} held-out stamps among {len(known)}"
    rows = [[title, *ranked(plain[known], labels[known], plain[held], labels[held])]]
    pasted = vectors_of(embedder, [on_photograph(image, index) for index, image in enumerate(images)])
    each = np.arange(len(paths))
    rows.append([f"{len(paths)} stamps on photographs among the plain ones", *ranked(plain, each, pasted, each)])
    print(table("Recall", ["", "recall@1", "recall@5", "mAP", "5-NN"], rows))
    measure_unknown(embedder, plain, labels, known, held, names)
    measure_copies(embedder, [on_white(images[place]) for place in of_category], plain[of_category])


def measure_unknown(
    embedder: Embedder,
    vectors: Vectors,
    labels: NDArray[np.int64],
    known: NDArray[np.int64],
    held: NDArray[np.int64],
    names: list[str],
) -> None:
    chosen = known[labels[known] % 2 == 0]
    classes = [names[labels[place]] for place in chosen]
    named = [str(place) for place in chosen]
    gallery = empty_gallery(embedder).with_pictures(vectors[chosen], classes, named).calibrated()
    found = gallery.calibration
    products, places = nearest(gallery.vectors, vectors[held], 1)
    accepted = products[:, 0] >= (found.threshold or 0)
    said = [gallery.class_of(int(place)) for place in places[:, 0]]
    right = np.array([own == names[labels[query]] for own, query in zip(said, held, strict=True)])
    of_known = labels[held] % 2 == 0
    print(f"\nthreshold {found.threshold or 0:.3f}; promised:", end=" ")
    print(f"{found.kept or 0:.1%} kept, {found.rejected or 0:.1%} rejected")
    print(f"held out, known categories: {accepted[of_known].mean():.1%} kept,", end=" ")
    print(f"of these {right[of_known & accepted].mean():.1%} right; without a threshold {right[of_known].mean():.1%}")
    print(f"held out, unknown categories: {1 - accepted[~of_known].mean():.1%} rejected")


def measure_copies(embedder: Embedder, images: list[Image.Image], vectors: Vectors) -> None:
    def as_jpeg(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=40)
        return Image.open(io.BytesIO(buffer.getvalue()))

    def cropped(image: Image.Image) -> Image.Image:
        across, down = round(0.05 * image.width), round(0.05 * image.height)
        return image.crop((across, down, image.width - across, image.height - down))

    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "mirrored": ImageOps.mirror,
        "30 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
        "turned by 5°": lambda image: image.rotate(5, Image.Resampling.BICUBIC, fillcolor="white"),
        "cropped by 5 % all round": cropped,
        "JPEG of quality 40": as_jpeg,
    }
    rows: list[list[str]] = []
    for name, change in changes.items():
        cosines = (vectors_of(embedder, list(map(change, images))) * vectors).sum(axis=1)
        rows.append([name, f"{np.median(cosines):.3f}", f"{(cosines >= 0.9).mean():.1%}"])
    others = vectors @ vectors.T
    np.fill_diagonal(others, -1)
    others = others.max(axis=1)
    rows.append(["nearest other stamp", f"{np.median(others):.3f}", f"{(others >= 0.9).mean():.1%}"])
    print("\n" + table("Copies", ["copy", "median cosine", "0.9 or more"], rows))


def make_million(path: Path) -> None:
    embedder = Embedder(normalize=True)
    stamp = vectors_of(embedder, [on_white(opened(each)) for each in stamps()])
    rng = np.random.default_rng(0)
    vectors = np.empty((COUNT, DIMENSION), np.float32)
    for start in range(0, COUNT, BLOCK):
        noise = rng.standard_normal((BLOCK, DIMENSION), np.float32) * np.float32(NOISE / DIMENSION**0.5)
        vectors[start : start + BLOCK] = unit_length(stamp[rng.integers(0, len(stamp), BLOCK)] + noise)
    sources = tuple(f"{number}.jpg" for number in range(COUNT))
    start = time.perf_counter()
    Gallery(embedder.provenance, vectors, np.full(COUNT, -1), (), sources).write(path)
    print(f"written in {time.perf_counter() - start:.0f} s: {path.stat().st_size / 1e9:.2f} GB", flush=True)


def index_million(path: Path) -> None:
    start = time.perf_counter()
    made = make_index(Gallery.read(path).vectors, index_file(path))
    print(
        f"index made in {time.perf_counter() - start:.0f} s: {index_file(path).stat().st_size / 1e9:.2f} GB;", end=" "
    )
    print(f"{made.looked_at:.1%} looked at, {made.agreement or 0:.1%} of the ten nearest", flush=True)


def memory() -> str:
    """MB that are the process's own, and MB of mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return ", ".join(f"{name} {int(lines[name].split()[0]) / 1024:,.0f} MB" for name in ("RssAnon", "RssFile"))


def search_million(path: Path, how: str) -> None:
    gallery = Gallery.read(path)
    rng = np.random.default_rng(1)
    queries = np.array(gallery.vectors[rng.integers(0, COUNT, 64)])
    noise = rng.standard_normal(queries.shape).astype(np.float32) * np.float32(0.4 / DIMENSION**0.5)
    queries = unit_length(queries + noise)
    index = open_index(gallery.vectors, index_file(path)) if how == "faiss" else None
    before = memory()

    def find(some: Vectors) -> tuple[Vectors, NDArray[np.int64]]:
        return nearest(gallery.vectors, some, 10) if index is None else index.nearest(some, 10)

    find(queries)  # reads the file
    alone: list[float] = []
    for query in queries[:15]:
        start = time.perf_counter()
        find(query[None])
        alone.append(1e3 * (time.perf_counter() - start))
    together: list[float] = []
    products, places = find(queries)
    for _ in range(3):
        start = time.perf_counter()
        find(queries)
        together.append(1e3 * (time.perf_counter() - start) / len(queries))
    print(f"{how}: alone {np.median(alone):.0f} ms ({min(alone):.0f}–{max(alone):.0f}),", end=" ")
    print(f"64 together {np.median(together):.1f} ms each ({min(together):.1f}–{max(together):.1f})")
    print(f"  memory before: {before}; after: {memory()}", flush=True)
    if index is not None:
        exact, right = nearest(gallery.vectors, queries, 10)
        same = np.mean([len({*a} & {*b}) / 10 for a, b in zip(places.tolist(), right.tolist(), strict=True)])
        first = (places[:, 0] == right[:, 0]).mean()
        print(f"  {first:.1%} of the nearest and {same:.1%} of the ten nearest are those of exact search;", end=" ")
        print(f"products differ by {np.abs(products - exact)[places == right].max():.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["stamps", "million", *PARTS], help="the others are million's parts")
    parser.add_argument("--folder", type=Path, default=HERE / ".work" / "search")
    arguments = parser.parse_args()
    path = arguments.folder / "million.gallery"
    match arguments.what:
        case "stamps":
            measure_stamps()
        case "million":
            for part in PARTS:  # memory is told of a process that does nothing else
                subprocess.run([sys.executable, __file__, part, "--folder", str(arguments.folder)], check=True)
        case "make":
            make_million(path)
        case "index":
            index_million(path)
        case how:
            search_million(path, how)


if __name__ == "__main__":
    main()
