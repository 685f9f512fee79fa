"""A made-up clinic and the command line: in this process, as a process of its own, or stalled at a chosen place."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from datasheets.questions import steward_questions
from pipelines import quiet
from synth.privacy.noise import NoiseSource

sys.path.insert(0, str(Path(__file__).parent))  # for `operations`, which several modules share

ROWS = 400
COLUMNS: list[dict[str, Any]] = [
    {"name": "patient_nbr", "kind": "id"},
    {"name": "age", "kind": "integer", "bounds": [18, 90]},
    {"name": "bmi", "kind": "continuous", "bounds": [10, 60], "decimals": 1, "nullable": True},
    {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
    {"name": "ward", "kind": "categorical", "categories": ["north", "south", "east"], "nullable": True},
    {"name": "grade", "kind": "categorical", "categories": [1, 2, 3]},
    {"name": "admitted", "kind": "datetime", "bounds": ["2015-01-01", "2021-01-01"], "resolution": "day"},
    {"name": "died", "kind": "boolean"},
]
SCHEMA: dict[str, Any] = {
    "dataset": "clinic",
    "population": "clinic-patients",
    "privacy_unit": "row",
    "row_count": "private",
    "target": "died",
}
RUN: dict[str, Any] = {
    "source": {"path": "patients.parquet"},
    "schema": "schema.yaml",
    "privacy": {"epsilon": 1.0, "delta": 1e-5},
    "synthesizer": {"steps": 20, "members": 1, "latent_points": 16, "hidden_size": 16},
    "output": {"directory": "out"},
    "ledger": {"url": "sqlite:///ledger.db"},
}
DATABASE_TYPES = {
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.string(): "varchar(40)",
    pa.timestamp("us"): "timestamp",
    pa.bool_(): "boolean",
}


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def bundle(self) -> Path:
        """The bundle that a successful run has printed."""
        assert self.code == 0, self.err
        return Path(self.out.splitlines()[-1])


class Clinic:
    """A folder with a table of patients, its schema.yaml and its run.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.columns = deepcopy(COLUMNS)
        self.schema = deepcopy(SCHEMA)
        self.run = deepcopy(RUN)
        self.table = patients(ROWS)
        self.write()

    @property
    def run_yaml(self) -> Path:
        return self.folder / "run.yaml"

    @property
    def schema_yaml(self) -> Path:
        return self.folder / "schema.yaml"

    @property
    def source(self) -> Path:
        return self.folder / "patients.parquet"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.db"

    @property
    def ledger_url(self) -> str:
        return f"sqlite:///{self.ledger}"

    def column(self, name: str) -> dict[str, Any]:
        """The declaration of a column, to be changed in place before `write`."""
        return next(column for column in self.columns if column["name"] == name)

    def put(self, name: str, values: Any, kind: pa.DataType | None = None) -> None:
        """Replace a column of the table."""
        self.table = self.table.set_column(self.table.column_names.index(name), name, pa.array(values, kind))

    def write(self) -> Clinic:
        """Write table, schema and run as they are now. JSON is YAML."""
        pq.write_table(self.table, self.source)
        self.schema_yaml.write_text(json.dumps(self.schema | {"columns": self.columns}, default=str))
        self.run_yaml.write_text(json.dumps(self.run))
        return self

    def write_csv(self) -> None:
        """Keep the table as patients.csv instead."""
        self.source.unlink(missing_ok=True)
        pa.csv.write_csv(self.table, self.folder / "patients.csv")
        self.run["source"] = {"path": "patients.csv"}
        self.run_yaml.write_text(json.dumps(self.run))

    def copy_into(self, connection: psycopg.Connection[Any], name: str) -> None:
        """Make the table in a database."""
        columns = ", ".join(f"{field.name} {DATABASE_TYPES[field.type]}" for field in self.table.schema)
        connection.execute(f"CREATE TABLE {name} ({columns})")
        with connection.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
            for row in self.table.to_pylist():
                copy.write_row(tuple(row.values()))

    def files(self) -> set[str]:
        """Everything that lies in the folder."""
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}


def patients(rows: int, seed: int = 1) -> pa.Table:
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 91, rows)
    bmi = np.round(np.clip(rng.normal(26, 4, rows), 10, 60), 1).astype(object)
    bmi[rng.random(rows) < 0.1] = None
    ward = rng.choice(["north", "south", "east"], rows, p=[0.5, 0.3, 0.2]).astype(object)
    ward[rng.random(rows) < 0.1] = None
    admitted = [datetime(2015, 1, 1) + timedelta(days=int(day)) for day in rng.integers(0, 2000, rows)]
    return pa.table(
        {
            "patient_nbr": [f"P{i:05d}" for i in range(rows)],
            "age": age,
            "bmi": pa.array(bmi.tolist(), pa.float64()),
            "sex": rng.choice(["female", "male"], rows).tolist(),
            "ward": pa.array(ward.tolist(), pa.string()),
            "grade": rng.integers(1, 4, rows),
            "admitted": pa.array(admitted, pa.timestamp("us")),
            "died": rng.random(rows) < age / 120,
            "note": [f"seen by Dr {i}" for i in range(rows)],
        }
    )


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prefect's home and the user's data folder for all tests here; set before Prefect is imported."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith(("PREFECT_", "SYNTH_")):
                patch.delenv(name)
        for name, value in quiet.DEFAULTS.items():  # a test may import Prefect before the command line does
            patch.setenv(name, value)
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        yield folder


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    """A clinic whose run works."""
    return Clinic(tmp_path / "clinic")


