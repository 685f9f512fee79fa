"""The Prefect flow: wiring only. Tasks pass the run folder's path; results are never stored, nothing is retried.

Prefect keeps parameters, states and exception texts in its database, so neither private values nor the source's
location are ever among them: errors arrive here already without values (`synth.privacy.boundary`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, task

from pipelines.documents import write_documents
from synth import stages
from synth.errors import SynthError
from synth.privacy.boundary import guarded
from synth.privacy.ledger import Ledger
from synth.run_folder import RunFolder, hold, private_umask

# A retry would be a second draw; a cached or stored result would be a copy outside of the run folder.
TASK: dict[str, Any] = {"retries": 0, "persist_result": False, "log_prints": False, "cache_policy": None}
FLOW: dict[str, Any] = {
    "retries": 0,
    "persist_result": False,
    "log_prints": False,
    "validate_parameters": False,
}


@task(name="reserve", **TASK)
def reserve(folder: str, ledger_url: str) -> None:
    """Reserve the run's budget."""
    stages.reserve(RunFolder(Path(folder)), Ledger.open(ledger_url))


@task(name="encode", **TASK)
def encode(folder: str) -> None:
    """Encode the private rows into a working file."""
    stages.encode(RunFolder(Path(folder)))


@task(name="measure", **TASK)
def measure(folder: str, ledger_url: str) -> None:
    """Make the noised releases."""
    stages.measure(RunFolder(Path(folder)), Ledger.open(ledger_url))


@task(name="train", **TASK)
def train(folder: str) -> None:
    """Fit the generator."""
    stages.train(RunFolder(Path(folder)))


@task(name="sample", **TASK)
def sample(folder: str) -> None:
    """Draw the synthetic rows."""
    stages.sample(RunFolder(Path(folder)))


@task(name="evaluate", **TASK)
def evaluate(folder: str) -> None:
    """Score the synthetic rows."""
    stages.evaluate(RunFolder(Path(folder)))


@task(name="settle", **TASK)
def settle(folder: str, ledger_url: str) -> None:
    """Close the run's account."""
    stages.settle(RunFolder(Path(folder)), Ledger.open(ledger_url))


@task(name="document", **TASK)
def document(folder: str) -> None:
    """Write the bundle's documents."""
    write_documents(RunFolder(Path(folder)))


@task(name="seal", **TASK)
def seal(folder: str) -> None:
    """Seal the bundle."""
    stages.seal(RunFolder(Path(folder)))


@flow(name="synth-run", **FLOW)
def synth_run(folder: str, ledger_url: str) -> None:
    """The whole pipeline of one run whose folder `synth.stages.prepare` has made."""
    private_umask()
    run_folder = RunFolder(Path(folder))
    with hold(run_folder):
        try:
            reserve(folder, ledger_url)
            encode(folder)
            measure(folder, ledger_url)
            train(folder)
            sample(folder)
            evaluate(folder)
            settle(folder, ledger_url)
            document(folder)
            seal(folder)
        except SynthError:
            stages.give_up(run_folder, Ledger.open(ledger_url))
            raise


def run_pipeline(run_file: Path, ledger_url: str, *, flow_of: Callable[..., None] = synth_run) -> Path:
    """Check, run and return the finished bundle. Raises SynthError with a text free of private values."""
    private_umask()
    folder = stages.prepare(run_file, Ledger.open(ledger_url, create=False))
    with guarded("run", folder.internal):
        flow_of(str(folder.path), ledger_url)
    return folder.bundle
