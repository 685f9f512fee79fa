"""Rows, groups, marginal distances, associations and overlays against naive loops and values worked by hand."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats.contingency import association

from synth.evaluate.internal.fidelity import cramers_v, fidelity
from synth.evaluate.internal.groups import QUANTILES, Groups
from synth.evaluate.internal.overlays import MOST_BARS, cells_of_column, overlay
from synth.evaluate.internal.rows import fingerprints, frame_of, read_rows
from synth.evaluate.internal.sdmetrics_scores import library_scores
from synth.schema import Schema
from synth.tables.codec import codecs_of

Draw = Callable[[int, int], np.ndarray]


class TestRows:
    def batches(self, rows: int) -> list[pa.RecordBatch]:
        return [
            pa.record_batch({"age": pa.array(range(i, i + 10)), "city": pa.array(["Rome", None] * 5)})
            for i in range(0, rows, 10)
        ]

    def test_a_sample_is_of_the_rows_and_in_no_order(self, schema_of: Callable[..., Schema]) -> None:
        codecs = codecs_of(schema_of("age", "city"))
        found = read_rows(self.batches(100), codecs, most=30, rng=np.random.default_rng(0))
        assert (found.total, found.matrix.shape) == (100, (30, 2))
        ages = found.matrix[:, 0].tolist()
        assert len(set(ages)) == 30 and set(ages) <= set(range(100)) and ages != sorted(ages)
        assert [np.isnan(city) for city in found.matrix[:, 1]] == [age % 2 == 1 for age in ages]
        whole = read_rows(self.batches(100), codecs, most=1000, rng=np.random.default_rng(0))
        assert sorted(whole.matrix[:, 0]) == list(range(100))

    def test_every_row_is_as_likely_to_be_kept(self, schema_of: Callable[..., Schema]) -> None:
        codecs = codecs_of(schema_of("age", "city"))
        rng = np.random.default_rng(1)
        kept = Counter(
            age
            for _ in range(100)
            for age in read_rows(self.batches(40), codecs, most=10, rng=rng).matrix[:, 0].tolist()
        )
        assert len(kept) == 40
        assert all(8 < count < 45 for count in kept.values())  # 25 expected, sd 4.3; the seed is fixed

    def test_equal_rows_have_equal_fingerprints(self) -> None:
        matrix = np.array([[0.0, np.nan], [-0.0, np.nan], [0.0, 1.0], [1.0, 0.0]])
        a, b, c, d = fingerprints(matrix).tolist()
        assert a == b and len({a, c, d}) == 3

    def test_the_rules_of_the_schema_hold(self, schema_of: Callable[..., Schema]) -> None:
        schema = schema_of("age", "income", "city", income={"outside": "missing"})
        values = {"age": [-5, 500], "income": [9999.0, 0.4], "city": ["Rome", "Paris"]}
        batch = pa.record_batch({name: pa.array(column) for name, column in values.items()})
        found = read_rows([batch], codecs_of(schema), most=5, rng=np.random.default_rng(0)).matrix
        found = found[np.argsort(found[:, 0])]
        np.testing.assert_array_equal(found, [[0, np.nan, 0], [99, 4, np.nan]])

    def test_frame(self, codecs: Any, people: Draw) -> None:
        matrix = people(50, 0)
        frame = frame_of(matrix, codecs)
        assert list(frame) == list(codecs)
        assert set(frame["sex"]) == {"female", "male"}
        assert frame["city"].isna().tolist() == np.isnan(matrix[:, 3]).tolist()
        assert frame["age"].tolist() == matrix[:, 0].tolist()
        gaps = matrix.copy()
        gaps[0] = np.nan  # types are the schema's: SDMetrics would take others for another structure
        assert frame_of(gaps, codecs).dtypes.tolist() == frame.dtypes.tolist()


class TestDistances:
    @pytest.mark.parametrize("with_training", [True, False])
    def test_of_every_marginal_by_a_loop(self, codecs: Any, people: Draw, with_training: bool) -> None:
        real, fake, training = people(300, 1), people(280, 2), people(310, 3)
        found = fidelity(real, fake, training if with_training else None, codecs, rng=np.random.default_rng(0))
        assert found.rows == 280
        groups = Groups(real, codecs)
        tables = [groups.of(table)[:280] for table in (real, fake, training)]
        names = list(codecs)
        for way, marginals in enumerate((found.columns, found.pairs, found.triples), 1):
            expected = set(itertools.combinations(names, way))
            assert {m.columns for m in marginals} == expected
            assert [m.distance for m in marginals] == sorted((m.distance for m in marginals), reverse=True)
            for marginal in marginals:
                at = [names.index(name) for name in marginal.columns]
                counts = [Counter(tuple(row) for row in table[:, at].tolist()) for table in tables]
                cells = set().union(*counts)
                distance = [sum(abs(counts[0][c] - other[c]) for c in cells) / 2 / 280 for other in counts[1:]]
                assert marginal.distance == pytest.approx(distance[0])
                assert marginal.chance == (pytest.approx(distance[1]) if with_training else None)
            assert found.mean_distance[way - 1] == pytest.approx(np.mean([m.distance for m in marginals]))

    def test_equal_tables_and_missing_values(self, codecs: Any, people: Draw) -> None:
        real = people(200, 1)
        whole = real.copy()
        whole[:, 1] = 0
        found = fidelity(real, whole, real, codecs, rng=np.random.default_rng(0))
        distance = {m.columns[0]: m.distance for m in found.columns}
        assert found.columns[0].columns == ("income",) and distance["age"] == 0
        assert found.mean_chance == (0.0, 0.0, 0.0)
        missing = {m.column: (m.real, m.synthetic) for m in found.missing}
        assert missing["income"] == (np.isnan(real[:, 1]).mean(), 0.0)
        assert missing["city"][0] == missing["city"][1]

    def test_groups_hold_equal_numbers(self, codecs: Any, people: Draw) -> None:
        real = people(4000, 1)
        groups = Groups(real, codecs)
        counts = groups.table(groups.of(real), (4,))
        assert len(counts) == QUANTILES + 1 and counts[-1] == 0
        assert counts[:-1].min() > 150 and counts[:-1].max() < 250  # 200 each, but for ties

    def test_single_column(self, schema_of: Callable[..., Schema]) -> None:
        codecs = codecs_of(schema_of("died"))
        found = fidelity(np.array([[0.0], [1.0]]), np.array([[1.0], [1.0]]), None, codecs, rng=np.random.default_rng(0))
        assert found.mean_distance == (0.5, None, None)


class TestAssociation:
    def test_large_tables_are_as_in_scipy(self) -> None:
        """The correction vanishes with the number of rows."""
        table = np.random.default_rng(0).integers(50_000, 100_000, (4, 3))
        table[0, 0] += 400_000
        assert cramers_v(table) == pytest.approx(association(table, method="cramer"), abs=1e-4)

    @pytest.mark.parametrize(
        ("table", "value"), [([[5, 0], [0, 5]], 1.0), ([[5, 5], [5, 5]], 0.0), ([[3, 4]], 0.0), ([[0, 0], [0, 0]], 0.0)]
    )
    def test_by_hand(self, table: list[list[int]], value: float) -> None:
        assert cramers_v(table) == pytest.approx(value)


class TestOverlay:
    def test_of_a_line_with_missing_values(self, codecs: Any) -> None:
        values = np.array([0.0, 50_000.0, np.nan, np.nan])
        counts = np.bincount(cells_of_column(codecs["income"], values), minlength=codecs["income"].size)
        found = overlay(codecs["income"], counts, counts)
        assert found.ordered and found.missing and found.labels[-1] == "missing"
        assert (found.labels[0], found.upper) == ("0", "5,000")
        assert len(found.labels) <= MOST_BARS + 1
        assert found.real == found.synthetic
        assert (found.real[0], found.real[-2], found.real[-1]) == (0.25, 0.25, 0.5)

    def test_bars_do_not_depend_on_extreme_values(self, codecs: Any) -> None:
        codec = codecs["age"]
        one = np.bincount([17] * 9 + [98], minlength=codec.size)
        other = np.bincount([17] * 9 + [3], minlength=codec.size)
        assert overlay(codec, one, other).labels == overlay(codec, other, one).labels

    def test_of_many_levels(self, schema_of: Callable[..., Schema]) -> None:
        codec = codecs_of(schema_of("code", code={"kind": "categorical", "categories": list(range(30))}))["code"]
        counts = np.arange(30)
        found = overlay(codec, counts, counts)
        assert found.labels == (*(str(i) for i in range(21, 30)), "21 others")
        assert found.real[-1] == pytest.approx(sum(range(21)) / sum(range(30)))


def test_sdmetrics_knows_equal_tables(codecs: Any, people: Draw) -> None:
    real = people(150, 1)
    found = library_scores(real, real, codecs)
    assert found.rows == 150 and found.columns == len(codecs)
    assert found.properties == dict.fromkeys(
        ("Data Validity", "Data Structure", "Column Shapes", "Column Pair Trends"), pytest.approx(1.0)
    )
    other = real.copy()
    other[:, 2] = 0
    worse = library_scores(real, other, codecs)
    assert worse.worst[0].columns[0] == "sex" or "sex" in worse.worst[0].columns
    assert worse.worst[0].score < 0.7
