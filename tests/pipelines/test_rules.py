"""A run whose schema declares rules: every row of the bundle, of `synth sample` and every filled cell meets them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

GRADES = {"north": 1, "south": 2, "east": 3}
RULES = [
    "discharged >= admitted",
    "bmi < age",
    "not (sex = male and died = true and age >= 60)",
    {"determines": ["ward", "grade"], "map": GRADES},
    "cost = fees - refund",
]
CANARY = 61


def declare(clinic: Any) -> None:
    """Half of the patients leave before they came, and nothing else in the source keeps to the rules either."""
    rng = np.random.default_rng(0)
    rows = clinic.table.num_rows
    left = [datetime(2015, 1, 1) + timedelta(seconds=int(s)) for s in rng.integers(0, 2000 * 86400, rows)]
    clinic.table = clinic.table.append_column("discharged", pa.array(left, pa.timestamp("us")))
    bounds = ["2014-06-01", "2022-01-01"]
    clinic.columns.append({"name": "discharged", "kind": "datetime", "bounds": bounds, "nullable": True})
    clinic.column("grade")["nullable"] = True
    fees, refund = rng.integers(0, 900, rows), rng.integers(0, 300, rows) / 4
    for name, values, bounds in (("fees", fees, [0, 900]), ("refund", refund, [0, 75]), ("cost", fees, [-75, 800])):
        clinic.table = clinic.table.append_column(name, pa.array(values))
        clinic.columns.append({"name": name, "kind": "continuous", "bounds": bounds, "decimals": 2, "nullable": True})
    clinic.schema["rules"] = RULES
    clinic.run["privacy"]["epsilon"] = 30.0  # so that 400 rows stand far above the noise
    clinic.write()


def breaks(row: dict[str, Any]) -> bool:
    late = row["discharged"] is not None and row["discharged"] < row["admitted"]
    heavy = row["bmi"] is not None and row["bmi"] >= row["age"]
    dead = row["sex"] == "male" and row["died"] and row["age"] >= 60
    parts = [row[name] for name in ("fees", "refund", "cost")]
    wrong = None not in parts and round(100 * parts[0]) - round(100 * parts[1]) != round(100 * parts[2])
    return late or heavy or dead or wrong or row["grade"] != GRADES.get(row["ward"])


def test_every_row_meets_them(clinic: Any, synth: Any, tmp_path: Any) -> None:
    declare(clinic)
    assert sum(map(breaks, clinic.table.to_pylist())) > 200
    bundle = synth("run", clinic.run_yaml).bundle
    rows = pq.read_table(bundle / "data" / "part-00000.parquet").to_pylist()
    assert len(rows) > 200
    assert not any(map(breaks, rows))
    assert {row["patient_nbr"] for row in rows} == {f"patient_nbr-{i + 1:09d}" for i in range(len(rows))}

    # What is published names the rules, and counts no break of them; what is not says how often the source breaks them.
    assert "- not (sex = male and died = true and age &gt;= 60)" in (bundle / "dictionary.md").read_text()
    assert "determines" in (bundle / "schema.yaml").read_text()
    quality = json.loads((bundle / "quality.json").read_text())
    assert quality["valid_rows"] == quality["rows"] == len(rows)
    assert "discharged &gt;= admitted" in (bundle / "datasheet.html").read_text()
    report = json.loads((bundle.parent / "internal" / "report.json").read_text())
    late, _, dead, _, total = report["rules"]
    source = clinic.table.to_pylist()
    assert late["source_breaks"] == sum(row["discharged"] < row["admitted"] for row in source)
    assert dead["source_breaks"] == sum(row["sex"] == "male" and row["died"] and row["age"] >= 60 for row in source)
    assert late["source_rows"] == clinic.table.num_rows
    assert total["source_breaks"] == sum(row["cost"] > 800 or row["refund"] > 0 for row in source)
    assert 0 < late["model_share"] < 1 and total["model_share"] > 0.9
    assert "Every synthetic row meets them" in (bundle.parent / "internal" / "report.html").read_text()

    # Rows drawn later, with conditions and with asked shares.
    output = tmp_path / "rows.parquet"
    for options in (
        ["--where", "age>=60", "--where", "grade=2|3"],
        ["--where", "cost=249.75"],
        ["--where", "cost>=300", "--where", "refund<20"],
        ["--balance", "died"],
        ["--balance", "sex"],
    ):
        assert synth("sample", bundle, "--rows", 500, "-o", output, *options).code == 0
        drawn = pq.read_table(output).to_pylist()
        assert len(drawn) == 500 and not any(map(breaks, drawn))
        if options[0] == "--balance":
            assert [row[options[1]] for row in drawn].count(drawn[0][options[1]]) == 250
    nobody = synth("sample", bundle, "--rows", 5, "-o", output, "--where", "ward=north", "--where", "grade=2")
    assert nobody.code == 2
    assert "--where: the declared rules leave no such rows" in nobody.err

    # Gaps: what is filled meets them; rows that break them by themselves are counted, and none of their values told.
    known = {
        "age": [CANARY, 30, 30],
        "sex": ["male", "male", "female"],
        "died": [True, None, None],
        "admitted": [datetime(2016, 1, 1)] * 3,
        "discharged": [None, None, datetime(2015, 1, 1)],
        "ward": ["east", None, None],
        "grade": [None, 2, None],
        "fees": [500.0, None, 10.0],
        "cost": [450.5, 700.0, None],
    }
    pq.write_table(pa.table(known), tmp_path / "partial.parquet")
    outcome = synth("sample", bundle, "--complete", tmp_path / "partial.parquet", "-o", output)
    assert outcome.code == 0
    assert "warning: 2 of 3 rows break a declared rule by the cells that are there" in outcome.err
    assert str(CANARY) not in outcome.err
    first, second, third = pq.read_table(output).to_pylist()
    assert first["grade"] == 3 and first["discharged"] >= datetime(2016, 1, 1) and first["bmi"] < CANARY
    assert second["ward"] == "south" and not breaks(second)
    assert first["refund"] == 49.5 and second["fees"] == 700 + second["refund"]
    assert third["discharged"] == datetime(2015, 1, 1) and third["grade"] == GRADES[third["ward"]]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            "discharged >= admited",
            "rule discharged >= admited: admited is not a declared column (did you mean admitted?)",
        ),
        ("age >= admitted", "rule age >= admitted: compares a date with a number"),
        ("age >= bmi + grade", "bmi + grade is not a declared column"),
        ("age = bmi + grade", "rule age = bmi + grade: grade is categorical; only numbers are added"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_read(clinic: Any, synth: Any, rule: str, words: str) -> None:
    declare(clinic)
    clinic.schema["rules"] = [rule]
    clinic.write()
    clinic.source.unlink()
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 2
    assert words in outcome.err and outcome.err.count("\n") == 1
