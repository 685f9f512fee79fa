"""Runs whose schema says `bounds: estimate`: what is drawn, published and kept, and what no outlier does."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synth.privacy import budget
from synth.privacy.ledger import Ledger
from synth.privacy.noise import NoiseSource
from synth.schema import load_schema
from synth.tables.bounds import ASSUMED_NUMBERS

NUMBER, WHOLE, DATE = 8675309.125, 7393911331739391, datetime(1571, 7, 8)
CANARIES = (str(NUMBER), str(WHOLE), "1571-07-08")
ESTIMATED = ("age", "bmi", "admitted")


class Seeded(NoiseSource):
    """Noise of the same normals and choices in every run, so that what is asserted never depends on chance."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(7)

    def standard_normal(self, count: int) -> Any:
        return self.rng.standard_normal(count)

    def _uniform(self, count: int) -> Any:
        return self.rng.random(count)


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.tables.stages.NoiseSource", Seeded)


def declare(clinic: Any) -> None:
    """Three columns without bounds, each with a row far out; 400 rows stand far above the noise."""
    for name in ESTIMATED:
        clinic.column(name)["bounds"] = "estimate"
    for name, value in (("age", WHOLE), ("bmi", NUMBER), ("admitted", DATE)):
        values = clinic.table[name].to_pylist()
        values[5] = value
        clinic.put(name, values, clinic.table[name].type)
    clinic.schema["rules"] = ["not (age > 150 and sex = female)", "not (age < 19 and died = true)"]
    clinic.run["privacy"]["epsilon"] = 30.0
    clinic.write()


