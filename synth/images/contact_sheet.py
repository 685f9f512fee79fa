"""Contact sheets for the eye: some synthetic pictures of a class side by side, and pictures between pictures.

All of it comes from the released model alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from synth.facts import PictureSheet
from synth.files import write_whole
from synth.images.credentials import Credentials
from synth.images.interpolation import between_classes, within_class
from synth.images.model import ImageModel
from synth.images.png import write_png
from synth.images.sample import drawn_pictures, pictures_of

FOLDER = "pictures"
PICTURES = 64
MOST_PIXELS = 1 << 22

Shows = Literal["draws", "within", "between"]
UInt16Array = npt.NDArray[np.uint16]


def picture_sheets(
    model: ImageModel, bundle: Path, rng: np.random.Generator, credentials: Credentials | None = None
) -> Iterator[PictureSheet]:
    """Write the sheets of every class that the model draws, and of each and the next, and say what they are.

    With `credentials` each is signed.
    """
    side, target = side_of(model), model.schema.target
    names = [str(name) for name in target.classes.values()]

    def kept(shows: Shows, labels: tuple[int, ...], pictures: UInt16Array) -> PictureSheet:
        word = "class" if shows == "draws" else shows
        file = f"{FOLDER}/{word}-{'-'.join(str(target.values[label]) for label in labels)}.png"
        sheet = side_by_side(pictures, math.isqrt(len(pictures)), model.schema.image.low)
        content = write_png(sheet, model.schema.image.bits)
        write_whole(
            bundle / file, content if credentials is None else credentials.signed(content, title=Path(file).name)
        )
        height, width, _ = sheet.shape
        return PictureSheet(
            file=file, shows=shows, classes=tuple(names[label] for label in labels), width=width, height=height
        )

    drawn = [int(label) for label in np.flatnonzero(model.class_share > 0)]
    grid = max(2, side)
    for label in drawn:
        yield kept("draws", (label,), drawn_pictures(model, np.full(side * side, label), rng))
        labels, between = np.full(grid * grid, label), within_class(model, label, grid, rng)
        yield kept("within", (label,), pictures_of(model, labels, between, rng))
    for first, second in pairwise(drawn):
        # What a residual adds is that of the nearer class.
        labels = np.tile(np.repeat([first, second], [grid - grid // 2, grid // 2]), grid)
        between = between_classes(model, first, second, grid, rng)
        yield kept("between", (first, second), pictures_of(model, labels, between, rng))


def side_of(model: ImageModel) -> int:
    """How many pictures a sheet has in each direction."""
    height, width, _ = model.schema.image.shape
    return math.isqrt(max(1, min(PICTURES, MOST_PIXELS // (height * width))))


def side_by_side(pictures: UInt16Array, columns: int, blank: int) -> UInt16Array:
    """Pictures [n, height, width, channels] in rows of `columns`, one pixel apart."""
    count, height, width, channels = pictures.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), blank, dtype=np.uint16)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + 1), (i % columns) * (width + 1)
        sheet[y : y + height, x : x + width] = picture
    return sheet
