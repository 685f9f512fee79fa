"""The two tiers of scores: public ones follow from what was paid for, internal ones stay with the steward."""

from __future__ import annotations

import ast
import html
import inspect
import itertools
import json
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from synth.evaluate import public
from synth.evaluate.distance import total_variation
from synth.evaluate.internal import internal_scores, write_internal_report
from synth.evaluate.public import ValidRows, public_scores
from synth.schema import Schema

NAMES = ("age", "income", "city", "died")


@pytest.fixture(scope="module")
def crowd() -> list[tuple[str | None, ...]]:
    rng = np.random.default_rng(0)
    cities = ["Rome", "Oslo", "other", None]
    return [
        (str(rng.integers(100)), None if rng.random() < 0.2 else "100", cities[rng.integers(4)], "true")
        for _ in range(80)
    ]


@pytest.fixture(scope="module")
def run(toy_run: Any, schema_of: Callable[..., Schema]) -> Any:
    return toy_run(schema_of(*NAMES, target="died"), epsilon=30.0)


@pytest.fixture(scope="module")
def people(run: Any, crowd: list[Any]) -> list[dict[str, int]]:
    return [run.codes_of(person, i) for i, person in enumerate(crowd)]


def cells(people: Sequence[dict[str, int]]) -> dict[str, np.ndarray]:
    return {name: np.array([codes[f"cells:{name}"] for codes in people]) for name in NAMES}


