"""One row of a source of images, and what a source offers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class Labelled:
    """A picture's file as it is, and its class; None for what is missing or unknown.

    `place` counts, from 0, the pictures that one file holds.
    """

    content: bytes | None
    label: int | None
    place: int = 0


class ImageSource(Protocol):
    """A source whose header is checked."""

    def rows(self) -> Iterator[Labelled]:
        """All rows, one at a time."""

    def persons(self) -> Iterator[pa.Array]:
        """The person column, in the order of `rows`."""
