"""`synth detect` on copies, parts, mixtures and strangers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth import detect as detection
from synth.schema import parse_schema
from synth.tables.codec import codecs_of
from synth.tables.model import TableModel
from synth.tables.pieces import Pieces
from synth.tables.rows import sample_rows

# A false alarm of a finding has a chance of at most 1e-6 a case, by the command's own threshold.


@pytest.fixture
def told(quick_bundle: Path, synth: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What the command says about a table."""

    def call(table: pa.Table | Path) -> dict[str, Any]:
        path = table if isinstance(table, Path) else tmp_path / "some.parquet"
        if isinstance(table, pa.Table):
            pq.write_table(table, path)
        outcome = synth("detect", path, "--bundle", quick_bundle, "--json")
        assert outcome.code == 0, outcome.err
        found: dict[str, Any] = json.loads(outcome.out)
        return found

    return call


@pytest.fixture(scope="module")
def own(quick_bundle: Path) -> pa.Table:
    """The bundle's rows, without any metadata."""
    return pq.read_table(quick_bundle / "data").replace_schema_metadata(None)


@pytest.fixture(scope="module")
def strangers(clinic_at: Any, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The real patients that the bundle's model was measured on."""
    table: pa.Table = clinic_at(tmp_path_factory.mktemp("real") / "clinic").table
    return table.drop_columns("note")


class TestCopies:
    def test_the_files_themselves(self, told: Any, quick_bundle: Path, own: pa.Table) -> None:
        found = told(quick_bundle / "data" / "part-00000.parquet")
        assert found["verdict"] == "whole"
        assert found["rows"] == found["found"] == found["bundle_found"] == own.num_rows
        assert found["metadata"]["this_run"] and found["metadata"]["this_schema"]
        assert found["p_value"] < 1e-300 and found["expected"] < 1
        assert found["absent"] == [] and "patient_nbr" not in found["columns"]

    def test_their_folder(self, told: Any, quick_bundle: Path) -> None:
        found = told(quick_bundle / "data")
        assert found["verdict"] == "whole" and found["metadata"]["this_run"]

    def test_a_shuffled_part_without_metadata_and_ids(self, told: Any, own: pa.Table) -> None:
        order = np.random.default_rng(1).permutation(own.num_rows)[:20]
        found = told(own.take(order).drop_columns("patient_nbr"))
        assert (found["verdict"], found["found"], found["metadata"]) == ("whole", 20, None)

    def test_some_columns_in_another_order(self, told: Any, own: pa.Table) -> None:
        found = told(own.select(["admitted", "bmi", "age"]))
        assert found["verdict"] == "whole" and found["columns"] == ["age", "bmi", "admitted"]
        assert set(found["absent"]) == {"sex", "ward", "grade", "died"}

    def test_a_text_file_of_other_types(self, told: Any, own: pa.Table, tmp_path: Path) -> None:
        frame = own.to_pandas()
        frame["age"] = frame["age"].astype(float)
        frame["bmi"] = frame["bmi"].astype("float32")
        frame["died"] = frame["died"].astype(int)
        frame["grade"] = frame["grade"].astype(float)
        frame["admitted"] = frame["admitted"].dt.strftime("%Y-%m-%d")
        frame.insert(0, "mine", 1)
        frame.to_csv(tmp_path / "copy.csv", index=False, na_rep="NA")
        found = told(tmp_path / "copy.csv")
        assert found["verdict"] == "whole" and found["found"] == own.num_rows
        assert found["others"] == ["mine"]

    def test_pandas_own_types(self, told: Any, own: pa.Table, tmp_path: Path) -> None:
        frame = own.to_pandas().convert_dtypes()
        frame["ward"] = frame["ward"].astype("category")
        frame["admitted"] = pd.to_datetime(frame["admitted"]).astype("datetime64[ns]")
        frame.to_parquet(tmp_path / "copy.parquet")
        assert told(tmp_path / "copy.parquet")["verdict"] == "whole"

    def test_a_few_rows(self, told: Any, own: pa.Table) -> None:
        # Three rows suffice where each has a probability below 7e-6; of 73 ages and 2,200 days it is about 1e-8.
        assert told(own.slice(7, 3))["verdict"] == "whole"
        one = told(own.slice(7, 1))
        assert one["found"] == 1 and one["p_value"] == one["expected"] < 0.01

    def test_rows_that_stand_there_several_times(self, told: Any, own: pa.Table) -> None:
        found = told(pa.concat_tables([own.slice(0, 5)] * 200))
        assert (found["found"], found["different_found"], found["bundle_found"]) == (1000, 5, 5)
        assert found["verdict"] == "whole"


class TestStrangers:
    def test_real_rows_are_not_from_the_bundle(self, told: Any, strangers: pa.Table) -> None:
        found = told(strangers)
        # One row may match by chance (about 1e-4), two next to never.
        assert (found["verdict"], found["p_value"]) == ("none", 1.0)
        assert found["found"] <= 1

    def test_another_draw_says_where_it_comes_from_and_is_not_it(
        self, told: Any, quick_bundle: Path, synth: Any, tmp_path: Path
    ) -> None:
        assert synth("sample", quick_bundle, "--rows", 400, "--seed", 3, "-o", tmp_path / "draw.parquet").code == 0
        found = told(tmp_path / "draw.parquet")
        assert found["verdict"] == "none" and found["metadata"]["this_run"]

    def test_a_mixture(self, told: Any, own: pa.Table, strangers: pa.Table) -> None:
        found = told(pa.concat_tables([own.slice(0, 40), strangers.cast(own.schema)]))
        assert found["verdict"] == "part" and 40 <= found["found"] <= 41
        assert found["share"] == pytest.approx(40 / (40 + strangers.num_rows), abs=0.01)

    def test_too_little_to_tell(self, told: Any, own: pa.Table, strangers: pa.Table) -> None:
        for table in (own, strangers):
            found = told(table.select(["sex", "died"]))
            assert (found["verdict"], found["found"]) == ("unknown", table.num_rows)

    def test_values_outside_of_the_domain_match_nothing(self, told: Any, own: pa.Table) -> None:
        age = pc.add(own["age"], 100)
        found = told(own.set_column(own.column_names.index("age"), "age", age))
        assert (found["verdict"], found["found"], found["expected"]) == ("none", 0, 0.0)


NAMES = ("age", "sex", "ward", "grade")


def matches(model: TableModel, names: tuple[str, ...]) -> tuple[float, float]:
    """How many different rows of a draw are said to be in another at most, and how many are, on average over ten.

    The model differs from run to run. Up to twice as many are said as are seen (SLACK), with at least 50 seen in the
    ten draws: their sum strays by less than its root, so that the bounds are more than five times as far.
    """
    tables = [pa.Table.from_batches(sample_rows(model, 300, seed=seed)) for seed in range(11)]
    matrices = [np.concatenate([*detection._matrices(iter(t.to_batches()), model, names)]) for t in tables]
    asked, prints = detection._judged(iter(matrices[:1]))
    known = np.unique(prints)
    seen = np.mean([np.isin(known, detection._prints(matrix)).sum() for matrix in matrices[1:]])
    return float(detection.chance_of(model, names, asked, rows=300).sum()), float(seen)


class TestChance:
    """The chance of a match that is stated, against what independent draws of the same model show."""

    @pytest.mark.parametrize("names", [("age", "sex", "died"), ("sex", "ward", "grade", "bmi"), ("grade", "admitted")])
    def test_matches_between_draws(self, quick_bundle: Path, names: tuple[str, ...]) -> None:
        expected, seen = matches(TableModel.load(quick_bundle / "model"), names)
        assert seen <= expected <= 4 * seen + 10

    def test_matches_between_draws_that_meet_rules(self, clinic: Any, quick_run: Callable[[Path], Path]) -> None:
        determined = {"determines": ["ward", "grade"], "map": {"north": 1, "south": 2, "east": 2}}
        clinic.column("ward")["nullable"] = False
        clinic.schema["rules"] = ["not (sex = male and ward = north)", "not (sex = male and age < 50)", determined]
        clinic.run["privacy"]["epsilon"] = 30.0
        expected, seen = matches(TableModel.load(quick_run(clinic.write().run_yaml) / "model"), NAMES)
        assert seen <= expected <= 4 * seen + 10

    def test_as_many_by_chance(self) -> None:
        assert detection.chance_of_as_many(0, 0.0) == 1.0
        assert detection.chance_of_as_many(1, 1e-9) == 1e-9
        assert detection.chance_of_as_many(3, 2.5) == 1.0  # no bound that near to the mean
        assert detection.chance_of_as_many(2, 0.1) == pytest.approx(1 - 1.1 * np.exp(-0.1))
        assert detection.chance_of_as_many(5, 0.0) == 0.0

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
    def test_no_sum_of_trials_does_it_more_often(self, chances: list[float]) -> None:
        """Against the exact distribution of how many of some trials succeed, built up trial by trial."""
        exact = np.ones(1)
        for p in chances:
            exact = np.append(exact * (1 - p), 0.0) + np.append(0.0, exact * p)
        for found in range(len(chances) + 1):
            assert exact[found:].sum() <= detection.chance_of_as_many(found, sum(chances)) + 1e-9

    def test_a_real_number_is_compared_to_six_digits(self, tmp_path: Path) -> None:
        schema = parse_schema(
            {"dataset": "d", "columns": [{"name": "x", "kind": "continuous", "bounds": [-1, 1]}]}, file="s"
        )
        codec = codecs_of(schema)["x"]
        values = np.array([0.123456789, -0.0, 1.5, np.nan])
        found = detection._cells(codec, pa.array(values.astype(np.float32)))
        assert found[0] == pytest.approx(0.123457) and found[0] == detection._cells(codec, pa.array(values))[0]
        assert found[1:].tolist()[:2] == [0.0, np.inf] and np.isnan(found[3])
        # Evenly spread over a length of two, so 0.123457 ± 5e-7 is drawn with probability 5e-7.
        flat = Pieces(1, np.array([0]), np.ones(1), np.array([-1.0]), np.array([1.0]), np.zeros(1))
        _, mass = detection._places(flat, found[:1], detection._half_width(codec, found[:1]))
        assert mass[0] == pytest.approx(5e-7)

    def test_a_value_is_on_the_grid_or_a_single_one(self) -> None:
        """Two bins: 0, 5, 10 by eighty and 7 by twenty of a hundred; missing alone."""
        pieces = Pieces(
            2,
            np.array([0, 0, 1]),
            np.array([0.8, 0.2, 1.0]),
            np.array([0.0, 7.0, np.nan]),
            np.array([2.0, 7.0, np.nan]),
            np.array([5.0, 1.0, 1.0]),
        )
        asked = np.array([5.0, 7.0, np.nan, 6.0, 15.0, np.inf])
        bins, mass = detection._places(pieces, asked, np.zeros(6))
        assert mass.tolist() == pytest.approx([0.8 / 3, 0.2, 1.0, 0.0, 0.0, 0.0])
        assert bins[:3].tolist() == [0, 0, 1]


class TestWords:
    def test_for_people(self, quick_bundle: Path, synth: Any, own: pa.Table) -> None:
        outcome = synth("detect", quick_bundle / "data" / "part-00000.parquet", "--bundle", quick_bundle)
        assert outcome.code == 0
        assert "from this bundle: every row of the table is one of its rows" in outcome.out
        assert f"{own.num_rows:,} of {own.num_rows:,} are the bundle's" in outcome.out
        assert "says that it is from this run" in outcome.out

    def test_a_damaged_bundle(self, quick_bundle: Path, synth: Any, tmp_path: Path) -> None:
        damaged = tmp_path / "bundle"
        shutil.copytree(quick_bundle, damaged)
        (damaged / "schema.yaml").write_text("dataset: other\n")
        outcome = synth("detect", quick_bundle / "data", "--bundle", damaged)
        assert outcome.code == 4 and "schema.yaml" in outcome.err

    def test_misuse(self, quick_bundle: Path, synth: Any, own: pa.Table, tmp_path: Path) -> None:
        pq.write_table(pa.table({"zip": [1]}), tmp_path / "other.parquet")
        (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
        pq.write_table(own.slice(0, 0), tmp_path / "empty.parquet")
        pq.write_table(pa.table({"age": [[1, 2]]}), tmp_path / "lists.parquet")
        for name, words in {
            "other.parquet": "none of the bundle's columns",
            "broken.parquet": "damaged",
            "absent.csv": "no such file",
            "empty.parquet": "no rows",
            "lists.parquet": "cannot be compared",
        }.items():
            outcome = synth("detect", tmp_path / name, "--bundle", quick_bundle)
            assert (outcome.code, outcome.out) == (2, ""), name
            assert words in outcome.err and outcome.err.count("\n") == 1, outcome.err
