"""`synth evaluate`: the steward's report, written beside a bundle and never into it."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth.evaluate.internal import models
from synth.schema import load_schema, public_yaml

CLAIMS = {"run": "clinic-1", "epsilon": 1.0, "delta": 1e-5, "mu": 0.268, "privacy_unit": "row"}
NAMES = ("evaluation.html", "evaluation.json")
CANARY = "zq-canary-value"


@pytest.fixture(autouse=True)
def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    forest = models.RandomForestClassifier
    monkeypatch.setattr(models, "RandomForestClassifier", lambda _, **options: forest(5, **options))


@pytest.fixture
def patients(clinic_at: Callable[[Path], Any], tmp_path: Path) -> Callable[..., pa.Table]:
    """Other patients, in the clinic's columns but for those that its bundles do not have."""
    template = clinic_at(tmp_path / "template").table.drop_columns(["patient_nbr", "note"])

    def draw(rows: int, *, seed: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        return pa.table(
            {n: template[n].take(pa.array(rng.integers(0, len(template), rows))) for n in template.column_names}
        )

    return draw


@pytest.fixture
def bundle(clinic: Any, patients: Callable[..., pa.Table]) -> Path:
    """What `synth evaluate` reads of a bundle, in a run folder; its rows are independent of the clinic's."""
    run = clinic.folder / "out" / "clinic-1"
    (run / "bundle" / "data").mkdir(parents=True)
    (run / "internal").mkdir()
    for name, path in (("run.yaml", clinic.run_yaml), ("schema.yaml", clinic.schema_yaml)):
        (run / "internal" / name).write_bytes(path.read_bytes())
    (run / "internal" / "run.json").write_text(json.dumps({"file": str(clinic.run_yaml), "created": "2026"}))
    (run / "bundle" / "schema.yaml").write_text(public_yaml(load_schema(clinic.schema_yaml)))
    (run / "bundle" / "privacy.json").write_text(json.dumps({"x_synth": CLAIMS}))
    pq.write_table(patients(300, seed=2), run / "bundle" / "data" / "part-00000.parquet")
    return run / "bundle"


@pytest.fixture
def held_out(clinic: Any, patients: Callable[..., pa.Table]) -> Path:
    path = clinic.folder / "test.parquet"
    pq.write_table(patients(200, seed=3), path)
    return path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_beside_the_bundle_with_the_runs_source(synth: Any, bundle: Path, held_out: Path) -> None:
    before = {name: (bundle / name).read_bytes() for name in files(bundle)}
    done = synth("evaluate", bundle, "--real", held_out)
    assert done.code == 0, done.err
    internal = bundle.parent / "internal"
    assert done.out.splitlines()[-1] == str(internal.resolve() / "evaluation.html")
    assert {name: (bundle / name).read_bytes() for name in files(bundle)} == before
    for name in NAMES:
        assert stat.S_IMODE((internal / name).stat().st_mode) == 0o600
    report = json.loads((internal / "evaluation.json").read_text())
    assert {name: size["total"] for name, size in report["tables"].items()} == {
        "real": 200,
        "synthetic": 300,
        "training": 400,
    }
    assert report["alarms"] == []
    assert report["subject"]["intact"] is False  # this bundle has no manifest
    assert report["utility"]["target"] == "died"
    assert len(report["disclosure"]["inference"]) == 7


def test_copied_training_rows_ring(synth: Any, clinic: Any, bundle: Path, held_out: Path, tmp_path: Path) -> None:
    data = bundle / "data" / "part-00000.parquet"
    table = pq.read_table(data)
    copied = clinic.table.select(table.column_names).slice(0, 60)
    pq.write_table(pa.concat_tables([table.slice(60), copied.cast(table.schema)]), data)
    done = synth("evaluate", bundle, "--real", held_out, "--out", tmp_path / "new" / "report", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == {
        key: str((tmp_path / "new" / "report" / name).resolve())
        for key, name in zip(("page", "report"), NAMES, strict=True)
    }
    assert stat.S_IMODE((tmp_path / "new" / "report").stat().st_mode) == 0o700
    report = json.loads(Path(found["report"]).read_text())
    assert report["disclosure"]["copies"]["synthetic_rows"] == 60
    assert any(alarm.startswith("Copies: 60") for alarm in report["alarms"])
    assert not (bundle.parent / "internal" / "evaluation.html").exists()


def test_the_learned_rows_are_no_control_group(synth: Any, clinic: Any, bundle: Path) -> None:
    done = synth("evaluate", bundle, "--real", clinic.source)
    assert done.code == 0, done.err
    report = json.loads((bundle.parent / "internal" / "evaluation.json").read_text())
    assert "training" not in report["tables"] and report["disclosure"]["membership"] is None
    assert any("no control group" in note for note in report["notes"])
    refused = synth("evaluate", bundle, "--real", clinic.source, "--training", clinic.source)
    assert refused.code == 2 and "is the file of --real" in refused.err


def test_a_bundle_that_has_moved(synth: Any, bundle: Path, held_out: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "b"
    moved.parent.mkdir()
    bundle.rename(moved)
    refused = synth("evaluate", moved, "--real", held_out)
    assert refused.code == 2 and "--out" in refused.err
    done = synth(
        "evaluate", moved, "--real", held_out, "--out", tmp_path / "report", "--target", "ward", "--subgroup", "sex"
    )
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert any("Name them with --training" in note for note in report["notes"])
    assert report["utility"]["target"] == "ward" and report["utility"]["metric"] == "mean AUC"
    assert {s["column"] for s in report["utility"]["subgroups"]} == {"sex"}


@pytest.mark.parametrize("inside", [".", "data", "data/../new", "new/deep"])
def test_never_into_the_bundle(synth: Any, bundle: Path, held_out: Path, inside: str) -> None:
    before = files(bundle)
    refused = synth("evaluate", bundle, "--real", held_out, "--out", bundle / inside)
    assert refused.code == 2 and "lies in a bundle" in refused.err and refused.err.count("\n") == 1
    assert files(bundle) == before and not (bundle / "new").exists()


def test_never_into_the_bundle_by_a_link(synth: Any, bundle: Path, held_out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle / "data")
    assert synth("evaluate", bundle, "--real", held_out, "--out", tmp_path / "link").code == 2
    assert files(bundle / "data") == {"part-00000.parquet"}


@pytest.mark.parametrize("other", ["other/bundle", "other/private/bundle.partial"])
def test_never_into_another_bundle_or_a_draft(
    synth: Any, bundle: Path, held_out: Path, tmp_path: Path, other: str
) -> None:
    inside = tmp_path / other
    (inside / "data").mkdir(parents=True)
    if inside.name == "bundle":
        (inside / "manifest.json").write_text("{}")
    before = files(tmp_path / "other")
    (tmp_path / "link").symlink_to(inside / "data")
    for out in (inside, inside / "data", inside / "new", tmp_path / "link"):
        refused = synth("evaluate", bundle, "--real", held_out, "--out", out)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert "lies in a bundle" in refused.err
    assert files(tmp_path / "other") == before and not (inside / "new").exists()


def test_a_target_of_a_single_value_is_told_in_the_report_alone(
    synth: Any, clinic: Any, bundle: Path, held_out: Path
) -> None:
    """It depends on exact rows, so neither exit code nor terminal may tell, whatever was asked for."""
    table = pq.read_table(held_out)
    alike = clinic.folder / "alike.parquet"
    pq.write_table(table.set_column(table.column_names.index("died"), "died", pa.array([True] * len(table))), alike)
    told = []
    for real in (held_out, alike):
        done = synth("evaluate", bundle, "--real", real, "--subgroup", "sex")
        report = json.loads((bundle.parent / "internal" / "evaluation.json").read_text())
        told.append((done.code, done.out, done.err))
        assert (report["utility"] is None) == (real == alike)
    assert told[0] == told[1] and told[0][0] == 0
    assert "Utility was left out: died has a single value in one of the tables." in report["notes"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--real": "missing.parquet"}, "missing.parquet: no such file"),
        ({"--training": "missing.parquet"}, "missing.parquet: no such file"),
        ({"--target": "weight"}, "--target weight: is not a column"),
        ({"--subgroup": "weight"}, "--subgroup weight: is not a column"),
        ({"--subgroup": "age"}, "--subgroup age: is not a column of levels"),
        ({"--out": "test.parquet"}, "cannot be made"),
    ],
)
def test_mistakes(synth: Any, clinic: Any, bundle: Path, held_out: Path, options: dict[str, str], words: str) -> None:
    paths = {"--real", "--training", "--out"}
    given = {"--real": str(held_out)} | {k: str(clinic.folder / v) if k in paths else v for k, v in options.items()}
    refused = synth("evaluate", bundle, *(word for option in given.items() for word in option))
    assert (refused.code, refused.out) == (2, "")
    assert words in refused.err
    assert not (bundle.parent / "internal" / "evaluation.html").exists()


def test_bundles_that_are_none(synth: Any, bundle: Path, held_out: Path, tmp_path: Path) -> None:
    assert synth("evaluate", tmp_path / "nowhere", "--real", held_out).code == 2
    (bundle / "privacy.json").write_text("{}")
    refused = synth("evaluate", bundle, "--real", held_out)
    assert refused.code == 4 and refused.err.count("\n") == 1


def test_damaged_rows(synth: Any, bundle: Path, held_out: Path) -> None:
    data = bundle / "data" / "part-00000.parquet"
    data.write_bytes(data.read_bytes()[:-300])
    refused = synth("evaluate", bundle, "--real", held_out)
    assert refused.code == 4 and "its data is damaged" in refused.err


def test_a_failure_quotes_no_value(synth: Any, bundle: Path, held_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(CANARY)

    monkeypatch.setattr("synth.evaluate.internal.report.fidelity", fail)
    failed = synth("evaluate", bundle, "--real", held_out)
    assert failed.code == 1 and "evaluate failed with ValueError" in failed.err
    kept = (bundle.parent / "internal" / "failure-evaluate.txt").read_text()
    assert CANARY not in failed.err + failed.out + kept


def test_no_value_of_a_person_in_the_report(synth: Any, clinic: Any, bundle: Path, tmp_path: Path) -> None:
    """An undeclared level, and a column that the schema does not name."""
    table = clinic.table.set_column(clinic.table.column_names.index("ward"), "ward", pa.array([CANARY] * 400))
    path = tmp_path / "real.parquet"
    pq.write_table(table, path)
    done = synth("evaluate", bundle, "--real", path)
    assert done.code == 0, done.err
    for name in NAMES:
        text = (bundle.parent / "internal" / name).read_text()
        assert CANARY not in text and "seen by Dr" not in text


def test_help(synth: Any) -> None:
    shown = synth("evaluate", "--help")
    assert shown.code == 0
    assert "For the steward alone" in " ".join(shown.out.split())
