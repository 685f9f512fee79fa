"""How files that may hold several pictures are read: the sections `dicom`, `nifti` and `tiff` of a schema's `image`.

    image:
      …
      dicom: {window: [40, 400], frames: middle}
      nifti: {value_range: [0, 1500], axis: 2, slices: {every: 8}}
      tiff: {pages: first}

All of it is public knowledge. Nothing here follows from the data; a window taken from a file's own header is a function
of that one file.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from synth.schema import Whole

MOST_PLACES = 100_000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Index(_Strict):
    """One place, counted from 0."""

    index: Whole = Field(ge=0, le=MOST_PLACES)


class Every(_Strict):
    """Every n-th place, from the first one on."""

    every: Whole = Field(ge=1, le=MOST_PLACES)


def _selection(value: object) -> object:
    """Told in one phrase, which a union of types would not be."""
    if isinstance(value, (Index, Every)) or value in ("first", "middle", "all"):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((key, number),) = value.items()
        if isinstance(number, int) and not isinstance(number, bool):
            if key == "index" and 0 <= number <= MOST_PLACES:
                return Index(index=number)
            if key == "every" and 1 <= number <= MOST_PLACES:
                return Every(every=number)
    raise ValueError("should be first, middle, all, {index: N} (from 0) or {every: N} (from 1)")


Selection = Annotated[Literal["first", "middle", "all"] | Index | Every, BeforeValidator(_selection)]
"""Which of a file's frames, slices or pages are pictures of their own."""


def is_several(selection: Selection) -> bool:
    """Whether a file may hold more than one picture by this rule."""
    return selection == "all" or isinstance(selection, Every)


def chosen(selection: Selection, count: int) -> range:
    """The places, from 0, that are pictures, of `count` places. Empty when there is none."""
    if isinstance(selection, Every):
        return range(0, count, selection.every)
    if selection == "all":
        return range(count)
    at = selection.index if isinstance(selection, Index) else count // 2 if selection == "middle" else 0
    return range(at, at + 1) if at < count else range(0)


Finite = Annotated[float, Field(allow_inf_nan=False)]


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if not values[0] < values[1]:
        raise ValueError("should be [lowest, highest]")
    return values


def _window(value: object) -> object:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        centre, width = value
        if all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in value):
            if math.isfinite(centre) and math.isfinite(width) and width >= 1:
                return float(centre), float(width)
            raise ValueError("should be [centre, width], with a width of at least 1")
    elif value in ("file", "stored"):
        return value
    raise ValueError("should be file, stored or [centre, width]")


Window = Annotated[Literal["file", "stored"] | tuple[float, float], BeforeValidator(_window)]


class DicomReading(_Strict):
    """How DICOM files become pictures.

    `window` says which values of a grey picture become black and white: `[centre, width]` in the units of the modality
    (Hounsfield units of a CT) the same for every file; `file` what the file's own header says (VOI LUT or window), or
    its own smallest and largest value where it says nothing; `stored` all values that the stored bits can hold,
    without rescaling. Colour has no window.
    """

    window: Window = "file"
    frames: Selection = "first"


class NiftiReading(_Strict):
    """How NIfTI volumes become pictures.

    Values from the lower to the upper end of `value_range` (after the header's scaling) go from black to white, others
    are clipped. The volume is turned so that axis 0 points to the right, 1 to the front and 2 to the head; slices lie
    across `axis`: 0 sagittal, 1 coronal, 2 axial.
    """

    value_range: Annotated[tuple[Finite, Finite], AfterValidator(_rising)]
    axis: Literal[0, 1, 2] = 2
    slices: Selection = "middle"


class TiffReading(_Strict):
    """Which pages of a TIFF file are pictures."""

    pages: Selection = "first"


SECTIONS = (DicomReading, NiftiReading, TiffReading, Index, Every)
