"""Do heat maps mean something? Two measurements with EfficientNet_lite0's real weights on real photographs.

Deletion: of what the network sees, 30 % of the pixels are replaced, by the mean colour of the picture or by a blurred
copy, and the probability of the class that was the likeliest before is taken again. The 30 % are the hottest, the
coldest, those round the centre, where photographers put things, or random ones: the map with its places in another
order (mean of five orders), so that what is deleted hangs together as much.

Pointing: a stamp of Debian's package tuxpaint-stamps-default, which the network is sure of by itself, is pasted into a
random corner of what the network sees of a photograph; its longer side is 40 % of the photograph's height. Where the
network still gives its class 10 % or more, the hottest pixel of the class's map either is on the stamp (within its box)
or not. Chance is the share of what is seen that the box covers.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from markdown import table
from numpy.typing import NDArray
from photographs import photograph
from PIL import Image

from torchclas import Classifier, Explainer
from torchclas.explanation.heat_map import spread

SHARE = 0.3
ORDERS = 5
HEIGHT = 0.4  # of a stamp, as a share of the photograph's
STAMPS = Path("/usr/share/tuxpaint/stamps")
Pixels = NDArray[np.uint8]
Region = NDArray[np.bool_]


def first_of(values: NDArray[np.float32]) -> Region:
    """Where the 30 % of the highest values are, [H, W]."""
    order = np.argsort(-values, axis=None, kind="stable")
    chosen = np.zeros(values.size, bool)
    chosen[order[: round(SHARE * values.size)]] = True
    return chosen.reshape(values.shape)


def regions(relevance: NDArray[np.float32], size: int, rng: np.random.Generator) -> Iterator[tuple[str, Region]]:
    """What is deleted, by its name; random ones come several times."""

    def whole(places: NDArray[np.float32]) -> NDArray[np.float32]:
        return spread(places, (0, 0, size, size), (size, size), (size, size))

    yield "the hottest", first_of(whole(relevance))
    for _ in range(ORDERS):
        yield "random", first_of(whole(rng.permutation(relevance.ravel()).reshape(relevance.shape)))
    across = np.abs(np.arange(size) - (size - 1) / 2)
    yield "the centre", first_of(-np.hypot(across, across[:, None]).astype(np.float32))
    yield "the coldest", first_of(whole(-relevance))


def measure_deletion(model: str, count: int) -> None:
    explainer, classifier = Explainer(model), Classifier(model, engine="torch", batch_size=32)
    rng = np.random.default_rng(0)
    before: list[float] = []
    after: dict[tuple[str, str], list[float]] = {}
    for seed in range(count):
        (found,) = explainer.explain(cv2.cvtColor(photograph(seed), cv2.COLOR_BGR2RGB).astype(np.uint8))
        assert found.picture is not None
        seen = explainer.preprocess.fit(found.picture)
        sigma = seen.shape[0] / 10
        fills = {"mean": np.full_like(seen, seen.mean((0, 1)).round()), "blur": cv2.GaussianBlur(seen, (0, 0), sigma)}
        keys: list[tuple[str, str]] = []
        images: list[NDArray[np.float32]] = []
        for name, region in regions(found.maps[0].relevance, seen.shape[0], rng):
            for fill, instead in fills.items():
                keys.append((name, fill))
                images.append(
                    explainer.preprocess.normalize(np.where(region[:, :, None], instead, seen).astype(np.uint8))
                )
        logits = classifier.engine(np.stack(images)).astype(np.float64)
        scores = np.exp(logits - logits.max(1, keepdims=True))
        index = explainer.index_of(found.maps[0].class_id)
        probabilities = scores[:, index] / scores.sum(1)
        before.append(found.maps[0].score)
        for key in dict.fromkeys(keys):
            same = [probability for probability, other in zip(probabilities, keys, strict=True) if other == key]
            after.setdefault(key, []).append(float(np.mean(same)))
    print(f"\n{count} photographs; the probability of the likeliest class is {np.mean(before):.1%} before.\n")
    rows = [["nothing", *[f"{np.mean(before):.1%}"] * 2, "–"]]
    for name in dict.fromkeys(name for name, _ in after):
        worse = np.array(after["the hottest", "mean"]) < np.array(after[name, "mean"])
        means = [f"{np.mean(after[name, fill]):.1%}" for fill in ("mean", "blur")]
        rows.append([name, *means, "–" if name == "the hottest" else f"{worse.mean():.0%}"])
    print(table("Deleting 30 %", ["what", "filled with the mean", "filled with blur", "the hottest hurts more"], rows))


def stamps(classifier: Classifier) -> Iterator[tuple[Path, Image.Image, str]]:
    """Stamps with transparent ground that the network gives one class at least 50 % on gray, cut to what is drawn."""
    for path in sorted(STAMPS.rglob("*.png")):
        if path.stem.endswith(("_mirror", "_flip")):
            continue
        stamp = Image.open(path).convert("RGBA")
        box = stamp.getchannel("A").getbbox()
        if box is None or min(stamp.size) < 60:
            continue
        stamp = stamp.crop(box)
        side = round(1.6 * max(stamp.size))
        ground = Image.new("RGB", (side, side), (128, 128, 128))
        ground.paste(stamp, ((side - stamp.width) // 2, (side - stamp.height) // 2), stamp)
        (said,) = classifier.predict(ground)
        if said.scores[0] >= 0.5:
            yield path, stamp, said.class_ids[0]


def measure_pointing(model: str, times: int) -> None:
    if not STAMPS.is_dir():
        raise SystemExit(f"{STAMPS} is not there: apt-get install tuxpaint-stamps-default")
    explainer, classifier = Explainer(model), Classifier(model, engine="torch", top_k=1)
    rng = np.random.default_rng(0)
    hits: list[bool] = []
    chances: list[float] = []
    used = 0
    known = list(stamps(classifier))
    for number, (_, stamp, class_id) in enumerate(known):
        before = len(hits)
        for turn in range(times):
            ground = Image.fromarray(cv2.cvtColor(photograph(1000 + number * times + turn), cv2.COLOR_BGR2RGB))
            scale = ground.height * HEIGHT / max(stamp.size)
            small = stamp.resize((max(1, round(stamp.width * scale)), max(1, round(stamp.height * scale))))
            top, left, height, width = explainer.preprocess.seen(ground.height, ground.width)
            right, lower = rng.integers(2, size=2)
            x = round(left + right * (width - small.width))
            y = round(top + lower * (height - small.height))
            ground.paste(small, (x, y), small)
            (found,) = explainer.explain(ground, [class_id])
            if found.maps[0].score < 0.1:
                continue
            heat = found.heat()
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            hits.append(bool(x <= column < x + small.width and y <= row < y + small.height))
            chances.append(small.width * small.height / (height * width))
        used += len(hits) > before
    print(f"\n{len(known)} stamps are known; {used} of them are still seen on photographs, {len(hits)} times.\n")
    rows = [
        ["the hottest pixel", f"{np.mean(hits):.1%}"],
        ["chance", f"{np.mean(chances):.1%}"],
    ]
    print(table("Pointing game", ["what points", "on the stamp"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="EfficientNet_lite0")
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--times", type=int, default=8, help="photographs that each stamp is pasted on")
    options = parser.parse_args()
    measure_deletion(options.model, options.photographs)
    measure_pointing(options.model, options.times)


if __name__ == "__main__":
    main()
