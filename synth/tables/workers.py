"""Workers: who goes over the rows. A pass is cut into parts; each is worked on by itself, and results come in order.

One machine is the case of one part, which this process works on itself. Others are given by `pipelines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

P = TypeVar("P")
R = TypeVar("R")


class Workers(Protocol):
    """Whoever works on the parts of a pass."""

    @property
    def parts(self) -> int:
        """How many parts a pass over private rows is cut into, ≥ 1; never a function of the rows."""

    def map(self, work: Callable[[P], R], parts: Iterable[P]) -> Iterator[R]:
        """One result a part, in the order of the parts. `work` gives the same for a part each time it is asked."""


@dataclass(frozen=True)
class ThisProcess:
    """This process works on the parts, one after the other."""

    parts: int = 1

    def map(self, work: Callable[[P], R], parts: Iterable[P]) -> Iterator[R]:
        """As `Workers.map`; a part is looked at when its result is asked for."""
        return map(work, parts)


HERE = ThisProcess()
