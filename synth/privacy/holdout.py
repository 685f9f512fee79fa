"""Who is held out: a coin of each person's own, with a public probability, from operating-system entropy.

Never by cutting at a count, which would tie one person's side to how many others there are. What it costs that a person
is in training or in the score, never in both, is in `synth.privacy.composition.cost_of_run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
HeldOut = Callable[[int, int], BoolArray]
"""Which of the rows from the first number up to the second are held out; asked once of each row, in order."""

_WORD_BITS = 64


def coins(count: int, probability: float) -> BoolArray:
    """`count` independent coins, each true with `probability` in [0, 1), to within 2^-64."""
    if not 0 <= probability < 1:
        raise ValueError(f"probability must be at least 0 and below 1, not {probability}")
    words = np.frombuffer(os.urandom(_WORD_BITS // 8 * count), dtype=np.uint64)
    return np.asarray(words < np.uint64(int(probability * 2**_WORD_BITS)))


def held_out_rows(probability: float) -> HeldOut:
    """Each row is a person and has a coin of its own."""
    return lambda start, stop: coins(stop - start, probability)


def tossed_once(held_out: HeldOut) -> HeldOut:
    """The same coins for every pass over the rows: the first one tosses them in order, and another finds them."""
    tossed: list[BoolArray] = []

    def found(start: int, stop: int) -> BoolArray:
        known = sum(map(len, tossed))
        if stop > known:
            tossed.append(held_out(known, stop))
        if start == known:
            return tossed[-1]
        if len(tossed) > 1:
            tossed[:] = [np.concatenate(tossed)]
        return tossed[0][start:stop]

    return found


def held_out_persons(persons: npt.NDArray[np.int64], probability: float) -> HeldOut:
    """All rows of a person fall by the same coin.

    Args:
        persons: the number of each row's person, from 0 without gaps [rows].
        probability: of a person to be held out.
    """
    chosen = coins(int(persons.max(initial=-1)) + 1, probability)[persons]
    return lambda start, stop: chosen[start:stop]
