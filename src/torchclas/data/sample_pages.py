"""Pages of printed text, rendered here: something to turn around and show to the page-orientation model."""

from __future__ import annotations

import random
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

ROTATIONS = (0, 90, 180, 270)  # degrees clockwise, as the model's classes count them

WIDTH, HEIGHT = 800, 1100  # pixels
SENTENCES = (
    "The library opens at nine, and by ten every seat near the window is taken.",
    "Nobody could say who had planted the walnut tree, but everyone remembered its shade.",
    "After three days of rain the river had risen to the second step of the old stone stairs.",
    "A good map leaves out more than it shows.",
    "She kept the receipts in a tin box, sorted by year and tied with kitchen string.",
    "The ferry runs every forty minutes in summer and twice a day once the clocks go back.",
    "Bread needs flour, water, salt and time; most mistakes are a lack of the last.",
    "When the power failed, the orchestra played on from memory until the end of the movement.",
    "Please return borrowed tools clean and dry, with a note of anything that is broken.",
    "The survey counted 412 birds of 37 kinds, six of them seen here for the first time.",
    "He measured the shelf twice, cut it once, and found that the wall was not straight.",
    "Letters from the lighthouse arrived in bundles whenever the sea was calm enough.",
    "Most of the village worked at the mill, which made paper for newspapers in the capital.",
    "Turn left at the chapel, follow the hedge downhill, and close the gate behind you.",
    "The committee will meet again on Thursday to discuss the colour of the doors.",
    "Seen from the train, the fields looked like a quilt that somebody had begun and put aside.",
)


def render_page(seed: int) -> Image.Image:
    """An upright page of a few paragraphs in Pillow's own font; `seed` varies text, type size, margins and colours."""
    choose = random.Random(seed)
    size, margin = choose.randint(18, 30), choose.randint(40, 100)
    paper, ink = (choose.randint(235, 255),) * 3, (choose.randint(0, 40),) * 3
    font = ImageFont.load_default(size)
    page = Image.new("RGB", (WIDTH, HEIGHT), paper)
    draw = ImageDraw.Draw(page)
    leading, top = round(size * choose.uniform(1.3, 1.6)), margin
    while top < HEIGHT - margin - leading:
        paragraph = " ".join(choose.sample(SENTENCES, choose.randint(3, 6)))
        for line in _wrapped(paragraph, draw, font, WIDTH - 2 * margin):
            if top < HEIGHT - margin - leading:
                draw.text((margin, top), line, fill=ink, font=font)
                top += leading
        top += leading
    return page


def turned(page: Image.Image, degrees: int) -> Image.Image:
    """The page turned clockwise by a multiple of 90 degrees."""
    return page.rotate(-degrees, expand=True)


def _wrapped(
    text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".lstrip()
        if draw.textlength(longer, font) > width:
            yield line
            longer = word
        line = longer
    yield line