def text_below(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_a_run_finds_its_bounds(clinic: Any, synth: Any, seeded: None, tmp_path: Path) -> None:
    declare(clinic)
    clinic.write_csv()

    planned = json.loads(synth("plan", clinic.run_yaml, "--json").out)
    assert planned["bounds"]["columns"] == list(ESTIMATED) and planned["bounds"]["share"] == pytest.approx(0.15)
    said = synth("plan", clinic.run_yaml).out
    assert "Bounds    15% of the budget estimates those of age, bmi, admitted" in said
    assert f"seen once about {np.ceil(planned['bounds']['seen_from']):.0f} people" in said

    outcome = synth("run", clinic.run_yaml)
    bundle = outcome.bundle
    assert "encode: bounds of age, bmi, admitted are estimated" in outcome.err
    assert synth("verify", bundle, "--ledger", clinic.ledger_url).code == 0

    # The published schema has them and says so; they hold the people and not the outliers.
    schema = load_schema(bundle / "schema.yaml")
    for name, most in (("age", 200), ("bmi", 200), ("admitted", timedelta(days=40 * 366))):
        column = schema.column(name)
        assert column.bounds_are == "estimated"
        low, high = column.bounds
        values = [value for value in clinic.table[name].to_pylist() if value is not None]
        assert sum(low <= value <= high for value in values) >= 0.99 * len(values) - 1
        assert high - low <= most
    assert "(estimated with noise)" in (bundle / "dictionary.md").read_text()
    assert not schema.columns_to_estimate

    # The statement lists the release, and everything together is what the run was to cost.
    statement = json.loads((bundle / "privacy.json").read_text())["x_synth"]
    assert statement["events"][0]["name"] == budget.BOUNDS
    assert statement["epsilon"] == 30
    assert sum(event["mu"] ** 2 for event in statement["events"]) == pytest.approx(statement["mu"] ** 2)
    datasheet = (bundle / "datasheet.md").read_text()
    assert "Bounds of age, bmi, admitted: estimated from noised histograms, charged." in datasheet
    assert "bounds (but for age, bmi, admitted, of which they are estimated with noise)" in datasheet

    # A value planted far out is nowhere but in the source; that there is one, the steward alone is told.
    left = text_below(bundle) + text_below(bundle.parent / "internal") + outcome.err
    assert not [canary for canary in CANARIES if canary in left]
    report = json.loads((bundle.parent / "internal" / "report.json").read_text())
    outside = {entry["column"]: entry["outside"] for entry in report["columns"]}
    assert all(outside[name] >= 1 for name in ESTIMATED)
    assert {entry["column"] for entry in report["bounds"]} == set(ESTIMATED)
    assert "Bounds that were estimated" in (bundle.parent / "internal" / "report.html").read_text()

    # What follows works within them: rows under conditions, and a run that declares what was published.
    rows = tmp_path / "rows.parquet"
    assert synth("sample", bundle, "--rows", 40, "--where", "age>=60", "-o", rows).code == 0
    ages = pq.read_table(rows)["age"].to_pylist()
    assert min(ages) >= 60 and max(ages) <= schema.column("age").bounds[1]
    refused = synth("sample", bundle, "--rows", 4, "--where", f"age={WHOLE}", "-o", tmp_path / "none.parquet")
    assert refused.code == 2 and "outside the declared domain of age" in refused.err
    clinic.run["schema"] = str(bundle / "schema.yaml")
    clinic.run_yaml.write_text(json.dumps(clinic.run))
    again = json.loads(synth("plan", clinic.run_yaml, "--json").out)
    assert again["bounds"] is None and budget.BOUNDS not in [event["name"] for event in again["events"]]


def test_where_nothing_stands_out_a_range_is_assumed(clinic: Any, quick_run: Any, caplog: Any, seeded: None) -> None:
    declare(clinic)
    clinic.run["privacy"]["epsilon"] = 0.05
    clinic.schema["target"] = "age"  # which is cut into classes within the bounds that were found
    bundle = quick_run(clinic.write().run_yaml)
    schema = load_schema(bundle / "schema.yaml")
    assert schema.column("age").bounds == ASSUMED_NUMBERS and schema.column("age").bounds_are == "assumed"
    assert "warning: nothing in age, bmi, admitted stands out of the noise" in caplog.text
    assert "fixed bounds are assumed" in (bundle / "datasheet.md").read_text()
    assert "(assumed: nothing stood out of the noise)" in (bundle / "dictionary.md").read_text()
    report = (bundle.parent / "internal" / "report.html").read_text()
    assert "nothing in age, bmi, admitted stood out of the noise" in report


def test_of_people_with_rows_and_of_those_held_out(
    clinic: Any, quick_run: Any, seeded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most m rows of a person are counted, none of anybody held out, and the same people are held out after."""
    from synth.tables import stages

    counted, encoded = [], []
    estimate, encode = stages.estimate_bounds, stages.encode_rows

    def counting(batches: Any, *args: Any, **kwargs: Any) -> Any:
        seen = [*batches]
        counted.extend(age for batch in seen for age in batch.column("age").to_pylist())
        return estimate(seen, *args, **kwargs)

    def encoding(batches: Any, codecs: Any, destination: Path, **kwargs: Any) -> Any:
        if kwargs.get("aside") is None:
            return encode(batches, codecs, destination, **kwargs)
        seen = [*batches]
        stays, aside = kwargs["stays"], kwargs["aside"]
        ages = np.array([age for batch in seen for age in batch.column("age").to_pylist()])[stays]
        encoded.extend(ages[~aside.held_out(0, len(ages))].tolist())
        return encode(seen, codecs, destination, **kwargs)

    monkeypatch.setattr(stages, "estimate_bounds", counting)
    monkeypatch.setattr(stages, "encode_rows", encoding)
    declare(clinic)
    rows = clinic.table.num_rows
    clinic.put("patient_nbr", [f"P{i // 4}" for i in range(rows)])
    clinic.put("age", list(range(rows)))  # each row has its own
    clinic.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 2, "rules": []}
    clinic.run["evaluation"] = {"holdout": 0.3}
    quick_run(clinic.write().run_yaml)
    assert counted == encoded and 0 < len(counted) < rows / 2
    people = [age // 4 for age in counted]
    assert all(people.count(person) == 2 for person in people)


def test_a_refused_value_is_found_before_the_draw(clinic: Any, quick_run: Any, drawn: list[int]) -> None:
    declare(clinic)
    clinic.column("sex")["outside"] = "refuse"
    clinic.put("sex", ["female"] * (clinic.table.num_rows - 1) + ["unheard of"])
    with pytest.raises(Exception, match="encode: InvalidSource"):
        quick_run(clinic.write().run_yaml)
    assert drawn == []
    assert not Ledger.open(clinic.ledger_url, create=False).populations()[0].charged


def test_rows_that_change_once_people_are_counted_are_not_drawn_from(
    clinic: Any, quick_run: Any, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In other rows of the same number, those chosen at random may be more than m of one person."""
    from synth.tables import stages

    def replacing(*args: Any) -> Any:
        yield from read_persons(*args)
        clinic.put("patient_nbr", ["P0"] * clinic.table.num_rows)
        clinic.write()

    read_persons = stages.read_persons
    monkeypatch.setattr(stages, "read_persons", replacing)
    declare(clinic)
    clinic.schema["privacy_unit"] = "patient_nbr"
    with pytest.raises(Exception, match=r"encode: InvalidSource|changed while"):
        quick_run(clinic.write().run_yaml)
    assert drawn == []
    assert not Ledger.open(clinic.ledger_url, create=False).populations()[0].charged


def test_a_value_that_a_file_of_held_out_people_refuses_is_found_before_the_draw(
    clinic: Any, quick_run: Any, drawn: list[int]
) -> None:
    declare(clinic)
    clinic.column("sex")["outside"] = "refuse"
    held_out = clinic.table.set_column(
        clinic.table.column_names.index("sex"), "sex", [["unheard of"] * clinic.table.num_rows]
    )
    pq.write_table(held_out, clinic.run_yaml.parent / "held_out.parquet")
    clinic.run["evaluation"] = {"holdout": "held_out.parquet"}
    with pytest.raises(Exception, match="encode: InvalidSource"):
        quick_run(clinic.write().run_yaml)
    assert drawn == []
    assert not Ledger.open(clinic.ledger_url, create=False).populations()[0].charged


def test_the_long_audit_wants_declared_bounds(clinic: Any, synth: Any) -> None:
    declare(clinic)
    outcome = synth("audit", clinic.run_yaml)
    assert outcome.code == 2 and "bounds of age, bmi, admitted are estimated, and an audit wants them" in outcome.err
