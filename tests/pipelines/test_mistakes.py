"""A user's mistakes: the contract's exit code, one line, no private value, nothing left behind, and soon."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SECRET = "Q7-secret-cell"  # in every text cell of the tables here, so that no message can quote one unnoticed

Change = Callable[[Any], Any]


@pytest.fixture
def clinic(clinic: Any) -> Any:
    clinic.put("note", [SECRET] * clinic.table.num_rows)
    return clinic.write()


def _set(*keys: str, to: Any) -> Change:
    """Set a value of run.yaml; None removes it."""

    def change(clinic: Any) -> None:
        section = clinic.run
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        section[keys[-1]] = to
        if to is None:
            del section[keys[-1]]
        clinic.write()

    return change


def _declare(**top: Any) -> Change:
    """Set top-level values of schema.yaml."""

    def change(clinic: Any) -> None:
        clinic.schema |= top
        clinic.write()

    return change


def _column(name: str, **changes: Any) -> Change:
    """Change a column's declaration; None removes a key."""

    def change(clinic: Any) -> None:
        column = clinic.column(name)
        column |= changes
        for key in [key for key, value in column.items() if value is None]:
            del column[key]
        clinic.write()

    return change


def _text(name: str, content: bytes | str) -> Change:
    """Replace one of the clinic's files."""

    def change(clinic: Any) -> None:
        (clinic.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def _folder(name: str) -> Change:
    def change(clinic: Any) -> None:
        (clinic.folder / name).unlink(missing_ok=True)
        (clinic.folder / name).mkdir()

    return change


def _gone(name: str) -> Change:
    return lambda clinic: (clinic.folder / name).unlink()


def _all(*changes: Change) -> Change:
    def change(clinic: Any) -> None:
        for one in changes:
            one(clinic)

    return change


def _cells(name: str, values: Callable[[int], list[Any]], kind: pa.DataType | None = None) -> Change:
    def change(clinic: Any) -> None:
        clinic.put(name, values(clinic.table.num_rows), kind)
        clinic.write()

    return change


def _rename(old: str, new: str) -> Change:
    def change(clinic: Any) -> None:
        names = [new if name == old else name for name in clinic.table.column_names]
        clinic.table = clinic.table.rename_columns(names)
        pq.write_table(clinic.table, clinic.source)

    return change


def _no_rows(clinic: Any) -> None:
    clinic.table = clinic.table.slice(0, 0)
    clinic.write()


def _as_csv(clinic: Any) -> None:
    clinic.write_csv()


def _truncated(clinic: Any) -> None:
    clinic.source.write_bytes(clinic.source.read_bytes()[:-300])


def _without_end(clinic: Any) -> None:
    clinic.source.write_bytes(clinic.source.read_bytes()[:200])


ANSWERS = "answers.yaml"
# what is wrong → how it comes about, and a word that the line must hold
MISTAKES: dict[str, tuple[Change, str]] = {
    # run.yaml
    "unknown key": (_set("epsilonn", to=1), "epsilonn: unknown key"),
    "misspelt key": (_set("synthesiser", to={}), "did you mean synthesizer"),
    "unknown key in a section": (_set("privacy", "epsilonn", to=1), "privacy.epsilonn: unknown key"),
    "negative epsilon": (_set("privacy", "epsilon", to=-1), "privacy.epsilon"),
    "epsilon of zero": (_set("privacy", "epsilon", to=0), "privacy.epsilon"),
    "epsilon as a word": (_set("privacy", "epsilon", to="much"), "privacy.epsilon"),
    "epsilon as truth": (_set("privacy", "epsilon", to=True), "privacy.epsilon"),
    "epsilon not a number": (_set("privacy", "epsilon", to=float("nan")), "privacy"),
    "epsilon without end": (_set("privacy", "epsilon", to=1e9), "privacy.epsilon"),
    "epsilon absent": (_set("privacy", "epsilon", to=None), "privacy.epsilon: is required"),
    "delta of one": (_set("privacy", "delta", to=1), "privacy.delta"),
    "delta of zero": (_set("privacy", "delta", to=0), "privacy.delta"),
    "delta as a list": (_set("privacy", "delta", to=[1e-5]), "privacy.delta"),
    "no privacy": (_set("privacy", to=None), "privacy: is required"),
    "no source": (_set("source", to=None), "source: is required"),
    "empty source": (_set("source", to={}), "source.path: is required"),
    "source as a number": (_set("source", "path", to=3), "source.path"),
    "no schema": (_set("schema", to=None), "schema"),
    "schema as a number": (_set("schema", to=3), "schema"),
    "no steps": (_set("synthesizer", "steps", to=0), "synthesizer.steps"),
    "steps as a word": (_set("synthesizer", "steps", to="many"), "synthesizer.steps"),
    "half a member": (_set("synthesizer", "members", to=0.5), "synthesizer.members"),
    "negative rows": (_set("output", "rows", to=-5), "output.rows"),
    "rows as a word": (_set("output", "rows", to="all"), "output.rows"),
    "a name with a path": (_set("name", to="../up"), "name"),
    "a negative critic": (_set("synthesizer", "critic_share", to=-0.5), "critic_share"),
    "a critic above all": (_set("synthesizer", "critic_share", to=2), "critic_share"),
    "a critic too small": (_set("synthesizer", "critic_share", to=1e-9), "raise the share, or set it to 0"),
    "a critic with a key too many": (_set("synthesizer", "critic", to={"batch_size": 9}), "batch_size"),
    "a hold-out above all": (_set("evaluation", "holdout", to=2), "holdout"),
    "a variable that is not set": (_set("source", "path", to="${NOT_SET_HERE}.parquet"), "${NOT_SET_HERE}"),
    "no ledger url": (_set("ledger", "url", to="ledger.db"), "sqlite:///"),
    "a folder as ledger": (_all(_set("ledger", "url", to="sqlite:///kept"), _folder("kept")), "is a folder"),
    "text as ledger": (_text("ledger.db", "not a database, but long enough to look at " * 9), "not a database"),
    "output below a file": (_set("output", "directory", to="run.yaml/out"), "output.directory"),
    "a file as output": (_set("output", "directory", to="run.yaml"), "output.directory"),
    "a hold-out file that is not there": (
        _set("evaluation", "holdout", to="test.parquet"),
        "evaluation.holdout: source ",
    ),
    "a hold-out file that is the source": (_set("evaluation", "holdout", to="patients.parquet"), "is the source"),
    "a hold-out without a target": (
        _all(_set("evaluation", "holdout", to=0.2), _declare(target=None)),
        "evaluation.holdout: needs a target",
    ),
    "no database as source there": (
        _set("source", to={"url": "postgresql://ada:hunter2@127.0.0.1:1/db", "query": "select 1"}),
        "source (PostgreSQL): cannot be reached",
    ),
    "a source that is no URL": (
        _set("source", to={"url": "postgresql://ada:hunter2@[127.0.0.1:1/db", "query": "select 1"}),
        "source (PostgreSQL): cannot be reached",
    ),
    "another database as source": (
        _set("source", to={"url": "mysql://ada:hunter2@127.0.0.1:1/db", "query": "select 1"}),
        "source.url: a database as source is PostgreSQL",
    ),
    "a database without a query": (_set("source", to={"url": "postgresql://h/d"}), "source.query: is required"),
    "a query without a database": (_set("source", to={"query": "select 1"}), "source.url: is required"),
    "a file and a query": (_set("source", "query", to="select 1"), "source: give either a `path`"),
    "images as source": (_set("source", to={"folder": "scans", "labels": "l.csv"}), "source.folder: is for images"),
    "no PostgreSQL there": (_set("ledger", "url", to="postgresql://ada:hunter2@127.0.0.1:1/db"), "cannot be reached"),
    "several rows a person": (_declare(max_rows_per_person=3), "person column"),
    "a sum of no columns": (_declare(rules=["age = a + b"]), "rule age = a + b: a is not a declared column"),
    "a rule about a value": (_declare(rules=["age > 3"]), "compares a column with a value"),
    "images with columns": (_declare(kind="image"), "columns: a schema of images declares"),
    "estimated bounds that refuse": (_column("age", bounds="estimate", outside="refuse"), "declare the bounds"),
    "estimated bounds by another name": (_column("age", bounds_are="to estimate"), "`bounds: estimate`"),
    "estimated bounds of categories": (_column("sex", bounds="estimate"), "sex.bounds: unknown key here (another kind"),
    "estimated bounds, misspelt": (_column("age", bounds="estimated"), "[lowest, highest], or the word estimate"),
    "a sum within estimated bounds": (
        _all(_column("age", bounds="estimate"), _declare(rules=["bmi = age + bmi"])),
        "age has `bounds: estimate`",
    ),
    "a map into estimated bounds": (
        _all(
            _column("age", bounds="estimate"),
            _declare(rules=[{"determines": ["sex", "age"], "map": {"female": 30, "male": 40}}]),
        ),
        "names values of age, whose bounds are estimated",
    ),
    "a database's rows held out, bounds estimated": (
        _all(
            _set("source", to={"url": "postgresql://127.0.0.1:1/db", "query": "select 1"}),
            _set("evaluation", to={"holdout": 0.2}),
            _column("age", bounds="estimate"),
        ),
        "a share is not offered for a database without a person column where bounds are estimated (age)",
    ),
    # schema.yaml
    "no bounds": (_column("age", bounds=None), "column age.bounds: is required"),
    "reversed bounds": (_column("age", bounds=[90, 18]), "column age: bounds are reversed"),
    "one bound": (_column("age", bounds=[18]), "column age.bounds"),
    "bounds as words": (_column("age", bounds=["young", "old"]), "column age.bounds"),
    "reversed dates": (_column("admitted", bounds=["2021-01-01", "2015-01-01"]), "column admitted: bounds"),
    "no date": (_column("admitted", bounds=["2021-13-01", "2022-01-01"]), "column admitted.bounds"),
    "no categories": (_column("sex", categories=None), "column sex.categories: is required"),
    "empty categories": (_column("sex", categories=[]), "column sex.categories"),
    "a category twice": (_column("grade", categories=[1, 1.0]), "twice"),
    "an unknown kind": (_column("age", kind="number"), "column age"),
    "an unknown key of a column": (_column("age", boundz=[1, 2]), "boundz: unknown key"),
    "missing values where none may be": (_column("sex", outside="missing"), "nullable"),
    "an unknown target": (_declare(target="dead"), "did you mean died"),
    "an id as target": (_declare(target="patient_nbr"), "target"),
    "a negative row count": (_declare(row_count=-1), "row_count"),
    "a row count in words": (_declare(row_count="many"), "row_count"),
    "a column declared twice": (
        _all(lambda clinic: clinic.columns.append(clinic.column("age")), lambda clinic: clinic.write()),
        "column age: declared twice",
    ),
    "no columns": (_all(lambda clinic: clinic.columns.clear(), lambda clinic: clinic.write()), "columns"),
    # files that are not what they should be
    **{
        f"{what} as {name}": (change(name), word)
        for name in ("run.yaml", "schema.yaml", ANSWERS)
        for what, change, word in (
            ("a folder", _folder, "is a folder"),
            ("broken YAML", lambda name: _text(name, "a: [1,\nb: }"), "broken YAML, line 2"),
            ("a list", lambda name: _text(name, "- 1\n- 2\n"), "must be a mapping"),
            ("Latin-1", lambda name: _text(name, "title: Klinikübersicht".encode("latin-1")), "not UTF-8"),
            ("binary garbage", lambda name: _text(name, bytes(range(128, 256)) * 4), "not UTF-8"),
            ("control characters", lambda name: _text(name, "a: \0\1\2"), "broken YAML"),
        )
    },
    "an empty run.yaml": (_text("run.yaml", ""), "must be a mapping"),
    "an empty schema.yaml": (_text("schema.yaml", ""), "must be a mapping"),
    "nothing as run.yaml": (_gone("run.yaml"), "no such file"),
    "nothing as schema.yaml": (_gone("schema.yaml"), "no such file"),
    "nothing as source": (_gone("patients.parquet"), "no such file"),
    "an unknown question": (_text(ANSWERS, "motivation.purpos: x"), "motivation.purpos: unknown question"),
    "an answer that is no text": (_text(ANSWERS, "title: 3"), "title: must be text"),
    "a folder as source": (_folder("patients.parquet"), "is a folder"),
    "an empty source file": (_text("patients.parquet", ""), "is empty"),
    "text named .parquet": (_text("patients.parquet", f"age,sex\n40,{SECRET}\n"), "is not a Parquet file"),
    "garbage named .parquet": (_text("patients.parquet", bytes(range(128, 256)) * 9), "is not a Parquet file"),
    "garbage behind Parquet's mark": (_text("patients.parquet", b"PAR1" + bytes(range(256))), "truncated Parquet"),
    "a truncated Parquet file": (_truncated, "truncated Parquet"),
    "a Parquet file without its end": (_without_end, "truncated Parquet"),
    "garbage named .csv": (_all(_as_csv, _text("patients.csv", bytes(range(128, 256)) * 9)), "neither Parquet nor"),
    "Latin-1 in a header": (_all(_as_csv, _text("patients.csv", "Größe\n1\n".encode("latin-1"))), "neither Parquet"),
    # the source against the schema
    "text for integer": (_cells("age", lambda n: [SECRET] * n), "column age is string and cannot hold kind integer"),
    "text for continuous": (_cells("bmi", lambda n: ["25.1"] * n), "column bmi is string"),
    "text for boolean": (_cells("died", lambda n: ["yes"] * n), "column died is string"),
    "dates for integer": (_cells("age", lambda n: [0] * n, pa.timestamp("us")), "column age is timestamp"),
    "numbers for datetime": (_cells("admitted", lambda n: [0] * n), "column admitted is int64"),
    "lists for text": (_cells("sex", lambda n: [[SECRET]] * n), "column sex is list"),
    "a missing column": (_rename("bmi", "bmi2"), "column bmi is missing (did you mean bmi2?)"),
    "a column twice": (_rename("note", "age"), "column age appears 2 times"),
    "a missing column of a CSV": (_all(_rename("bmi", "weight"), _as_csv), "column bmi is missing"),
    "a column twice in a CSV": (_all(_rename("note", "age"), _as_csv), "column age appears 2 times"),
    "no rows": (_no_rows, "has no rows"),
    "no rows of a CSV": (_all(_no_rows, _as_csv), "no rows"),
    "an empty CSV": (_all(_as_csv, _text("patients.csv", "")), "is empty"),
}


def refused(outcome: Any, code: int, word: str) -> None:
    """One line that says what is wrong, and nothing private."""
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert outcome.err.startswith("synth: ") and outcome.err.count("\n") == 1
    assert word in outcome.err
    assert not any(leak in outcome.err for leak in (SECRET, "hunter2", "Traceback"))


@pytest.mark.parametrize(("change", "word"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_costs_nothing(clinic: Any, synth: Any, change: Change, word: str) -> None:
    change(clinic)
    before = clinic.files()
    refused(synth("run", clinic.run_yaml), 2, word)
    assert clinic.files() == before


def test_all_problems_are_told_together(clinic: Any, synth: Any) -> None:
    _set("privacy", "epsilon", to=-1)(clinic)
    _set("output", "rows", to="all")(clinic)
    _column("age", bounds=[9, 1])(clinic)
    _declare(target="dead")(clinic)
    outcome = synth("run", clinic.run_yaml)
    for word in ("privacy.epsilon", "output.rows", "column age: bounds are reversed", "target"):
        refused(outcome, 2, word)


def test_an_unconfirmed_domain_is_refused_by_privacy(clinic: Any, synth: Any) -> None:
    _column("age", domain="unconfirmed")(clinic)
    before = clinic.files()
    refused(synth("run", clinic.run_yaml), 3, "the domain of age")
    refused(synth("plan", clinic.run_yaml), 3, "the domain of age")
    assert clinic.files() == before


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(_cells("sex", lambda n: ["female"] * (n - 1) + [SECRET]), id="category"),
        pytest.param(_cells("sex", lambda n: ["female"] * (n - 1) + [None]), id="missing"),
        pytest.param(_cells("age", lambda n: [40] * (n - 1) + [8675309]), id="number"),
        pytest.param(_cells("admitted", lambda n: ["2016-01-01"] * (n - 1) + ["1971-07-08"]), id="date"),
    ],
)
def test_outside_refuse_stops_before_the_first_draw(clinic: Any, synth: Any, spoil: Change) -> None:
    for name in ("sex", "age", "admitted"):
        _column(name, outside="refuse")(clinic)
    spoil(clinic)
    before = clinic.files()
    outcome = synth("run", clinic.run_yaml)
    lines = outcome.err.splitlines()
    assert (outcome.code, outcome.out) == (2, "")
    assert lines[-1].startswith("synth: source: column") and "outside: refuse" in lines[-1]
    assert [line.split(":")[0] for line in lines[:-1]] == ["prepare", "reserve"]
    assert not any(value in outcome.err for value in (SECRET, "8675309", "1971"))
    assert clinic.files() - before == {"ledger.db", "out"} and list(clinic.out.iterdir()) == []
    shown = json.loads(synth("budget", "show", "clinic-patients", "--ledger", clinic.ledger_url, "--json").out)
    assert (shown["epsilon"], shown["charged_runs"], len(shown["void_runs"])) == (0, [], 1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("fly",), "No such command"),
        (("run",), "Missing argument"),
        (("run", "run.yaml", "--fast"), "No such option"),
        (("run", "run.yaml", "--resume"), "no run of it is in"),
        (("run", "run.yaml", "again.yaml"), "again.yaml"),
        (("run", "run.yaml", "--ledger", "nowhere"), "sqlite:///"),
        (("plan", "nowhere.yaml"), "no such file"),
        (("sample", "bundle"), "Missing option"),
        (("sample", "bundle", "--rows", "many", "-o", "x"), "--rows"),
        (("verify", "nowhere"), "no such folder"),
        (("verify",), "Missing argument"),
        (("verify", "out", "--ledger", "nowhere"), "sqlite:///"),
        (("schema", "draft", "nowhere.csv"), "no such file"),
        (("schema", "draft", "."), "is a folder"),
        (("schema", "draft", "empty.csv"), "is empty"),
        (("schema", "draft", "patients.parquet", "-o", "run.yaml"), "exists already"),
        (("schema", "write"), "No such command"),
        (("init", "."), "holds"),
        (("init", "run.yaml/new"), "cannot be written"),
        (("budget", "cap", "clinic-patients", "much"), "epsilon"),
        (("budget", "cap", "clinic-patients", "-1"), ""),
        (("budget", "fly"), "No such command"),
    ],
)
def test_a_wrong_command_line(
    clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], word: str
) -> None:
    monkeypatch.chdir(clinic.folder)
    (clinic.folder / "empty.csv").touch()
    before = clinic.files()
    refused(synth(*arguments), 2, word)
    assert clinic.files() == before