def batches(people: Sequence[dict[str, int]]) -> Callable[[Sequence[str]], Iterator[dict[str, np.ndarray]]]:
    """Encoded rows, as a working file gives them: in two batches."""

    def read(keys: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        codes = {key: np.array([person[key] for person in people]) for key in keys}
        for half in (slice(None, len(people) // 2), slice(len(people) // 2, None)):
            yield {key: code[half] for key, code in codes.items()}

    return read


class TestValidRows:
    def batch(self, **changes: Any) -> pa.RecordBatch:
        columns = {"age": [1, 2], "income": [0.5, None], "city": ["Rome", None], "died": [True, False]} | changes
        return pa.record_batch({name: pa.array(values) for name, values in columns.items()})

    def test_of_valid_rows(self, run: Any) -> None:
        seen = ValidRows(run.codecs)
        assert list(seen.watch([self.batch(), self.batch()])) == [self.batch(), self.batch()]
        assert (seen.valid, seen.rows) == (4, 4)

    @pytest.mark.parametrize(
        ("changes", "valid"),
        [
            ({"age": [1, 100]}, 1),
            ({"age": [1, None]}, 1),
            ({"city": ["Paris", "Bonn"]}, 0),
            ({"age": [1.0, 2.0]}, 0),
            ({"income": [0.5, -3.0]}, 1),
        ],
    )
    def test_rows_that_are_not(self, run: Any, changes: dict[str, Any], valid: int) -> None:
        seen = ValidRows(run.codecs)
        seen.add(self.batch(**changes))
        assert (seen.valid, seen.rows) == (valid, 2)


class TestPublic:
    def test_every_column_and_every_measured_pair(self, run: Any, people: list[Any]) -> None:
        _, measured = run.measure(people)
        quality = public_scores(measured, run.schema, batches(people), valid_rows=80, rows=80)
        assert [score.columns for score in quality.one_way] == [("age",), ("income",), ("city",), ("died",)]
        assert [score.columns for score in quality.two_way] == list(measured.pairs)
        assert [score.columns for score in quality.three_way] == list(measured.triples) != []
        for score in (*quality.one_way, *quality.two_way, *quality.three_way):
            assert 0 <= score.distance <= 1
            assert 0 <= score.noise <= 1
        assert quality.mean_one_way_distance == pytest.approx(np.mean([s.distance for s in quality.one_way]))
        assert quality.mean_two_way_noise == pytest.approx(np.mean([s.noise for s in quality.two_way]))

    def test_equal_rows_show_the_noise_and_other_rows_more(self, run: Any, people: list[Any]) -> None:
        _, measured = run.measure(people * 50)
        same = public_scores(measured, run.schema, batches(people), valid_rows=80, rows=80)
        others = [people[0]] * 80
        other = public_scores(measured, run.schema, batches(others), valid_rows=80, rows=80)
        assert same.mean_one_way_distance < 3 * same.mean_one_way_noise + 0.01
        assert other.mean_one_way_distance > 10 * same.mean_one_way_distance
        assert other.mean_two_way_distance is not None and same.mean_two_way_distance is not None
        assert other.mean_two_way_distance > same.mean_two_way_distance

    def test_without_pairs_or_target(self, toy_run: Any, schema_of: Callable[..., Schema]) -> None:
        run = toy_run(schema_of("age"), epsilon=10.0)
        codes = [run.codes_of(("5",), i) for i in range(9)]
        _, measured = run.measure(codes)
        quality = public_scores(measured, run.schema, batches(codes), valid_rows=9, rows=9)
        assert (quality.two_way, quality.mean_two_way_distance, quality.mean_two_way_noise) == ((), None, None)

    def test_they_cannot_open_a_private_row(self) -> None:
        imported = {
            name
            for node in ast.walk(ast.parse(inspect.getsource(public)))
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
        }
        private = {"synth.ingest", "synth.tables.count", "synth.tables.encode", "synth.evaluate.internal"}
        assert not imported & private
        assert "read" not in inspect.signature(public_scores).parameters


class TestInternal:
    def scores(self, run: Any, real: list[Any], fake: list[Any]) -> dict[str, Any]:
        _, measured = run.measure(real)
        outside = {"age": 3}
        return internal_scores(
            measured, run.codecs, batches(real), batches(fake), outside, rng=np.random.default_rng(0)
        )

    def test_equal_tables(self, run: Any, people: list[Any]) -> None:
        scores = self.scores(run, people, people)
        assert scores["mean_distance"] == {"one_way": 0.0, "two_way": 0.0, "three_way": 0.0}
        assert (scores["real_rows"], scores["synthetic_rows"]) == (80, 80)

    def test_by_hand(self, run: Any, people: list[Any]) -> None:
        fake = people[:20]
        _, measured = run.measure(people)
        scores = self.scores(run, people, fake)
        real_cells, fake_cells = cells(people), cells(fake)
        for entry in scores["pairs"]:
            tables = []
            for found in (real_cells, fake_cells):
                a, b = (measured.bin_of_cell.get(n, np.arange(run.codecs[n].size))[found[n]] for n in entry["columns"])
                table = np.zeros((99, 99))
                np.add.at(table, (a, b), 1)
                tables.append(table)
            assert entry["distance"] == pytest.approx(total_variation(*tables))
        assert len(scores["pairs"]) == len(list(itertools.combinations(NAMES, 2)))
        distances = [entry["distance"] for entry in scores["pairs"]]
        assert distances == sorted(distances, reverse=True)
        assert scores["mean_distance"]["two_way"] == pytest.approx(np.mean(distances))

    def test_missing_and_outside_are_told_to_the_steward(self, run: Any, people: list[Any], crowd: list[Any]) -> None:
        by_name = {entry["column"]: entry for entry in self.scores(run, people, people[:10])["columns"]}
        assert by_name["age"]["outside"] == 3
        assert by_name["city"]["outside"] == 0
        assert by_name["income"]["missing_real"] == pytest.approx(np.mean([person[1] is None for person in crowd]))
        assert by_name["income"]["missing_synthetic"] == pytest.approx(np.mean([p[1] is None for p in crowd[:10]]))
        assert "missing_real" not in by_name["age"]

    def test_one_column(self, toy_run: Any, schema_of: Callable[..., Schema]) -> None:
        run = toy_run(schema_of("died"), epsilon=10.0)
        codes = [run.codes_of(("true",), i) for i in range(4)]
        _, measured = run.measure(codes)
        scores = internal_scores(measured, run.codecs, batches(codes), batches(codes), {}, rng=np.random.default_rng(0))
        assert scores["mean_distance"] == {"one_way": 0.0, "two_way": None, "three_way": None}

    def test_cells_outside_the_domain_stand_on_top_of_the_page(
        self, run: Any, people: list[Any], tmp_path: Path
    ) -> None:
        scores = self.scores(run, people, people[:10])
        write_internal_report(scores, tmp_path)
        head, _ = (tmp_path / "report.html").read_text().split("Columns, worst first")
        assert f"age (3 of {scores['real_rows']:,} cells)." in head and "city (" not in head
        scores["columns"] = [{**entry, "outside": 0} for entry in scores["columns"]]
        write_internal_report(scores, tmp_path)
        assert "Outside the declared domain:</strong> no cell." in (tmp_path / "report.html").read_text()

    def test_the_report_is_for_its_owner_and_says_so(self, run: Any, people: list[Any], tmp_path: Path) -> None:
        scores = self.scores(run, people, people[:10])
        scores["columns"][0]["column"] = "<script>"
        write_internal_report(scores, tmp_path)
        assert json.loads((tmp_path / "report.json").read_text()) == scores
        page = (tmp_path / "report.html").read_text()
        assert "For the steward only" in page
        assert html.escape("<script>") in page
        assert "<script>" not in page
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
