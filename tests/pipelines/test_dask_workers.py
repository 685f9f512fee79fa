"""Workers on Dask: two processes count and draw what one does, whatever happens to them, and tell nobody."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pytest
from distributed import LocalCluster

from synth.config import Scale
from synth.errors import SynthError, UserError
from synth.privacy.ledger import Ledger
from synth.privacy.noise import NoiseSource
from synth.run_folder import software
from synth.schema import load_schema
from synth.tables.blocks import Block
from synth.tables.codec import codecs_of
from synth.tables.count import WorkingFile, count_binned, count_histograms, count_pairs
from synth.tables.encode import encode
from synth.tables.layout import layout_of, plan_of
from synth.tables.measure import Measurer
from synth.tables.measurements import save_measurements
from synth.tables.model import TableModel
from synth.tables.rows import ROWS_AT_ONCE, sample_rows, sample_rows_by
from synth.tables.workers import HERE, Workers
from synth.working_file import VARIABLE, reading, writing

if TYPE_CHECKING:
    from pipelines.dask_workers import DaskWorkers

SIZES = {"a": 40, "b": 7, "c": 3}
BATCHES = 21  # not a multiple of the parts
CLASS_OF_CELL = np.array([0, 1, 1])
BIN_OF_CELL = {name: np.arange(size) // 2 for name, size in SIZES.items()}


def module() -> Any:
    """What is tested; imported late, since Prefect reads its home (fixture `home`) when it is imported."""
    return import_module("pipelines.dask_workers")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[DaskWorkers]:
    """Two processes of a Dask cluster on this machine."""
    with module().dask_workers(Scale(workers=2), tmp_path_factory.mktemp("dask")) as workers:
        yield workers


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working file of batches of unequal size."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("codes") / "encoded.arrow"
    schema = pa.schema([(f"cells:{name}", pa.int32()) for name in SIZES])
    with path.open("wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for _ in range(BATCHES):
            rows = int(rng.integers(1, 400))
            columns = [pa.array(rng.integers(0, size, rows), pa.int32()) for size in SIZES.values()]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return path


def counts(path: Path, workers: Workers) -> list[tuple[Any, list[Any]]]:
    """What passes over the rows count, with the type of each table."""
    rows = WorkingFile(path, tuple(f"cells:{name}" for name in SIZES), workers)
    common: dict[str, Any] = {"class_key": "cells:c", "class_of_cell": CLASS_OF_CELL}
    found: dict[Any, Any] = {}
    found |= count_histograms(rows, blocks=[Block(name, "cells", size) for name, size in SIZES.items()], **common)
    found |= count_binned(rows, bin_of_cell=BIN_OF_CELL, **common)
    found |= count_pairs(rows, pairs=list(itertools.combinations(SIZES, 2)), bin_of_cell=BIN_OF_CELL, **common)
    assert {table.dtype for table in found.values()} == {np.dtype(np.int64)}
    return [(key, table.tolist()) for key, table in found.items()]


def test_two_workers_count_what_one_process_does(two: DaskWorkers, codes: Path) -> None:
    assert two.parts == 2 * module().PARTS_PER_WORKER
    assert counts(codes, two) == counts(codes, HERE)


class Repeated(NoiseSource):
    """The same noise each time, for once."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(3)

    def _uniform(self, count: int) -> Any:
        return 1.0 - self.rng.random(count)


