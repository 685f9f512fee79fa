"""Runs on tables that are odd and allowed: the rules of the schema apply, and the output has the declared types."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TYPES = {
    "patient_nbr": pa.string(),
    "age": pa.int64(),
    "bmi": pa.float64(),
    "sex": pa.string(),
    "ward": pa.string(),
    "grade": pa.int64(),
    "admitted": pa.timestamp("us"),
    "died": pa.bool_(),
}


EPSILON = 30.0  # so that 400 rows stand far above the noise: a claim about the rows then fails only for a cause


@pytest.fixture
def made(clinic: Any, synth: Any) -> Any:
    """Run the clinic; the rows and the privacy statement of its bundle."""

    def call(epsilon: float = EPSILON) -> tuple[pa.Table, dict[str, Any]]:
        clinic.run["privacy"]["epsilon"] = epsilon
        clinic.run_yaml.write_text(json.dumps(clinic.run))
        bundle = synth("run", clinic.run_yaml).bundle
        assert synth("verify", bundle).code == 0
        table = pq.read_table(bundle / "data" / "part-00000.parquet")
        return table, json.loads((bundle / "privacy.json").read_text())["x_synth"]

    return call


def types(table: pa.Table) -> dict[str, pa.DataType]:
    return dict(zip(table.schema.names, table.schema.types, strict=True))


def inside(clinic: Any, table: pa.Table) -> None:
    """Every cell has a declared value, whatever the source held."""
    for column in clinic.columns:
        values = {value for value in table[column["name"]].to_pylist() if value is not None}
        if "categories" in column:
            assert values <= set(column["categories"])
        elif column["kind"] in {"integer", "continuous"}:
            assert all(column["bounds"][0] <= value <= column["bounds"][1] for value in values)
        if not column.get("nullable"):
            assert table[column["name"]].null_count == 0


def test_a_csv_gives_the_same_types(clinic: Any, made: Any) -> None:
    clinic.write_csv()
    table, _ = made()
    assert types(table) == TYPES
    assert 200 < table.num_rows < 600
    assert len(set(table["age"].to_pylist())) > 20
    assert len(set(table["admitted"].to_pylist())) > 100
    inside(clinic, table)


def test_values_outside_follow_the_default_rules(clinic: Any, made: Any) -> None:
    n = clinic.table.num_rows
    clinic.put("age", [7] * (n // 2) + [900] * (n - n // 2))  # clipped to the bounds
    clinic.put("ward", ["attic"] * n)  # nullable: becomes missing
    clinic.put("sex", [""] * n)  # not nullable: a random declared level
    clinic.put("admitted", ["1850-01-01"] * n)
    clinic.put("bmi", [math.nan] * n)
    clinic.write()
    table, _ = made()
    assert types(table) == TYPES
    inside(clinic, table)
    ages = table["age"].to_pylist()
    assert sum(age in {18, 90} for age in ages) > 0.5 * len(ages)
    assert table["ward"].null_count > 0.5 * len(ages)
    assert table["bmi"].null_count > 0.5 * len(ages)
    assert min(table["sex"].to_pylist().count(sex) for sex in ("female", "male")) > 0.2 * len(ages)


def test_one_row(clinic: Any, made: Any) -> None:
    clinic.table = clinic.table.slice(0, 1)
    clinic.write()
    table, statement = made()
    assert types(table) == TYPES
    assert table.num_rows >= 1
    assert statement["epsilon"] == EPSILON
    inside(clinic, table)


def test_one_class(clinic: Any, made: Any) -> None:
    clinic.put("died", [False] * clinic.table.num_rows)
    clinic.write()
    table, _ = made()
    assert types(table) == TYPES
    assert table["died"].to_pylist().count(False) > 0.7 * table.num_rows


def test_a_target_with_missing_values(clinic: Any, made: Any) -> None:
    values = [float(value) for value in clinic.table["died"].to_pylist()]
    values[::3] = [math.nan] * len(values[::3])
    clinic.put("died", values)
    clinic.column("died")["nullable"] = True
    clinic.write()
    table, _ = made()
    assert types(table) == TYPES
    assert 0.1 < table["died"].null_count / table.num_rows < 0.6


def test_a_target_with_missing_values_that_may_not_be(clinic: Any, made: Any) -> None:
    clinic.put("died", [math.nan] * clinic.table.num_rows)
    clinic.write()
    table, _ = made()
    assert types(table) == TYPES
    assert table["died"].null_count == 0


def test_a_numeric_target_and_a_declared_row_count(clinic: Any, made: Any) -> None:
    clinic.schema |= {"target": "bmi", "row_count": 321}
    clinic.write()
    table, statement = made()
    assert types(table) == TYPES
    assert table.num_rows == 321  # as declared; the file holds another number
    assert statement["row_count"] == 321
    assert any("number of rows" in item for item in statement["not_covered"])
    assert "histogram of the target" in {event["name"] for event in statement["events"]}
    assert statement["epsilon"] == EPSILON
    inside(clinic, table)


def test_no_target_and_a_chosen_number_of_rows(clinic: Any, made: Any) -> None:
    del clinic.schema["target"]
    clinic.run["output"]["rows"] = 123
    clinic.write()
    table, statement = made()
    assert types(table) == TYPES
    assert table.num_rows == 123
    assert statement["output_rows"] == {"rows": 123, "chosen_by": "config"}
    inside(clinic, table)


def test_numbers_as_categories_and_finer_dates(clinic: Any, made: Any) -> None:
    clinic.column("grade")["categories"] = [1, 2.5, 3]
    clinic.put("grade", ([1.0, 2.5, 3.0] * clinic.table.num_rows)[: clinic.table.num_rows])
    clinic.column("admitted").update(resolution="minute", bounds=["2015-01-01 08:00:00", "2021-01-01"])
    clinic.run |= {"name": "second-look"}
    clinic.write()
    table, statement = made()
    assert types(table) == TYPES | {"grade": pa.float64()}
    assert set(table["grade"].to_pylist()) <= {1.0, 2.5, 3.0}
    assert all(value.second == 0 for value in table["admitted"].to_pylist())
    assert statement["run"].startswith("second-look-")


def test_a_table_of_ids_and_one_column(clinic: Any, made: Any) -> None:
    clinic.columns = [column for column in clinic.columns if column["name"] in {"patient_nbr", "sex"}]
    clinic.schema["target"] = None
    clinic.write()
    table, _ = made()
    assert types(table) == {"patient_nbr": pa.string(), "sex": pa.string()}
    assert 200 < table.num_rows < 600


def test_a_table_that_is_its_target_alone(clinic: Any, made: Any) -> None:
    clinic.columns = [column for column in clinic.columns if column["name"] == "died"]
    clinic.write()
    table, _ = made()
    assert types(table) == {"died": pa.bool_()}
    assert 200 < table.num_rows < 600


def test_a_failing_internal_report_does_not_decide_about_the_bundle(
    clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a bundle appears must not depend on what is computed from the exact rows after the last draw."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("8675309")

    monkeypatch.setattr("synth.tables.stages.internal_scores", fail)
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 0, outcome.err
    bundle = Path(outcome.out.strip().splitlines()[-1])
    assert synth("verify", bundle).code == 0
    noted = (bundle.parent / "internal" / "failure-evaluate.txt").read_text()
    assert "ValueError" in noted and "8675309" not in noted + outcome.err
    assert not (bundle.parent / "internal" / "report.json").exists()


def test_a_delta_above_one_over_the_noised_rows_is_said_in_public(clinic: Any, made: Any) -> None:
    """A private number of rows is not known before the run, so it cannot be refused there."""
    clinic.table = pa.concat_tables([clinic.table] * 5)  # 2,000 rows; the noise on their number is below one hundred
    clinic.run["privacy"]["delta"] = 1e-3
    clinic.write()
    _, statement = made()
    assert any(item.startswith("Single people, by delta") for item in statement["not_covered"])
