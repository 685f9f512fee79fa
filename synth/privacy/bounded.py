"""Vectors as whole numbers of bounded length: what one person can add to a sum, held exactly.

Noise is added to sums of whole numbers (`noise.py`), so every vector is rounded to a public grid first. Rounding to
the nearest could lengthen a vector past its bound, and the last bits of a floating-point norm could depend on which
other rows are computed beside it. Here the bound is checked in integers after rounding, and everything before it is
done number by number, so that a row's result depends on that row alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FINE = 2.0**16
_LONGEST = 2.0**10
"""Entries are cut at so many bounds before squares are added: (2^10 · 2^16)² · MOST_ENTRIES stays below 2^63."""
MOST_ENTRIES = 1024


def lengths(vectors: FloatArray, longest: float) -> FloatArray:
    """Lengths [n] of rows [n, d] that are no longer than `longest`; a row's length depends on that row alone."""
    if vectors.shape[1] > MOST_ENTRIES:
        raise ValueError("too many entries")
    fine = np.rint(np.clip(vectors / longest, -1.0, 1.0) * 2.0**26).astype(np.int64)
    square: FloatArray = np.sum(fine * fine, axis=1).astype(np.float64)
    return np.asarray(np.sqrt(square) * (longest * 2.0**-26))


def bounded_integers(vectors: FloatArray, bound: float, largest_square: int) -> IntArray:
    """Rows [n, d] in whole numbers: length `bound` or more becomes √largest_square, shorter rows in proportion.

    For every row, sum(out²) ≤ largest_square holds exactly. Raises ValueError for a row that is not finite, and for
    more than MOST_ENTRIES entries.
    """
    if vectors.shape[1] > MOST_ENTRIES or not 0 < largest_square < 2**52 or not bound > 0:
        raise ValueError("too many entries, or a bound that is not positive and below 2^52")
    if not np.isfinite(vectors).all():
        raise ValueError("only finite vectors are bounded")
    relative = np.clip(vectors / bound, -_LONGEST, _LONGEST)
    fine = np.rint(relative * _FINE).astype(np.int64)
    length = np.sqrt(np.sum(fine * fine, axis=1).astype(np.float64)) / _FINE
    reach = math.sqrt(largest_square)
    out: IntArray = np.rint(relative * (reach / np.maximum(length, 1.0))[:, None]).astype(np.int64)
    square = np.sum(out * out, axis=1)
    over = square > largest_square
    if over.any():
        # Towards zero after shrinking by more than any rounding error, so that the bound holds whatever came before.
        shrink = (reach - 1e-6 * reach) / np.sqrt(square[over].astype(np.float64))
        out[over] = np.trunc(out[over] * shrink[:, None]).astype(np.int64)
    return out
