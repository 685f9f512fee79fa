"""The Prefect flow: wiring only. Tasks pass the run folder's path; results are never stored, nothing is retried.

Prefect keeps parameters, states and exception texts in its database, so neither private values nor the source's
location are ever among them. Errors arrive here without values (`synth.privacy.boundary`), and Prefect is told no
more of them than the stage and the kind.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from prefect import flow, task

from pipelines import documents
from pipelines.dask_workers import has_cluster, workers_of
from pipelines.ledger_secret import revealed
from pipelines.quiet import FLOW, TASK
from synth import stages
from synth.errors import LedgerUnavailable, SynthError
from synth.privacy.boundary import without_values
from synth.privacy.ledger import Ledger
from synth.run_folder import RunFolder, hold, private_umask
from synth.runs import point_to
from synth.threads import one_blas_thread

logger = logging.getLogger(__name__)

P = ParamSpec("P")


class Stopped(Exception):
    """What Prefect is told of an error: where, and which kind. `reason` is the error itself, in this process alone."""

    def __init__(self, words: str, reason: SynthError | None = None) -> None:
        self.reason = reason
        super().__init__(words)

    def __reduce__(self) -> tuple[type[Stopped], tuple[str]]:
        return Stopped, (str(self),)  # Prefect writes a pickle of what a flow fails with


def wordless(work: Callable[P, None]) -> Callable[P, None]:
    """Let no error through to Prefect but as `Stopped`: the text of one may name files."""

    @functools.wraps(work)
    def inside(*args: P.args, **kwargs: P.kwargs) -> None:
        stopped = None
        try:
            work(*args, **kwargs)
        except Stopped:
            raise
        except SynthError as error:
            stopped = Stopped(f"{work.__name__}: {type(error).__name__}", error)
        except Exception as error:
            stopped = Stopped(f"{work.__name__}: {type(error).__name__}", without_values(work.__name__, error))
        if stopped is not None:
            raise stopped  # outside of the handler, so that the error is not attached as context

    return inside


@task(name="find workers", **TASK)
@wordless
def find_workers(folder: str) -> None:
    """Look at the workers of a cluster before anything is reserved or read."""
    with workers_of(RunFolder(Path(folder))) as workers:
        assert workers.parts


@task(name="reserve", **TASK)
@wordless
def reserve(folder: str, ledger_url: str) -> None:
    """Reserve the run's budget."""
    stages.reserve(RunFolder(Path(folder)), Ledger.open(revealed(ledger_url)))


@task(name="encode", **TASK)
@wordless
def encode(folder: str, ledger_url: str) -> None:
    """Encode the private rows into a working file."""
    stages.encode(RunFolder(Path(folder)), Ledger.open(revealed(ledger_url)))


@task(name="measure", **TASK)
@wordless
def measure(folder: str, ledger_url: str) -> None:
    """Make the noised releases."""
    run_folder = RunFolder(Path(folder))
    with workers_of(run_folder) as workers:
        stages.measure(run_folder, Ledger.open(revealed(ledger_url)), workers)


@task(name="train", **TASK)
@wordless
def train(folder: str) -> None:
    """Fit the generator."""
    stages.train(RunFolder(Path(folder)))


@task(name="refine", **TASK)
@wordless
def refine(folder: str, ledger_url: str) -> None:
    """Refine the generator against a critic trained by DP-SGD."""
    stages.refine(RunFolder(Path(folder)), Ledger.open(revealed(ledger_url)))


@task(name="sample", **TASK)
@wordless
def sample(folder: str) -> None:
    """Draw the synthetic rows."""
    run_folder = RunFolder(Path(folder))
    with workers_of(run_folder) as workers:
        stages.sample(run_folder, workers)


@task(name="audit", **TASK)
@wordless
def audit(folder: str) -> None:
    """Audit the mechanism on synthetic rows."""
    stages.audit(RunFolder(Path(folder)))


@task(name="score", **TASK)
@wordless
def score(folder: str, ledger_url: str) -> None:
    """Score on held-out people."""
    stages.score(RunFolder(Path(folder)), Ledger.open(revealed(ledger_url)))


@task(name="evaluate", **TASK)
@wordless
def evaluate(folder: str) -> None:
    """Score the synthetic rows."""
    stages.evaluate(RunFolder(Path(folder)))


@task(name="settle", **TASK)
@wordless
def settle(folder: str, ledger_url: str) -> None:
    """Close the run's account."""
    stages.settle(RunFolder(Path(folder)), Ledger.open(revealed(ledger_url)))


@task(name="document", **TASK)
@wordless
def document(folder: str) -> None:
    """Write the bundle's documents."""
    documents.document(RunFolder(Path(folder)))


@task(name="seal", **TASK)
@wordless
def seal(folder: str) -> None:
    """Seal the bundle."""
    point_to(stages.seal(RunFolder(Path(folder))), always=False)


@flow(name="synth-run", **FLOW)
@wordless
def synth_run(folder: str, ledger_url: str) -> None:
    """The whole pipeline of one run whose folder `synth.prepare` has made."""
    private_umask()
    run_folder = RunFolder(Path(folder))
    with hold(run_folder), one_blas_thread():
        try:
            if has_cluster(run_folder):
                find_workers(folder)
            reserve(folder, ledger_url)
            encode(folder, ledger_url)
            measure(folder, ledger_url)
            train(folder)
            if stages.has_critic(run_folder):
                refine(folder, ledger_url)
            sample(folder)
            audit(folder)
            if stages.has_score(run_folder):
                score(folder, ledger_url)
            evaluate(folder)
            settle(folder, ledger_url)
            document(folder)
            seal(folder)
        except Stopped:
            _give_up(run_folder, ledger_url)
            raise


def _give_up(folder: RunFolder, ledger_url: str) -> None:
    """After a failure. Where the ledger does not answer the account stays open, which charges the run in full."""
    try:
        stages.give_up(folder, Ledger.open(revealed(ledger_url)))
    except LedgerUnavailable as error:
        logger.warning("warning: run %s stays charged in full: %s", folder.run_id, error)
