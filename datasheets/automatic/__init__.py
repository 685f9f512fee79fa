"""Answers that follow from the public facts alone. Each is a function of a `Reading`, which traces it."""

from __future__ import annotations

from datasheets.automatic import composition, lifecycle, process
from datasheets.reading import Automatic

ANSWERS: tuple[Automatic, ...] = (*process.ANSWERS, *composition.ANSWERS, *lifecycle.ANSWERS)

__all__ = ["ANSWERS"]
