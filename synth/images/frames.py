"""A source in which a file may hold several pictures: each of them becomes a row, with its file's label and person."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pyarrow as pa

from synth.errors import InvalidSource
from synth.image_schema import ImageFormat
from synth.images.labelled import ImageSource, Labelled
from synth.images.reading import PictureReader

CHANGED = "source: changed while it was being read; run again on a file at rest"


class Frames:
    """An `ImageSource` with a row for each picture of each file of another.

    How many pictures a file holds is looked at once, before the first row, so that rows and persons agree whatever
    becomes of the files meanwhile. A file that cannot be read is one row.
    """

    def __init__(self, files: ImageSource, form: ImageFormat) -> None:
        self._files, self._form = files, form
        self._counts: array[int] | None = None

    def rows(self) -> Iterator[Labelled]:
        """All pictures, file by file."""
        counts = iter(self._counted())
        for row in self._files.rows():
            for place in range(_next(counts)):
                yield Labelled(row.content, row.label, place)
        _at_end(counts)

    def persons(self) -> Iterator[pa.Array]:
        """The person of each picture."""
        counts = iter(self._counted())
        for batch in self._files.persons():
            yield batch.take(pa.array([i for i in range(len(batch)) for _ in range(_next(counts))], pa.int64()))
        _at_end(counts)

    def _counted(self) -> array[int]:
        if self._counts is None:
            with PictureReader(self._form) as reader:
                self._counts = array("L", (reader.count(row.content) for row in self._files.rows()))
        return self._counts


def _next(counts: Iterator[int]) -> int:
    for count in counts:
        return count
    raise InvalidSource(CHANGED)


def _at_end(counts: Iterator[int]) -> None:
    if next(counts, None) is not None:
        raise InvalidSource(CHANGED)