def test_two_workers_count_a_sealed_file(
    two: DaskWorkers, codes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, told = "0badc0de" * 8, counts(codes, two)
    monkeypatch.setenv(VARIABLE, key)
    with reading(codes) as plain, writing(tmp_path / "sealed", plain.get_batch(0).schema) as sealed:
        for i in range(BATCHES):
            sealed.write_batch(plain.get_batch(i))
    with pytest.raises(UserError, match="sealed with another"):  # the workers were at work before there was a key
        counts(tmp_path / "sealed", two)
    two._client.run(exec, f"import os; os.environ[{VARIABLE!r}] = {key!r}")
    try:
        assert counts(tmp_path / "sealed", two) == told
    finally:
        two._client.run(exec, f"import os; del os.environ[{VARIABLE!r}]")


def test_noise_is_drawn_once_whoever_counts(two: DaskWorkers, clinic: Any, tmp_path: Path) -> None:
    schema = load_schema(clinic.schema_yaml)
    codecs = codecs_of(schema)
    encode(clinic.table.select([*codecs]).to_batches(max_chunksize=30), codecs, tmp_path / "codes")
    layout, charged = layout_of(schema, codecs), []
    for name, workers in (("one", HERE), ("two", two)):
        measured = Measurer(
            read=lambda keys, workers=workers: WorkingFile(tmp_path / "codes", tuple(keys), workers),
            codecs=codecs,
            layout=layout,
            plan=plan_of(layout, codecs, epsilon=1.0, delta=1e-5),
            noise=Repeated(),
            charge=charged.append,
            public_rows=None,
        ).measure()
        (tmp_path / name).mkdir()
        save_measurements(measured, tmp_path / name)
    half = len(charged) // 2
    assert half and charged[:half] == charged[half:]
    for file in ("measurements.json", "measurements.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_two_workers_draw_the_rows_that_one_process_does(two: DaskWorkers, quick_bundle: Path) -> None:
    folder, rows = quick_bundle / "model", ROWS_AT_ONCE + 17
    drawn = list(sample_rows_by(two, folder, rows, seed=5))
    here = list(sample_rows(TableModel.load(folder), rows, seed=5))
    assert sum(batch.num_rows for batch in drawn) == rows
    assert all(one.equals(other) for one, other in zip(drawn, here, strict=True))
    assert not drawn[0].slice(0, 17).equals(drawn[1])


def test_a_worker_that_is_killed_changes_nothing(two: DaskWorkers, codes: Path, tmp_path: Path) -> None:
    died = tmp_path / "died"

    def work(part: int) -> tuple[int, int]:
        if part == 3 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return part, os.getpid()

    found = list(two.map(work, range(12)))
    assert died.exists() and [part for part, _ in found] == list(range(12))
    assert os.getpid() not in {pid for _, pid in found}
    assert counts(codes, two) == counts(codes, HERE)


def test_what_a_worker_fails_with_is_withheld(two: DaskWorkers, capfd: pytest.CaptureFixture[str]) -> None:
    def work(part: str) -> None:
        raise ValueError(f"could not convert {part}")

    with pytest.raises(SynthError, match="worker failed with ValueError") as caught:
        list(two.map(work, ["zq-canary"]))
    error = caught.value
    assert "zq-canary" not in str(error) and error.__cause__ is None and error.__context__ is None
    assert capfd.readouterr() == ("", "")


def test_nobody_else_can_speak_to_the_workers(two: DaskWorkers) -> None:
    scheduler: Any = two._client.cluster.scheduler
    assert scheduler.address.startswith("tls://127.0.0.1:")
    assert all(address.startswith("tls://127.0.0.1:") for address in scheduler.workers)
    for address in (scheduler.address, *scheduler.workers):
        place, anyone = ("127.0.0.1", int(address.rpartition(":")[2])), ssl._create_unverified_context()
        with (
            socket.create_connection(place) as bare,
            anyone.wrap_socket(bare) as connection,
            pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
        ):
            connection.recv(1)
    for page in ("", "info/main/workers.html", "json/identity.json", "metrics", "health"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"http://127.0.0.1:{scheduler.http_server.port}/{page}")


@contextmanager
def cluster(workers: int = 1, **options: Any) -> Iterator[str]:
    """The address of a cluster whose one worker is a thread of this process."""
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        host="127.0.0.1",
        protocol="tcp",
        dashboard_address="127.0.0.1:0",
        **options,
    ) as made:
        yield made.scheduler_address


def test_a_run_on_a_cluster(clinic: Any, quick_run: Any, synth: Any) -> None:
    with cluster(memory_limit=0) as address:
        clinic.run["scale"] = {"scheduler": address}
        bundle = quick_run(clinic.write().run_yaml)
        assert synth("verify", bundle).code == 0
        assert not (bundle.parent / "private").exists()
        # The same cluster, were its workers to see another folder.
        with module().dask_workers(Scale(scheduler=address), clinic.folder) as workers:
            assert workers.parts == module().PARTS_PER_WORKER


def refused(clinic: Any, quick_run: Any, address: str) -> str:
    """In what words a run on this cluster is refused, before anything."""
    clinic.run["scale"] = {"scheduler": address}
    with pytest.raises(import_module("pipelines.flow").Stopped, match="find_workers: UserError") as stopped:
        quick_run(clinic.write().run_yaml)
    assert not list(clinic.out.iterdir())
    assert Ledger.open(clinic.ledger_url).populations() == ()
    return str(stopped.value.reason)


def test_a_cluster_that_may_write_counts_to_a_disk(clinic: Any, quick_run: Any) -> None:
    with cluster(memory_limit="64GB", local_directory=str(clinic.folder)) as address:
        assert "start it with --memory-limit 0" in refused(clinic, quick_run, address)


def test_a_scheduler_that_is_not_there(clinic: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module(), "CONNECT_SECONDS", 0.2)
    assert "no Dask scheduler answers within 0.2 s;" in refused(clinic, quick_run, "tcp://127.0.0.1:9")


def test_a_cluster_without_workers(clinic: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module(), "CONNECT_SECONDS", 0.2)
    with cluster(workers=0) as address:
        assert "the cluster has no worker" in refused(clinic, quick_run, address)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (("seen", software(), False), None),
        (PermissionError("/x"), "storage that all workers share"),
        (("other", software(), False), "storage that all workers share"),
        (("seen", "dp-synth 0.0.1", False), "has dp-synth 0.0.1"),
        (("seen", software(), True), "--memory-limit 0"),
        (ModuleNotFoundError("pipelines"), "ModuleNotFoundError"),
        (UserError("a working file is sealed with another key"), "says: a working file is sealed"),
    ],
)
def test_workers_that_will_not_do(told: Any, words: str | None) -> None:
    problem = module()._unfit(told, "seen")
    assert problem is None if words is None else problem is not None and words in problem


def test_without_dask(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic.run["scale"] = {"workers": 2}
    clinic.write()
    monkeypatch.setattr(module(), "find_spec", lambda name: None)
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "Dask" in outcome.err and '".[dask]"' in outcome.err
    assert '".[dask]"' in synth("doctor", clinic.run_yaml).out
