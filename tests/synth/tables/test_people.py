"""How many people there are, from noised histograms, against least squares written out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.tables.blocks import NONE
from synth.tables.people import class_sizes_of, people_of_columns

SCALE = st.floats(0.1, 20)


def seen(sizes: Any, noise: float, **columns: tuple[Any, float]) -> Any:
    return SimpleNamespace(
        class_sizes=np.asarray(sizes, dtype=float),
        class_size_noise=noise,
        fine={name: np.asarray(counts, dtype=float) for name, (counts, _) in columns.items()},
        fine_noise={name: scale for name, (_, scale) in columns.items()},
        coarse={},
        coarse_noise={},
        run_of_cell={},
    )


class TestPeople:
    def test_a_precise_column_says_more(self) -> None:
        measured = seen([0], 1.0, a=([100, 20], 1.0), b=([60, 30], 2.0))
        total, variance = people_of_columns(measured)
        assert total == pytest.approx((120 / 2 + 90 / 8) / (1 / 2 + 1 / 8))
        assert variance == pytest.approx(1 / (1 / 2 + 1 / 8))

    def test_runs_of_cells_with_those_that_are_in_none(self) -> None:
        measured = seen([0], 1.0, a=([5, 7, 9, 11, 40], 10.0))
        measured.run_of_cell["a"] = np.array([0, 0, 1, 1, NONE])
        measured.coarse["a"], measured.coarse_noise["a"] = np.array([30.0, 60.0]), 2.0
        assert people_of_columns(measured) == (pytest.approx(130), pytest.approx(2 * 4 + 100))
        measured.coarse_noise["a"] = 1000.0  # now the cells say more
        assert people_of_columns(measured) == (pytest.approx(72), pytest.approx(500))


class TestClassSizes:
    @given(
        sizes=st.lists(st.floats(200, 1000), min_size=1, max_size=5),
        noise=SCALE,
        cells=st.lists(st.floats(1, 1000), min_size=2, max_size=6),
        column_noise=SCALE,
    )
    def test_are_those_of_least_squares(
        self, sizes: list[float], noise: float, cells: list[float], column_noise: float
    ) -> None:
        people = sum(sizes) * 1.01  # near enough for no size to become negative
        column = np.array(cells) * people / sum(cells)
        found, spread = class_sizes_of(seen(sizes, noise, a=(column, column_noise)))
        # What was seen: each class by itself, and all of them once more by the column.
        design = np.vstack([np.eye(len(sizes)), np.ones(len(sizes))])
        weight = 1 / np.append(np.full(len(sizes), noise), column_noise * math.sqrt(len(column)))
        best = np.linalg.lstsq(design * weight[:, None], np.append(sizes, people) * weight, rcond=None)[0]
        covariance = np.linalg.inv((design * weight[:, None] ** 2).T @ design)
        assert found == pytest.approx(best, rel=1e-6)
        assert spread == pytest.approx(math.sqrt(covariance[0, 0]), rel=1e-6)

    def test_are_never_negative_and_one_person_at_least(self) -> None:
        sizes, _ = class_sizes_of(seen([-50, -30], 10.0, a=([-40, -40], 10.0)))
        assert (sizes >= 0).all() and sizes.sum() == pytest.approx(1)
        sizes, _ = class_sizes_of(seen([-20, 80], 10.0, a=([30, 30], 10.0)))
        assert sizes[0] == 0 and sizes.sum() == pytest.approx(60)

    def test_a_declared_number_of_rows_is_kept(self) -> None:
        sizes, _ = class_sizes_of(seen([100, 300], 10.0, a=([200, 220], 10.0)), public_rows=1000)
        assert sizes.sum() == pytest.approx(1000) and sizes[1] > 2 * sizes[0]

    def test_many_columns_say_it_far_better(self) -> None:
        """Thirty columns of ten cells, and ten classes, all with the same noise: a known variance, by 2,000 draws."""
        rng, noise = np.random.default_rng(5), 20.0
        totals = []
        for _ in range(2000):
            columns = {f"c{j}": (100 + noise * rng.standard_normal(10), noise) for j in range(30)}
            sizes, _ = class_sizes_of(seen(100 + noise * rng.standard_normal(10), noise, **columns))
            totals.append(sizes.sum())
        # Ten classes and 30 columns are 31 sums of ten noised counts each.
        assert np.std(totals) == pytest.approx(noise * math.sqrt(10 / 31), rel=0.07)
        assert np.mean(totals) == pytest.approx(1000, abs=1.5)
