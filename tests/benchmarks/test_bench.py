from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FAKE = """
import sys
from exchange import read_task
task = read_task()
if task.method == "broken":
    raise RuntimeError("this peer does not work")
while task.method == "slow":
    pass
table = task.table()
if task.method == "confused":
    table["level"] = 99
if task.method != "silent":
    task.write(table.sample(task.rows, replace=True, random_state=task.seed))
"""
SCHEMA = """
dataset: small
target: answer
columns:
  - {name: number, kind: integer, bounds: [0, 99]}
  - {name: level, kind: categorical, categories: [a, b, c]}
  - {name: answer, kind: boolean}
"""
Run = Callable[..., list[dict[str, str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """bench.py on a small table with a fake peer; the rows of the CSV file."""
    bench, contestants = importlib.import_module("bench"), importlib.import_module("contestants")
    tables = importlib.import_module("tables")
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "fake.py").write_text(FAKE)
    (tmp_path / "peers" / "exchange.py").write_text((Path(bench.HERE) / "peers" / "exchange.py").read_text())
    (tmp_path / "peers" / "elsewhere.txt").write_text("# elsewhere 1.0: nothing\n")
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    rng = np.random.default_rng(0)
    (tmp_path / "data" / "small").mkdir(parents=True)
    for part in ("train", "test"):
        number = rng.integers(0, 100, 120)
        columns = {"number": number, "level": rng.choice(["a", "b", "c"], 120), "answer": number > 50}
        pd.DataFrame(columns).to_parquet(tmp_path / "data" / "small" / f"{part}.parquet")

    class Small(tables.KnownTable):  # type: ignore[name-defined,misc]
        schema_file = tmp_path / "schema.yaml"

    methods = ("works", "broken", "slow", "confused", "silent")
    fakes = {name: contestants.Contestant(name, name, "peer", "fake", name, own_environment=False) for name in methods}
    fakes["absent"] = contestants.Contestant("absent", "absent", "peer", "elsewhere", "absent")
    fakes |= {name: contestants.CONTESTANTS[name] for name in ("real", "others", "resampled")}
    for module in ("bench", "contestants", "page", "plots", "verdicts"):
        monkeypatch.setattr(importlib.import_module(module), "CONTESTANTS", fakes)
    monkeypatch.setattr(bench, "TABLES", {"small": Small("small", tuned=False, shipped=False)})
    monkeypatch.setattr(bench, "HERE", tmp_path)
    monkeypatch.setattr(bench.signal, "signal", lambda *_: None)

    def call(*words: str) -> list[dict[str, str]]:
        out = tmp_path / "peers.csv"
        places = ["--out", str(out), "--work", str(tmp_path / "work"), "--data", str(tmp_path / "data")]
        monkeypatch.setattr(sys, "argv", ["bench.py", *places, *words])
        bench.main()
        with out.open(newline="") as stream:
            return list(csv.DictReader(stream))

    return call


def test_rows_are_appended_kept_and_renewed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run("--peers", "works,real", "--epsilon", "1", "--runs", "1")
    assert [(row["method"], row["epsilon"], row["status"]) for row in first] == [
        ("works", "1", "ok"),
        ("real", "", "ok"),
    ]
    assert float(first[1]["tvd2"]) == 0 and float(first[1]["auc_gbm"]) > 0.9
    assert 0 < float(first[0]["tvd2"]) < 0.5 and float(first[0]["cpu_seconds"]) > 0
    assert first[0]["tuned"] == "no" and float(first[0]["rows"]) == 120
    capsys.readouterr()
    more = run("--peers", "works,real", "--epsilon", "1,3", "--runs", "1")
    assert "small 1 works" not in capsys.readouterr().err
    assert [row["epsilon"] for row in more] == ["1", "3", ""] and [more[0], more[2]] == first
    assert not list((tmp_path / "work" / "runs").iterdir()), "working files of a scored run are removed"
    again = run("--peers", "works", "--epsilon", "1", "--runs", "1", "--again")
    assert "small 1 works" in capsys.readouterr().err
    assert len(again) == 3 and again[0]["tvd2"] == first[0]["tvd2"], "the same seed, the same rows"
    assert "| works | 1 |" in (tmp_path / "peers.md").read_text()
    assert (tmp_path / "peers-small.svg").read_text().startswith("<svg")


def test_rows_drawn_from_the_training_rows_are_near_them_and_no_copy(run: Run) -> None:
    first, second = run("--peers", "resampled", "--epsilon", "1", "--runs", "2")
    assert {row["epsilon"] for row in (first, second)} == {""} and {row["rows"] for row in (first, second)} == {"120"}
    assert 0 < float(first["tvd1"]) < float(first["tvd2"]) < 0.6
    assert first["tvd2"] != second["tvd2"], "each run has a seed of its own"


def test_other_people_are_as_far_as_two_samples_of_one_population() -> None:
    score = importlib.import_module("score")
    columns = [score.Column(name, numeric=True) for name in ("age", "weight", "size")]
    rng = np.random.default_rng(3)

    def people(count: int) -> pd.DataFrame:
        size = rng.normal(size=count)
        return pd.DataFrame({"age": rng.random(count), "weight": size + rng.normal(size=count), "size": size})

    table = people(2000)
    coder = score.Coder(table, columns)
    codes = coder.codes(table)
    others = [score.marginal_distances(codes, coder.codes(people(2000)), coder) for _ in range(10)]
    about = score.distances_of_others(table, columns, 0)
    drawn = score.marginal_distances(codes, coder.codes(table.sample(frac=1.0, replace=True, random_state=0)), coder)
    for name in ("tvd2", "tvd3"):
        true = np.mean([each[name] for each in others])
        assert about[name] == pytest.approx(true, rel=0.1), name
        assert drawn[name] < 0.85 * true, "people drawn from the table itself are nearer"


def test_other_people_are_a_row_of_their_own(run: Run) -> None:
    first, second = run("--peers", "others", "--epsilon", "1", "--runs", "2")
    assert first["epsilon"] == "" and first["status"] == "ok" and not first["auc_gbm"]
    assert 0 < float(first["tvd1"]) < float(first["tvd2"]) < 1
    assert first["tvd2"] != second["tvd2"], "each run has a seed of its own"


def test_what_goes_wrong_is_a_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = importlib.import_module("environment")

    def refuse(requirements: Path, parent: Path) -> Path:
        raise environment.NotInstalled("no such package")

    monkeypatch.setattr(importlib.import_module("bench"), "interpreter", refuse)
    monkeypatch.setattr(importlib.import_module("bench"), "SECONDS_PER_MINUTE", 2)
    monkeypatch.setattr(importlib.import_module("bench"), "WALL_PER_CPU", 300)
    rows = run("--epsilon", "1", "--runs", "1", "--cpu-minutes", "1", "--peers", "broken,confused,silent,absent,slow")
    found = {row["method"]: (row["status"], row["reason"]) for row in rows}
    assert found["broken"] == ("failed", "RuntimeError: this peer does not work")
    assert found["confused"] == ("failed", "its output could not be read: the output holds an unknown code of level")
    assert found["silent"] == ("failed", "it left no rows")
    assert found["absent"] == ("not installed", "no such package")
    assert found["slow"] == ("timeout", "2 seconds of processor time were not enough")
    assert all(row["tvd2"] == "" for row in rows)


def test_a_table_that_is_not_there_is_left_out(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("--peers", "real")
    (tmp_path / "data" / "small" / "test.parquet").unlink()
    rows = run("--peers", "works", "--epsilon", "1", "--runs", "1")
    assert [row["method"] for row in rows] == ["real"]
    assert "left out: --data: no small/train.parquet and small/test.parquet there" in capsys.readouterr().err


def test_the_grid_is_wide_before_it_is_deep() -> None:
    bench = importlib.import_module("bench")
    jobs = bench.grid(["adult", "compas"], ["ours", "real"], [0.3, 1.0], 2)
    assert [job.key for job in jobs] == [
        ("adult", "0.3", "ours", "1"),
        ("adult", "", "real", "1"),
        ("compas", "0.3", "ours", "1"),
        ("compas", "", "real", "1"),
        ("adult", "1", "ours", "1"),
        ("compas", "1", "ours", "1"),
        ("adult", "0.3", "ours", "2"),
        ("compas", "0.3", "ours", "2"),
        ("adult", "1", "ours", "2"),
        ("compas", "1", "ours", "2"),
    ]


def test_every_table_s_schema_and_every_peer_s_requirements_are_there() -> None:
    bench, contestants = importlib.import_module("bench"), importlib.import_module("contestants")
    from synth.schema import load_schema

    for known in bench.TABLES.values():
        schema = load_schema(known.schema_file)
        names = {column.name for column in schema.learned_columns}
        assert schema.dataset == known.name and {schema.target, *known.target_drop} <= names
    for who in contestants.CONTESTANTS.values():
        if who.script:
            assert (bench.HERE / "peers" / f"{who.script}.py").is_file()
        if who.script and who.own_environment:
            first, *pins = (bench.HERE / "peers" / f"{who.script}.txt").read_text().splitlines()
            assert first.startswith("# ") and ":" in first
            assert all("==" in pin and "@" not in pin for pin in pins)


def test_an_environment_is_made_once_and_again_when_its_requirements_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = importlib.import_module("environment")
    calls: list[list[str]] = []

    def record(command: list[str]) -> None:
        calls.append(command)
        (tmp_path / "made" / "peer").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environment, "_run", record)
    monkeypatch.setattr(environment.shutil, "which", lambda name: f"/usr/bin/{name}")
    requirements = tmp_path / "peer.txt"
    requirements.write_text("peer==1\n")
    python = environment.interpreter(requirements, tmp_path / "made")
    assert python == tmp_path / "made" / "peer" / "bin" / "python" and len(calls) == 2
    assert calls[1][-1] == str(requirements)
    environment.interpreter(requirements, tmp_path / "made")
    assert len(calls) == 2
    requirements.write_text("peer==2\n")
    environment.interpreter(requirements, tmp_path / "made")
    assert len(calls) == 4


def test_a_package_that_cannot_be_had_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = importlib.import_module("environment")
    with pytest.raises(environment.NotInstalled, match="no such thing"):
        environment._run([sys.executable, "-c", "import sys; sys.exit('ERROR: no such thing')"])
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    (tmp_path / "peer.txt").write_text("peer==1\n")
    with pytest.raises(environment.NotInstalled, match="not on PATH"):
        environment.interpreter(tmp_path / "peer.txt", tmp_path)


def test_independent_columns_have_the_table_s_histograms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    independent = importlib.import_module("independent")
    exchange = importlib.import_module("exchange")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.choice(3, 20_000, p=[0.7, 0.3, 0.0]), "b": rng.integers(0, 100, 20_000)})
    table.to_parquet(tmp_path / "table.parquet")
    columns = [{"name": "a", "size": 3}, {"name": "b", "size": 100}]
    task = exchange.Task(tmp_path, "", 1.0, 1e-5, 1, 20_000, columns)
    monkeypatch.setattr(independent, "read_task", lambda: task)
    independent.main()
    made = pd.read_parquet(tmp_path / "synthetic.parquet")
    # Everything is seeded, so these are fixed numbers.
    assert np.bincount(made["a"], minlength=3) / 20_000 == pytest.approx([0.7, 0.3, 0.0], abs=0.01)
    assert np.abs(np.bincount(made["b"], minlength=100) / 20_000 - 0.01).sum() / 2 < 0.06
