"""Workers on Dask: the counting passes and the sampling of a run, by processes of this machine or by a cluster.

Prefect's Dask task runner starts the cluster, or finds it. The parts of a pass are plain jobs of its Dask client, not
tasks of Prefect: what a task returns becomes a result within a Prefect state, where an exact count may never be. Counts
travel between workers and this process, and nowhere else: not to a disk, not into a log, not to Prefect, whose database
does not even learn how many parts there were.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.quiet import quiet_libraries
from synth.config import Run, Scale, keeps_to_itself
from synth.errors import SynthError, UserError
from synth.files import PRIVATE_FOLDER
from synth.privacy.boundary import guarded
from synth.run_folder import RunFolder, software
from synth.tables.workers import HERE, Workers
from synth.working_file import read_content, write_content

if TYPE_CHECKING:
    from distributed import Client, Future
    from prefect_dask.task_runners import DaskTaskRunner

P = TypeVar("P")
R = TypeVar("R")

PARTS_PER_WORKER = 4
"""Workers are not equally fast, and one that dies has to do its part again."""
AHEAD = 2
"""Parts per worker that are given out before their turn: results wait in the workers' memory."""
CONNECT_SECONDS = 20
PATIENCE_SECONDS = 120
"""How long a cluster may be without any worker."""
QUIET: dict[str, Any] = {
    "distributed.scheduler.http.routes": [],  # servers of status pages cannot be left out; these show nothing
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",  # at 20 ms, watching itself takes Dask as long as small passes take
}
"""What Dask does besides the work, in clusters that a run starts."""


def refuse_without_dask(run: Run) -> None:
    """Raise UserError when a run asks for workers and the packages for them are not installed."""
    if run.config.scale.asked and find_spec("prefect_dask") is None:
        raise UserError(
            f'{run.file}: scale: needs Dask, which is not installed; pip install -c constraints.txt -e ".[dask]"'
        )


@contextmanager
def workers_of(folder: RunFolder) -> Iterator[Workers]:
    """Who counts and samples for a run. A cluster is started, or called, once somebody asks for work."""
    scale = folder.run().config.scale
    if not scale.asked:
        yield HERE
        return
    own = folder.private / "dask"
    own.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    with dask_workers(scale, own) as workers:
        yield workers


@contextmanager
def dask_workers(scale: Scale, own: Path) -> Iterator[DaskWorkers]:
    """The workers that are asked for. `own` is a private folder for them, which those of a cluster have to see."""
    import dask
    from prefect_dask.task_runners import DaskTaskRunner

    _hush()
    with dask.config.set(QUIET), DaskTaskRunner(**_options(scale, own)) as runner:
        yield DaskWorkers(runner, scale, own)


def has_cluster(folder: RunFolder) -> bool:
    """Whether the run's workers are those of a cluster that others have started; from the config alone."""
    return folder.run().config.scale.scheduler is not None


def _options(scale: Scale, own: Path) -> dict[str, Any]:
    if scale.scheduler is not None:
        return {"address": scale.scheduler, "client_kwargs": {"timeout": CONNECT_SECONDS}}
    return {
        "cluster_kwargs": {
            "n_workers": scale.workers,
            "threads_per_worker": 1,  # counting holds Python's lock
            "host": "127.0.0.1",
            "security": True,  # keys of its own: another user of the machine reaches the port, and no further
            "dashboard_address": "127.0.0.1:0",
            "scheduler_kwargs": {"dashboard": False},
            "memory_limit": 0,  # else results could be spilled to a disk
            "local_directory": str(own),
            "silence_logs": logging.CRITICAL + 1,
        }
    }


class DaskWorkers:
    """The workers of a Dask cluster."""

    def __init__(self, runner: DaskTaskRunner, scale: Scale, own: Path) -> None:
        self._runner, self._scale, self._own = runner, scale, own

    @cached_property
    def _client(self) -> Client:
        if self._scale.scheduler is None:
            return self._runner.client
        try:
            client = self._runner.client
        except Exception:
            raise UserError(
                f"scale.scheduler: no Dask scheduler answers within {CONNECT_SECONDS} s; is it running, and for tls:// "
                "are its certificates configured here (DASK_DISTRIBUTED__COMM__TLS__...)?"
            ) from None
        self._examine(client)
        return client

    @cached_property
    def _threads(self) -> int:
        return max(1, sum(int(worker["nthreads"]) for worker in _workers(self._client).values()))

    @property
    def parts(self) -> int:
        """A few for each worker."""
        return PARTS_PER_WORKER * self._threads

    def map(self, work: Callable[[P], R], parts: Iterable[P]) -> Iterator[R]:
        """One result a part, in the order of the parts. Dask gives the part of a worker that died to another."""
        waiting: deque[Future[Any]] = deque()  # a future that is let go of cancels its job
        for part in parts:
            waiting.append(self._client.submit(_work, work, part, pure=False))
            if len(waiting) > AHEAD * self._threads:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _result(self, future: Future[Any]) -> Any:
        from distributed import KilledWorker

        while True:
            try:
                return future.result(timeout=PATIENCE_SECONDS)
            except KilledWorker:
                raise SynthError("the Dask workers died over one part, again and again; do they lack memory?") from None
            except TimeoutError:
                if not _workers(self._client):
                    raise SynthError(f"the Dask cluster has had no worker for {PATIENCE_SECONDS} seconds") from None

    def _examine(self, client: Client) -> None:
        """Raise UserError unless every worker of the cluster may be trusted with a part, and can work on it."""
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise UserError("scale.scheduler: the cluster has no worker; start one with `dask worker`") from None
        for address in (str(client.scheduler_info()["address"]), *_workers(client)):
            if not keeps_to_itself(address):
                raise UserError(f"scale.scheduler: {address} of this cluster is open to the network; use tls://")
        token, seen = self._own / "token", secrets.token_hex(16)
        write_content(token, seen.encode())  # as rows are: sealed, if those will be
        for address, told in client.run(_tell, token, on_error="return").items():
            if problem := _unfit(told, seen):
                raise UserError(f"scale.scheduler: worker {address} {problem}")


def _workers(client: Client) -> dict[str, Any]:
    return dict(client.scheduler_info(n_workers=-1)["workers"])


def _unfit(told: Any, seen: str) -> str | None:
    """What is wrong with a worker that has told so of itself, in words."""
    if isinstance(told, OSError) or (isinstance(told, tuple) and told[0] != seen):
        return (
            "cannot read this run's private folder; output.directory has to be on storage that all workers share, at "
            "one path, for the same user"
        )
    if isinstance(told, UserError):
        return f"says: {told}"
    if not isinstance(told, tuple):
        return f"fails with {type(told).__name__}; is the same version of dp-synth installed there?"
    if told[1] != software():
        return f"has {told[1]}, and this is {software()}"
    if told[2]:
        return "may spill exact counts to its disk; start it with --memory-limit 0"
    return None


def _tell(token: Path, dask_worker: Any) -> tuple[str, str, bool]:
    """On a worker: what it reads, what it runs, and whether its results may go to a disk."""
    return read_content(token).decode(), software(), not isinstance(dask_worker.data, dict)


def _work(work: Callable[[P], R], part: P) -> R:
    """On a worker: one part. Dask logs what is raised, so no error may quote a value."""
    quiet_libraries()
    with guarded("worker"):
        return work(part)


def _hush() -> None:
    """Dask's own lines go nowhere: they quote keys, errors and addresses."""
    import distributed

    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in {distributed.__name__, "tornado"}:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
