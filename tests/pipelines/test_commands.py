"""`init`, `schema draft`, `plan` and every `--help`."""

from __future__ import annotations

import json
import math
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from datasheets import load_answers
from synth.config import load_run
from synth.privacy.events import mu_of_choice
from synth.schema import load_schema

HELP = {
    (): ("init", "schema", "plan", "run", "sample", "verify", "budget", "key", "approve", "release", "revoke"),
    ("init",): ("schema.yaml", "run.yaml", "answers.yaml", "Nothing is overwritten"),
    ("schema",): ("draft",),
    ("schema", "draft"): ("domain: unconfirmed", "codebook", "No domain is taken from the values"),
    ("plan",): ("--json", "The source is not opened"),
    ("run",): ("--ledger", "--json", "reserved in the ledger before the first private row is read", "last line"),
    ("sample",): ("--where", "COLUMN=VALUE", "--balance", "--complete", "--seed", "no budget"),
    ("verify",): ("--public-key", "--ledger", "--revocations", "integrity, not origin"),
    ("key", "new"): ("--password-env", "Nothing is overwritten", "SHA-256"),
    ("document",): ("--answers", "Costs no budget", "Only before a decision"),
    ("approve",): ("--by", "--key", "--public-scores-only", "reading the internal report", "$SYNTH_KEY"),
    ("reject",): ("--reason", "stays charged"),
    ("release",): ("DEST", "exactly the approved bytes", "exit 3"),
    ("revoke",): ("--reason", "--revocations", "cannot be called back"),
    ("compare",): ("--json", "costs nothing"),
    ("audit",): ("--bundle", "--public-table", "can refute ε, never prove it", "reserves and spends", "last line"),
    ("budget",): ("show", "history", "verify", "cap"),
    ("budget", "cap"): ("--delta", "refused before it opens its source"),
}


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_teaches(synth: Any, command: tuple[str, ...]) -> None:
    outcome = synth(*command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    shown = " ".join(outcome.out.split())
    assert shown.startswith(" ".join(["Usage: synth", *command]))
    for word in HELP[command]:
        assert word in shown


def test_it_says_which_version_it_is(synth: Any) -> None:
    outcome = synth("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"dp-synth {metadata.version('dp-synth')}\n", "")


# ---- init ----


def test_init_writes_files_that_fit_together(synth: Any, tmp_path: Path, shared: Any) -> None:
    folder = tmp_path / "new" / "study"
    outcome = synth("init", folder)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [str(folder / name) for name in ("schema.yaml", "run.yaml", "answers.yaml")]
    assert shared(folder) == []
    run = load_run(folder / "run.yaml")
    assert run.config.source.path == folder / "data.parquet"
    assert {column.kind for column in run.table.columns} >= {
        "integer",
        "continuous",
        "categorical",
        "datetime",
        "boolean",
    }
    assert load_answers(folder / "answers.yaml").texts == {}
    assert synth("plan", folder / "run.yaml", "--ledger", f"sqlite:///{tmp_path}/ledger.db").code == 0
    refused = synth("run", folder / "run.yaml", "--ledger", f"sqlite:///{tmp_path}/ledger.db")
    assert refused.code == 2 and "data.parquet: no such file" in refused.err


def test_init_overwrites_nothing(synth: Any, tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text("title: mine\n")
    outcome = synth("init", tmp_path)
    assert (outcome.code, outcome.out) == (2, "")
    assert "answers.yaml" in outcome.err and outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["answers.yaml"]
    assert (tmp_path / "answers.yaml").read_text() == "title: mine\n"


# ---- schema draft ----

KINDS = {
    "patient_nbr": "categorical",
    "age": "integer",
    "bmi": "continuous",
    "sex": "categorical",
    "ward": "categorical",
    "grade": "integer",
    "admitted": "datetime",
    "died": "boolean",
    "note": "categorical",
}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_draft_holds_names_and_kinds_and_no_value(clinic: Any, synth: Any, suffix: str) -> None:
    if suffix == "csv":
        clinic.write_csv()
    outcome = synth("schema", "draft", clinic.folder / f"patients.{suffix}")
    assert (outcome.code, outcome.err) == (0, "")
    columns = YAML(typ="safe").load(outcome.out)["columns"]
    assert {column["name"]: column["kind"] for column in columns} == KINDS
    assert all(column["domain"] == "unconfirmed" for column in columns)
    assert "north" not in outcome.out and "Dr " not in outcome.out and "P00" not in outcome.out


def test_a_draft_is_refused_by_a_run_until_it_is_confirmed(clinic: Any, synth: Any) -> None:
    clinic.schema_yaml.unlink()
    outcome = synth("schema", "draft", clinic.source, "-o", clinic.schema_yaml)
    assert (outcome.code, outcome.out) == (0, f"{clinic.schema_yaml}\n")
    assert clinic.schema_yaml.stat().st_mode & 0o077 == 0
    assert {column.name: column.kind for column in load_schema(clinic.schema_yaml).columns} == KINDS
    refused = synth("run", clinic.run_yaml)
    assert (refused.code, refused.out) == (3, "")
    assert "age, bmi" in refused.err
    assert not clinic.out.exists() and not clinic.ledger.exists()


def test_a_draft_does_not_overwrite(clinic: Any, synth: Any) -> None:
    before = clinic.schema_yaml.read_bytes()
    assert synth("schema", "draft", clinic.source, "-o", clinic.schema_yaml).code == 2
    assert clinic.schema_yaml.read_bytes() == before


def test_a_draft_of_odd_names(synth: Any, tmp_path: Path) -> None:
    names = ["no", "a: b", 'say "hi"', "{x}", "1st", "Größe", "#", " lead", "a\\b", "tab\there", "*", "null"]
    pq.write_table(pa.table({name: [1] for name in names}), tmp_path / "odd.parquet")
    outcome = synth("schema", "draft", tmp_path / "odd.parquet")
    assert [column["name"] for column in YAML(typ="safe").load(outcome.out)["columns"]] == names


# ---- plan ----


@pytest.fixture
def sourceless(clinic: Any) -> Any:
    """A clinic whose source is gone: planning never misses it."""
    clinic.source.unlink()
    return clinic


def test_a_plan_in_words(sourceless: Any, synth: Any) -> None:
    before = sourceless.files()
    outcome = synth("plan", sourceless.run_yaml)
    assert (outcome.code, outcome.err) == (0, "")
    assert "Spends    ε=1 at δ=1e-05" in outcome.out
    assert "no cap is set" in outcome.out and "GiB" in outcome.out
    for name in ("age", "bmi", "sex", "ward", "grade", "admitted"):
        assert name in outcome.out
    assert sourceless.files() == before


def test_a_plan_as_json(sourceless: Any, synth: Any) -> None:
    outcome = synth("plan", sourceless.run_yaml, "--json")
    assert outcome.code == 0 and outcome.out.count("\n") == 1
    plan = json.loads(outcome.out)
    assert (plan["population"], plan["epsilon"], plan["delta"]) == ("clinic-patients", 1.0, 1e-5)
    assert (plan["spent_epsilon"], plan["cap"], plan["runs_left"]) == (0.0, None, None)
    squared = 0.0
    for event in plan["events"]:
        ratio = event["sensitivity"] / event["noise_scale"]
        chosen = event["mechanism"] == "exponential"
        squared += event["selections"] * mu_of_choice(ratio) ** 2 if chosen else ratio**2
    assert math.sqrt(squared) == pytest.approx(0.26805, abs=1e-4)
    assert plan["triples_measured"] == 12
    assert {column["name"] for column in plan["columns"]} == {"age", "bmi", "sex", "ward", "grade", "admitted"}
    assert all(column["noise"] > 0 and column["pair_noise"] > 0 for column in plan["columns"])
    # twelve runs a year compose to 4.018 at (1, 1e-5) each
    assert plan["epsilon_after_a_year"]["monthly"] == pytest.approx(4.018, abs=2e-3)


@pytest.mark.parametrize(("cap", "left"), [("0.5", 0), ("1", 1), ("4.02", 12)])
def test_a_plan_says_how_many_runs_are_left(sourceless: Any, synth: Any, cap: str, left: int) -> None:
    assert synth("budget", "cap", "clinic-patients", cap, "--ledger", sourceless.ledger_url).code == 0
    plan = json.loads(synth("plan", sourceless.run_yaml, "--json").out)
    assert (plan["cap"], plan["runs_left"]) == (float(cap), left)
    assert f"room for {left} such run" in synth("plan", sourceless.run_yaml).out


def test_a_plan_needs_no_torch(sourceless: Any, process: Any) -> None:
    outcome = process("plan", sourceless.run_yaml, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert outcome.code == 0
    loaded = {line.rpartition("|")[2].strip() for line in outcome.err.splitlines() if line.startswith("import time:")}
    assert "synth.prepare" in loaded
    assert not {"torch", "prefect", "pytorch_lightning"} & loaded
