"""`synth contrast` as a user types it, on a bundle that a run has made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def test_of_conditions_against_others(quick_bundle: Path, synth: Any) -> None:
    asked = ("--where", "age>=60", "--where", "sex=male", "--against", "age<40")
    outcome = synth("contrast", quick_bundle, *asked, "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["where"]["conditions"] == ["age>=60", "sex=male"] and found["against"]["conditions"] == ["age<40"]
    assert 0 < found["where"]["share"] < found["against"]["share"] < 1
    assert {shift["column"] for shift in found["shifts"]} == {"bmi", "ward", "grade", "admitted", "died"}
    assert all(shift["measured"] for shift in found["shifts"])  # so small a table has every pair measured
    died = next(shift for shift in found["shifts"] if shift["column"] == "died")
    assert died["level"] == "true" and died["values"][1] > died["values"][0]
    distances = [shift["distance"] for shift in found["shifts"]]
    assert distances == sorted(distances, reverse=True)

    told = synth("contrast", quick_bundle, *asked)
    assert told.code == 0 and told.out.startswith("age<40 (")
    assert "age>=60 and sex=male" in told.out and "true: " in told.out


def test_against_all_rows(quick_bundle: Path, synth: Any) -> None:
    found = json.loads(synth("contrast", quick_bundle, "--where", "died=true", "--json").out)
    assert found["against"] == {"conditions": [], "share": pytest.approx(1.0, abs=1e-12)}
    quality = json.loads((quick_bundle / "quality.json").read_text())["contrast"]
    assert found["where"]["share"] == pytest.approx(quality["shares"][1], rel=1e-3)
    means = {shift["column"]: shift["values"] for shift in found["shifts"] if shift["what"] == "mean"}
    of_class = {shift["column"]: shift["values"] for shift in quality["shifts"] if shift["what"] == "mean"}
    assert means["age"][1] == pytest.approx(of_class["age"][1])  # the same rows, by the command and in the report


def test_what_was_not_measured_is_the_models_guess(quick_bundle: Path, synth: Any, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(quick_bundle, tmp_path / "bundle"))
    quality = json.loads((bundle / "quality.json").read_text())
    measured = quality["pairs"]["measured"]
    quality["pairs"]["measured"] = [pair for pair in measured if set(pair["columns"]) != {"sex", "ward"}]
    (bundle / "quality.json").write_text(json.dumps(quality))
    outcome = synth("contrast", bundle, "--where", "sex=male")
    lines = {line.split()[0]: line for line in outcome.out.splitlines()[2:]}
    assert "the model's guess" in lines["ward"] and "guess" not in lines["age"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--where", "weight=3"), "weight is not a learned column"),
        (("--where", "age>=200"), "from 18 to 90"),
        (("--where", "age>60", "--against", "grade=9"), "outside the declared domain of grade"),
        ((), "--where"),
    ],
)
def test_mistakes(quick_bundle: Path, synth: Any, options: tuple[str, ...], word: str) -> None:
    outcome = synth("contrast", quick_bundle, *options)
    assert (outcome.code, outcome.out) == (2, "") and word in outcome.err


def test_no_bundle_and_half_a_bundle(quick_bundle: Path, synth: Any, tmp_path: Path) -> None:
    nowhere = synth("contrast", tmp_path / "nowhere", "--where", "sex=male")
    assert (nowhere.code, nowhere.err.count("\n")) == (2, 1) and "no such folder" in nowhere.err
    half = Path(shutil.copytree(quick_bundle, tmp_path / "half"))
    (half / "quality.json").write_text("{}")
    damaged = synth("contrast", half, "--where", "sex=male")
    assert (damaged.code, damaged.err.count("\n")) == (4, 1) and "quality.json is missing" in damaged.err
