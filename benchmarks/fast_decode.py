"""How often does --fast-decode name the class that exact decoding names, and how much time does it save?

    python benchmarks/fast_decode.py FOLDER [--count 1000] [--smallest 1500]

FOLDER holds large photographs, at any depth: Debian's packages mate-backgrounds, ukui-wallpapers,
plasma-workspace-wallpapers, lomiri-wallpapers-16.04 and -20.04 have some forty, to be spread out by `dpkg -x`. Each
picture is a cut of one of them at its own resolution, no side below `--smallest` pixels, as JPEG of quality 92. The
network is EfficientNet_lite0 with its real weights, as it was published and with each way to resize; times are
processor time of decoding and resizing on one thread.
"""

import argparse
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from markdown import table
from numpy.typing import NDArray
from PIL import Image

from torchclas.allocator import keep_freed_memory
from torchclas.catalog import Preset
from torchclas.data.preprocess import Preprocess
from torchclas.engines import open_engine
from torchclas.engines.machine import this_machine
from torchclas.spec import find_model

MODEL = "EfficientNet_lite0"
SUFFIXES = (".jpg", ".jpeg")


def originals(folder: Path, smallest: int) -> list[Path]:
    """Photographs that are large enough, each once."""
    found: dict[tuple[str, int], Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
            with Image.open(path) as image:
                if min(image.size) >= smallest:
                    found[path.parent.name, path.stat().st_size] = path
    return list(found.values())


def cuts(paths: list[Path], count: int, smallest: int) -> Iterator[bytes]:
    """JPEG files; the same ones in every run."""
    choose = np.random.default_rng(0)
    each = -(-count // len(paths))
    for index, path in enumerate(paths):
        with Image.open(path) as image:
            whole = image.convert("RGB")
        for _ in range(min(each, count - index * each)):
            width, height = (int(choose.integers(smallest, side + 1)) for side in whole.size)
            left, top = (
                int(choose.integers(side - part + 1)) for side, part in zip(whole.size, (width, height), strict=True)
            )
            file = io.BytesIO()
            whole.crop((left, top, left + width, top + height)).save(file, "JPEG", quality=92)
            yield file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--smallest", type=int, default=1500)
    options = parser.parse_args()
    keep_freed_memory()
    spec = find_model(MODEL)
    published = spec.preset
    presets: dict[str, Preset] = {"as published": published}
    for backend, interpolation in (("pillow", "bilinear"), ("opencv", "bilinear"), ("opencv", "bicubic")):
        presets[f"{backend}, {interpolation}"] = replace(published, backend=backend, interpolation=interpolation)
    ways = {name: [Preprocess(preset, fast_decode=fast) for fast in (False, True)] for name, preset in presets.items()}
    same, seconds, apart = dict.fromkeys(ways, 0), {name: np.zeros(2) for name in ways}, dict.fromkeys(ways, 0.0)
    paths = originals(options.folder, options.smallest)
    pixels = 0
    engine = open_engine(spec, "openvino", threads=1)
    for file in cuts(paths, options.count, options.smallest):
        with Image.open(io.BytesIO(file)) as image:
            pixels += image.width * image.height
        for name, both in ways.items():
            prepared: list[NDArray[np.float32]] = []
            for place, way in enumerate(both):
                start = time.thread_time()
                prepared.append(way.array(file))
                seconds[name][place] += time.thread_time() - start
            logits = engine(np.stack(prepared))
            same[name] += int(logits[0].argmax() == logits[1].argmax())
            apart[name] += float(np.abs(logits[0] - logits[1]).max() / np.abs(logits[0]).max())
    count = options.count
    print(
        f"{this_machine()}\n\n{count:,} cuts of {len(paths)} photographs, {pixels / count / 1e6:.1f} megapixels each\n"
    )
    rows = [
        [
            name,
            f"{same[name] / count:.2%}",
            f"{apart[name] / count:.1%}",
            *(f"{1e3 * value / count:.1f}" for value in seconds[name]),
            f"{seconds[name][0] / seconds[name][1]:.2f}",
        ]
        for name in ways
    ]
    header = ["resized by", "same class", "logits apart", "exact, ms", "fast, ms", "times as fast"]
    print(table(MODEL, header, rows))


if __name__ == "__main__":
    main()
