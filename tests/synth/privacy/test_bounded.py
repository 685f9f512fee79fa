"""Whole-number vectors: the bound holds exactly, whatever comes in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from synth.privacy.bounded import MOST_ENTRIES, bounded_integers, lengths

finite = st.floats(-1e12, 1e12, allow_nan=False) | st.floats(-2, 2)


@given(
    arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=finite),
    st.floats(1e-6, 1e6),
    st.integers(1, 2**23),
)
def test_no_row_is_longer_than_its_bound(vectors: np.ndarray, bound: float, largest_square: int) -> None:
    out = bounded_integers(vectors, bound, largest_square)
    assert out.dtype == np.int64
    assert max(sum(int(v) ** 2 for v in row) for row in out) <= largest_square


def test_rounding_up_everywhere_is_caught() -> None:
    # 400 entries of 0.5 have length 10: rounded to the nearest each would be 0 or 1, and 1 everywhere is too long.
    vectors = np.full((1, 400), 0.5000001)
    out = bounded_integers(vectors, 10.0, 100)
    assert (out**2).sum() <= 100


@given(arrays(np.float64, (5, 7), elements=st.floats(-3, 3)))
def test_short_rows_keep_their_proportion(vectors: np.ndarray) -> None:
    out = bounded_integers(vectors, 100.0, 2**40)
    assert np.abs(out / 2**20 * 100 - vectors).max() < 1e-3


@given(arrays(np.float64, (6, 9), elements=finite), st.integers(1, 6))
def test_a_row_depends_on_itself_alone(vectors: np.ndarray, size: int) -> None:
    whole = bounded_integers(vectors, 3.0, 2**22)
    parts = [bounded_integers(vectors[i : i + size].copy(), 3.0, 2**22) for i in range(0, 6, size)]
    assert (whole == np.concatenate(parts)).all()
    longest = max(1.0, float(np.linalg.norm(vectors, axis=1).max()))
    singles = [lengths(vectors[i : i + 1], longest)[0] for i in range(6)]
    assert (lengths(vectors, longest) == singles).all()
    assert lengths(vectors, longest) == pytest.approx(np.linalg.norm(vectors, axis=1), abs=1e-6 * longest)


def test_what_cannot_be_bounded_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        bounded_integers(np.array([[np.nan]]), 1.0, 4)
    with pytest.raises(ValueError, match="too many"):
        bounded_integers(np.zeros((1, MOST_ENTRIES + 1)), 1.0, 4)
    with pytest.raises(ValueError, match="too many"):
        lengths(np.zeros((1, MOST_ENTRIES + 1)), 1.0)