@pytest.fixture
def scans(tmp_path: Path) -> Callable[..., Path]:
    """`scans(rows, schema, run)`: small pictures of two classes in a Parquet file; the run.yaml that it returns."""

    def write(rows: list[dict[str, Any]], schema: dict[str, Any], run: dict[str, Any]) -> Path:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "scans.parquet")
        schema = {"dataset": "scans", "population": "ward", "kind": "image"} | schema
        run = {
            "source": {"path": "scans.parquet"},
            "schema": "schema.yaml",
            "output": {"directory": "out"},
            "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"},
        } | run
        (tmp_path / "schema.yaml").write_text(json.dumps(schema))
        (tmp_path / "run.yaml").write_text(json.dumps(run))
        return tmp_path / "run.yaml"

    return write


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many normals each call has drawn for a private release from here on; audits draw their own."""
    counts: list[int] = []

    class Counting(NoiseSource):
        def standard_normal(self, count: int) -> Any:
            counts.append(count)
            return super().standard_normal(count)

    for module in ("tables", "images"):
        monkeypatch.setattr(f"synth.{module}.stages.NoiseSource", Counting)
    return counts


@pytest.fixture(scope="session")
def clinic_at() -> Callable[[Path], Clinic]:
    """Make a clinic in a folder of the caller's choice."""
    return Clinic


@pytest.fixture
def synth(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `synth …` in this process."""
    from pipelines.cli import main

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["synth", *map(str, arguments)])
        capfd.readouterr()
        with _process_state_kept(), pytest.raises(SystemExit) as end:
            main()
        return Outcome(int(end.value.code or 0), *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def process(home: Path) -> Callable[..., Outcome]:
    """Run `synth …` as a process of its own."""

    def call(*arguments: object, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Outcome:
        done = subprocess.run(
            [Path(sys.executable).with_name("synth"), *map(str, arguments)],
            env=os.environ | (environment or {}),
            cwd=cwd or home,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,  # seconds; a run takes about ten
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def quick_flow(home: Path) -> Callable[[Path, str], None]:
    """The flow's own wiring on a prepared folder, without Prefect's engine, which takes seconds."""

    def call(folder: Path, url: str) -> None:
        from pipelines import flow

        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name, value in vars(flow).items() if hasattr(value, "task_key")]:
                patch.setattr(flow, name, getattr(flow, name).fn)
            umask = os.umask(0o077)
            try:
                flow.synth_run.fn(str(folder), url)
            finally:
                os.umask(umask)

    return call


@pytest.fixture(scope="session")
def quick_run(quick_flow: Callable[[Path, str], None]) -> Callable[[Path], Path]:
    """Run a run.yaml by the flow's own wiring; returns the bundle."""

    def call(run_yaml: Path) -> Path:
        from synth import prepare
        from synth.privacy.ledger import Ledger

        url = f"sqlite:///{run_yaml.parent / 'ledger.db'}"
        folder = prepare.prepare(run_yaml, Ledger.open(url))
        quick_flow(folder.path, url)
        return folder.bundle

    return call


@pytest.fixture(scope="session")
def quick_bundle(tmp_path_factory: pytest.TempPathFactory, quick_run: Callable[[Path], Path]) -> Path:
    """The bundle of a clinic's run, for tests that only read it."""
    clinic = Clinic(tmp_path_factory.mktemp("quick") / "clinic")
    clinic.run["privacy"]["epsilon"] = 30.0  # so that 400 rows stand far above the noise
    return quick_run(clinic.write().run_yaml)


@pytest.fixture(scope="session")
def shared() -> Callable[[Path], list[str]]:
    """Files and folders below a path that anyone but their owner may touch."""

    def find(path: Path) -> list[str]:
        return [str(p) for p in (path, *path.rglob("*")) if stat.S_IMODE(p.lstat().st_mode) & 0o077]

    return find


@contextlib.contextmanager
def _process_state_kept() -> Iterator[None]:
    """What `main` and Prefect set for a whole process is put back."""
    umask = os.umask(0o022)
    os.umask(umask)
    handler = signal.getsignal(signal.SIGTERM)
    loggers = [logging.getLogger(name) for name in (None, "synth", "pipelines")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    try:
        yield
    finally:
        os.umask(umask)
        signal.signal(signal.SIGTERM, handler)
        logging.captureWarnings(False)
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.level, logger.propagate = handlers, level, propagate


@pytest.fixture(scope="session")
def every_answer() -> str:
    """An answers.yaml without a gap, but for the calls for comments."""
    asked = [question for question in steward_questions().values() if not question.calls_for_comments]
    return "".join(f"{question.id}: Answered.\n" for question in asked)
