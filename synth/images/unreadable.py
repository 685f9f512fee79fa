"""Why a file gives no picture: a short list of reasons, none of which says anything that stands in the file."""

from __future__ import annotations

from enum import StrEnum

MOST_PIXELS = 1 << 26
MOST_BYTES = 1 << 28


class Why(StrEnum):
    """The reasons, as the internal report has them."""

    ABSENT = "no such file in the folder, or an empty one, or one of more than 256 MiB"
    UNKNOWN = "neither PNG, JPEG, TIFF, DICOM nor NIfTI"
    DAMAGED = "damaged, or not what its header says"
    GAVE_UP = "its decoder crashed, or took too much memory or time"
    LARGE = "more than 67 million pixels a picture, or 1 GiB a volume"
    NO_PIXELS = "DICOM without pixels, or cut short within them"
    SYNTAX = "a DICOM transfer syntax that is not read"
    PIXELS = "pixels of a kind that is not read"
    WINDOW = "a window without width in its header"
    UNDECLARED = "NIfTI or gzip, and the schema has no image.nifti"
    SERIES = "a volume that changes with time, or has more than three dimensions"
    NO_PLACE = "no frame, slice or page at the declared place"
    MANY = "more than 10,000 frames, slices or pages at the declared places"


class Unreadable(Exception):
    """A file that gives no picture."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why
