"""Which values of a grey DICOM picture become black and white: the VOI functions, onto [0, 1].

DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT), with the output range [0, 1].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synth.images.unreadable import Unreadable, Why

FloatArray = npt.NDArray[np.float64]


def windowed(values: FloatArray, centre: float, width: float, function: str = "LINEAR") -> FloatArray:
    """Levels in [0, 1] of values by a window. Raises Unreadable for what the standard forbids."""
    if not (np.isfinite(centre) and np.isfinite(width)) or width < (1 if function == "LINEAR" else 1e-300):
        raise Unreadable(Why.WINDOW)
    if function == "SIGMOID":
        # 1 / (1 + exp(-4 (x - c) / w)), in a form that never grows too large.
        return np.asarray(0.5 + 0.5 * np.tanh(2 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return spread(values, centre - width / 2, centre + width / 2)
    if function != "LINEAR":
        raise Unreadable(Why.WINDOW)
    if width == 1:  # a threshold: the standard's limits coincide
        return np.asarray(values > centre - 0.5, dtype=np.float64)
    return spread(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def spread(values: FloatArray, low: float, high: float) -> FloatArray:
    """Levels in [0, 1], rising evenly from `low` to `high`; 0 where either is no number, or high is not above low."""
    if not low < high:
        return np.zeros(values.shape)
    return np.asarray(np.clip(np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0), 0, 1))


def levels_as_pixels(levels: FloatArray, bits: int) -> npt.NDArray[np.uint16]:
    """Pixels of `bits` bits, of levels in [0, 1]."""
    return np.asarray(np.rint(levels * ((1 << bits) - 1)), dtype=np.uint16)
