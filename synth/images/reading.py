"""Reading a source's files: PNG and JPEG here, other kinds in a process of their own, by their content alone.

A file that gives no picture is not an error; the caller puts a blank one in its place. Why it gives none, and what a
steward should look at, are for the internal report alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.image_schema import ImageFormat
from synth.images.decoder import JPEG_MAGIC, OPEN, PLACE, PNG_MAGIC, READ, kind_of
from synth.images.isolated import Gone, Isolated
from synth.images.picture import decoded, formed
from synth.images.text_like import is_text_like
from synth.images.unreadable import MOST_BYTES, Unreadable, Why

UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Found:
    """A picture of the declared form, or why there is none.

    Attributes:
        burned_in: whether the file's header says that text is drawn into the pixels.
        text_like: whether there are areas that look like text, in the picture's own size.
    """

    pixels: UInt16Array | None
    why: Why | None = None
    burned_in: bool = False
    text_like: bool = False


class PictureReader:
    """Reads files of any known kind. To be used as a context, whose end ends its process."""

    def __init__(self, form: ImageFormat) -> None:
        self._form, self._isolated = form, Isolated(form)
        self._last: bytes | None = None
        self._says: dict[str, Any] = {}

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._isolated.close()

    def read(self, content: bytes | None, place: int = 0) -> Found:
        """The picture at a place, from 0, among those that a file holds by the declared rule."""
        try:
            if not content or len(content) > MOST_BYTES:
                raise Unreadable(Why.ABSENT)
            if kind_of(content) is not None:
                return self._read_isolated(content, place)
            if not content.startswith((JPEG_MAGIC, PNG_MAGIC)):
                raise Unreadable(Why.UNKNOWN)
        except Unreadable as error:
            return Found(None, error.why)
        pixels = decoded(content, self._form) if place == 0 else None
        return Found(None, Why.DAMAGED) if pixels is None else self._found(pixels)

    def count(self, content: bytes | None) -> int:
        """How many pictures a file holds by the declared rule: 1 for one that cannot be read."""
        if not content or len(content) > MOST_BYTES or kind_of(content) is None:
            return 1
        try:
            return int(self._opened(content)["count"])
        except Unreadable:
            return 1

    def count_apart(self, content: bytes | None) -> int:
        """How many pictures a file holds, PNG and JPEG opened in that process too. Raises Unreadable."""
        if not content or len(content) > MOST_BYTES:
            raise Unreadable(Why.ABSENT)
        return int(self._opened(content)["count"])

    def read_apart(self, content: bytes, place: int = 0) -> UInt16Array:
        """A picture [h, w, 1 or 3] in its own size, PNG and JPEG decoded in that process too. Raises Unreadable."""
        self._opened(content)
        return self._pixels(place)

    def _read_isolated(self, content: bytes, place: int) -> Found:
        says = self._opened(content)
        return self._found(self._pixels(place), burned_in=bool(says["burned_in"]))

    def _pixels(self, place: int) -> UInt16Array:
        reply, data = self._asked(READ, PLACE.pack(place))
        return np.frombuffer(data, dtype="<u2").astype(np.uint16).reshape(reply["shape"])

    def _found(self, pixels: UInt16Array, *, burned_in: bool = False) -> Found:
        return Found(formed(pixels, self._form), burned_in=burned_in, text_like=is_text_like(pixels))

    def _opened(self, content: bytes) -> dict[str, Any]:
        """What is known of a file; it is opened unless it was the last."""
        if content is not self._last:
            self._last, self._says = None, {}
            self._says, _ = self._asked(OPEN, content)
            self._last = content
        return self._says

    def _asked(self, *request: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            says, data = self._isolated.ask(*request)
        except Gone:
            self._last = None
            raise Unreadable(Why.GAVE_UP) from None
        if "why" in says:
            raise Unreadable(Why[says["why"]])
        return says, data
