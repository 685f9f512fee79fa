"""Whether areas of a picture look like text drawn into it: a hint for a steward, not a proof of either.

Letters jump between dark and bright many times within a short line, which tissue hardly does. Counted are jumps by more
than half of the picture's range between neighbours in a row, in windows of 16 × 64 pixels. Of the pictures that come
with pydicom, those without text have at most 62 in any window, those with it 96 and more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

JUMP = 0.5
MOST_JUMPS = 90
CELL = 8
WINDOW = (2, 8)
"""In cells: rows, columns."""


def is_text_like(pixels: npt.NDArray[np.uint16]) -> bool:
    """Whether some window of a picture [h, w, channels] of its full size has more jumps than pictures without text."""
    (down, across), height = WINDOW, pixels.shape[0] // CELL
    if height < down or pixels.shape[1] <= across * CELL:
        return False
    grey = pixels.sum(axis=2, dtype=np.int32)
    jumps = np.abs(np.diff(grey, axis=1)) > JUMP * float(grey.max() - grey.min())
    width = jumps.shape[1] // CELL
    cells = jumps[: height * CELL, : width * CELL].reshape(height, CELL, width, CELL).sum(axis=(1, 3))
    sums = np.pad(cells.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    windows = sums[down:, across:] - sums[:-down, across:] - sums[down:, :-across] + sums[:-down, :-across]
    return bool(windows.max(initial=0) > MOST_JUMPS)