@pytest.mark.parametrize("group", [(), ("schema",), ("budget",)])
def test_no_command_shows_the_help(synth: Any, group: tuple[str, ...]) -> None:
    outcome = synth(*group)
    assert (outcome.code, outcome.out) == (2, "")
    assert "Usage: synth" in outcome.err and "Commands" in outcome.err


def test_mistakes_are_told_before_torch_and_prefect_are_loaded(clinic: Any) -> None:
    _cells("age", lambda n: [SECRET] * n)(clinic)
    script = f"""
import sys
sys.argv = ["synth", "run", {str(clinic.run_yaml)!r}]
from pipelines.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 2
print(sorted({{"torch", "prefect", "pytorch_lightning"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr.count("\n") == 1


def test_a_fault_is_one_line_without_a_traceback(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr("synth.prepare.check_header", fail)
    refused(synth("run", clinic.run_yaml), 1, "ValueError")
    monkeypatch.setattr("pipelines.cli.draft_schema", fail)
    refused(synth("schema", "draft", clinic.source), 1, "ValueError")


def test_secrets_of_the_environment_are_not_repeated(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARD_SECRET", SECRET)
    _set("source", "path", to="${WARD_SECRET}/${UNSET_HERE}")(clinic)
    refused(synth("run", clinic.run_yaml), 2, "UNSET_HERE")
    _set("source", "path", to="patients.parquet")(clinic)
    _set("synthesizer", "steps", to="${WARD_SECRET}")(clinic)
    refused(synth("run", clinic.run_yaml), 2, "synthesizer.steps")
    _set("synthesizer", "steps", to=20)(clinic)
    _set("ledger", "url", to="postgresql://${WARD_SECRET}@127.0.0.1:1/db")(clinic)
    refused(synth("run", clinic.run_yaml), 2, "SQL")


def test_a_path_may_come_from_the_environment(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATIENTS", "patients.parquet")
    _set("source", "path", to="${PATIENTS}")(clinic)
    assert synth("plan", clinic.run_yaml).code == 0
    assert Path(clinic.source).exists()
