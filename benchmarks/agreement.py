"""How often do bf16 and int8 name the class that fp32 names? Real weights on real pictures; prints a table.

    torchclas quantize EfficientNet_lite0 --calibration FOLDER         # or whatever int8 there is to be; once for each
    python benchmarks/agreement.py [--count 400] [--engines openvino onnxruntime] [-o agreement.json]

Random weights say nothing about rounding: what decides their class is noise. So the two networks whose real weights
come with a package: EfficientNet_lite0 on cuts of the few photographs that scikit-image and scikit-learn hold, and
PPLCNet_x1_0_text_orientation on rendered pages, turned four ways. `--write FOLDER` writes other pictures of the same
kinds, to calibrate with.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from markdown import table
from photographs import photograph
from PIL import Image

from torchclas.data.preprocess import Preprocess
from torchclas.data.sample_pages import ROTATIONS, render_page
from torchclas.engines import Engine, open_engine
from torchclas.engines.engine import PRECISIONS
from torchclas.errors import Error
from torchclas.spec import find_model
from torchclas.vocabulary import ENGINES

MODELS = ("EfficientNet_lite0", "PPLCNet_x1_0_text_orientation")
CALIBRATION = 1_000_000  # the first seed of the pictures to calibrate with
BATCH = 8


def pictures(model: str, count: int, first: int = 0) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3], RGB."""
    for seed in range(first, first + count):
        if model == "EfficientNet_lite0":
            yield np.ascontiguousarray(photograph(seed)[:, :, ::-1])
        else:
            yield np.asarray(render_page(seed).rotate(-ROTATIONS[seed % 4], expand=True))


def logits(engine: Engine, arrays: np.ndarray) -> np.ndarray:
    return np.concatenate([engine(arrays[start : start + BATCH]) for start in range(0, len(arrays), BATCH)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="pictures of each network")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=("openvino", "onnxruntime", "torch"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help="only write pictures to calibrate with, in a folder for each model")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.write:
        for model in options.models:
            (options.write / model).mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(pictures(model, options.count, CALIBRATION)):
                Image.fromarray(picture).save(options.write / model / f"{index:05}.png")
        return

    rows: list[list[str]] = []
    results: list[dict[str, object]] = []
    for model in options.models:
        spec = find_model(model)
        preprocess = Preprocess(spec.preset)
        arrays = np.stack([preprocess.array(picture) for picture in pictures(model, options.count)])
        reference = logits(open_engine(spec, "torch", threads=options.threads), arrays)
        for name in options.engines:
            for precision in PRECISIONS[name]:
                row = [model, f"{name} {precision}"]
                try:
                    engine = open_engine(spec, name, precision=precision, threads=options.threads, batch_size=BATCH)
                except Error as error:
                    rows.append([*row, "–", str(error).partition(":")[0]])
                    continue
                found = logits(engine, arrays)
                engine.close()
                same = float(np.mean(found.argmax(1) == reference.argmax(1)))
                difference = float(np.abs(found - reference).max() / np.abs(reference).max())
                rows.append([*row, f"{same:.1%}", f"{difference:.0e}"])
                results.append(
                    {"model": model, "engine": name, "precision": precision, "top1": same, "difference": difference}
                )
    if options.output:
        options.output.write_text(json.dumps({"count": options.count, "results": results}, indent=1))
    header = ["network", "engine", "same best class", "largest difference of the logits"]
    print(table(f"Agreement with fp32 in PyTorch on {options.count} pictures", header, rows))


if __name__ == "__main__":
    main()
