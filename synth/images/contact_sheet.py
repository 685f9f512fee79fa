"""Contact sheets: some synthetic pictures of a class side by side, for the eye."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from synth.images.model import ImageModel
from synth.images.png import write_png
from synth.images.sample import draw_pixels

PICTURES = 64
MOST_PIXELS = 1 << 22


def contact_sheets(model: ImageModel, rng: np.random.Generator) -> dict[str, bytes]:
    """A PNG for every class that the model draws, by the value of its label."""
    height, width, _ = model.schema.image.shape
    most = max(1, min(PICTURES, MOST_PIXELS // (height * width)))
    side = math.isqrt(most)
    sheets = {}
    for label, value in enumerate(model.schema.target.values):
        if model.class_share[label] > 0:
            pictures = draw_pixels(model, np.full(side * side, label), rng)
            sheets[str(value)] = write_png(
                side_by_side(pictures, side, model.schema.image.low), model.schema.image.bits
            )
    return sheets


def side_by_side(pictures: npt.NDArray[np.uint16], columns: int, blank: int) -> npt.NDArray[np.uint16]:
    """Pictures [n, height, width, channels] in rows of `columns`, one pixel apart."""
    count, height, width, channels = pictures.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), blank, dtype=np.uint16)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[y : y + height, x : x + width] = picture
    return sheet
