"""What a worker runs for a deployment: one run of the pipeline, or fresh rows from an approved bundle.

A slot of the schedule is one flow run, whose id fixes the id of the run: a slot that is picked up twice finds its run
in the ledger, or its folder there, and ends without reading a row. Every end is a state with a name
(`pipelines.endings`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed

from datasheets import load_answers
from pipelines.dask_workers import refuse_without_dask
from pipelines.endings import ALREADY_RAN, SLOT_PASSED, Ending, artifact_of, ending_of, left_in_words, spent_in_words
from pipelines.ledger_secret import concealed, recalled
from pipelines.notice import give_notice
from pipelines.quiet import FLOW, plain_lines
from pipelines.releasing import lists_to_read
from pipelines.sampling import sample_to_file
from pipelines.secret_blocks import fill_from_blocks
from synth.config import load_run
from synth.errors import NotApproved, SynthError, UserError
from synth.facts import PublicFacts
from synth.files import PRIVATE_FOLDER, sha256_text
from synth.prepare import prepare
from synth.privacy.boundary import without_values
from synth.privacy.ledger import Ledger
from synth.privacy.outputs import refuse_in_bundle
from synth.release import examine, in_words
from synth.run_folder import delete_leftovers, private_umask
from synth.runs import point_to

RESAMPLED = "resampled"
"""The folder below `output.directory` for rows that a schedule draws from an approved bundle."""

TOLD: dict[str, Any] = {end: [give_notice] for end in ("on_completion", "on_failure", "on_crashed")}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slot:
    """A slot of a schedule: which flow run it is, and when it was due (UTC)."""

    flow_run: str
    due: datetime

    @property
    def stamp(self) -> str:
        """The same for each attempt at this slot, and for no other slot. Tells nothing but when it was due."""
        return f"{self.due.astimezone(UTC):%Y%m%dT%H%M%SZ}-{sha256_text(self.flow_run)[:16]}"


@flow(name="synth-scheduled", **FLOW, **TOLD)
def scheduled_run(run_file: str, ledger: str) -> State[Any]:
    """One run of the pipeline. `ledger` is what `pipelines.ledger_secret.remembered` gave."""
    return _ended(lambda slot: _run(Path(run_file), ledger, slot))


@flow(name="synth-resample", **FLOW, **TOLD)
def scheduled_resample(bundle: str, directory: str, name: str, rows: int) -> State[Any]:
    """`rows` new rows from an approved bundle, in a file of their own. Costs no budget."""
    return _ended(lambda slot: _resample(Path(bundle), Path(directory), name, rows, slot))


def _ended(work: Callable[[Slot], State[Any]]) -> State[Any]:
    """The state that the work ends in. Nothing is raised, as Prefect would keep the text of it."""
    private_umask()
    plain_lines()
    try:
        flow_run = _this_flow_run()
        if _passed(flow_run):
            return _state(Cancelled, SLOT_PASSED)
        return work(Slot(str(flow_run.id), flow_run.expected_start_time or datetime.now(UTC)))
    except SynthError as error:
        return _failed(error, where="check", charged=False)
    except Exception as error:
        return _failed(without_values("check", error), where="check", charged=False)


def _run(run_file: Path, word: str, slot: Slot) -> State[Any]:
    fill_from_blocks(run_file)
    run = load_run(run_file)
    refuse_without_dask(run)
    load_answers(run.config.answers)
    url = recalled(word, run.config.ledger.url)
    ledger, run_id = Ledger.open(url, create=False), f"{run.name}-{slot.stamp}"
    delete_leftovers(run.config.output.directory)  # also where this slot is refused
    if ledger.knows(run_id) or (run.config.output.directory / run_id).exists():
        return _state(Failed, ALREADY_RAN)
    folder, stopped = prepare(run_file, ledger, run_id=run_id), None
    from pipelines.flow import Stopped, synth_run  # torch: a refusal should not wait for it

    try:
        synth_run.fn(str(folder.path), concealed(url))
    except Stopped as error:
        stopped = error
    except SynthError as error:  # the ledger could not be asked what became of the run
        stopped = Stopped(f"run: {type(error).__name__}", error)
    if stopped is not None:
        reason, where = stopped.reason or SynthError(str(stopped)), str(stopped).partition(":")[0]
        return _failed(reason, where=where, charged=_charged(ledger, run_id))
    # A run that is sealed has succeeded, whatever becomes of what is told about it.
    try:
        point_to(folder.bundle, always=True)
        facts = PublicFacts.model_validate_json(folder.public_facts.read_bytes())
    except (OSError, ValueError, SynthError) as error:
        logger.warning("warning: the run is complete, and `latest` may not name it (%s)", type(error).__name__)
        return Completed(message=f"candidate {folder.bundle}")
    left = _left(facts, ledger)
    _publish(facts, folder.bundle, left)
    return Completed(message=f"{spent_in_words(facts)}; left: {left}; candidate {folder.bundle}")


def _charged(ledger: Ledger, run_id: str) -> bool:
    """Whether the run counts. A ledger that does not answer is taken to count it: a reservation counts in full."""
    try:
        return ledger.charged(run_id)
    except SynthError:
        return True


def _left(facts: PublicFacts, ledger: Ledger) -> str:
    """What is left under the cap. A run that is sealed has succeeded, whatever the ledger says afterwards."""
    try:
        account = ledger.population(facts.run.population)
        more = ledger.runs_left(facts.run.population, facts.privacy.events)
    except SynthError as error:
        return f"the ledger does not say ({type(error).__name__})"
    return left_in_words(facts.privacy.population_cap, account.epsilon_left if account else None, more)


def _publish(facts: PublicFacts, bundle: Path, left: str) -> None:
    """An artifact for the run. A run that is sealed has succeeded, whatever the server says of its artifact."""
    try:
        key = re.sub(r"[^a-z0-9]+", "-", f"synth {facts.run.name}".lower()).strip("-")
        create_markdown_artifact(artifact_of(facts, str(bundle), left=left), key=key)
    except Exception as error:
        logger.warning("warning: no artifact for this run (%s)", type(error).__name__)


def _resample(bundle: Path, directory: Path, name: str, rows: int, slot: Slot) -> State[Any]:
    found = examine(bundle, revocations=lists_to_read(bundle, None))
    if not found.approved:
        raise NotApproved(f"{bundle}: is {in_words(found)}; rows are drawn on a schedule from an approved bundle alone")
    output = directory / RESAMPLED / f"{name}-{slot.stamp}.parquet"
    if output.exists():
        return _state(Failed, ALREADY_RAN)
    refuse_in_bundle(output, named=str(output), bundle=bundle)
    output.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    made = sample_to_file(bundle, rows=rows, where=[], output=output)
    logger.info("resample: %d rows drawn; this cost no budget", made)
    return Completed(message=f"{made} rows at no budget; {output}")


def _this_flow_run() -> FlowRun:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise UserError("this is for a worker of Prefect to run; `synth deploy` makes it so")
    return context.flow_run


def _passed(flow_run: FlowRun) -> bool:
    """Whether a later slot is due already. Slots that no worker took are not made up for: each would spend."""
    due, deployment = flow_run.expected_start_time, flow_run.deployment_id
    if not flow_run.auto_scheduled or due is None or deployment is None:
        return False  # somebody asked for this very run
    later = FlowRunFilter.model_validate(
        {
            "deployment_id": {"any_": [deployment]},
            "expected_start_time": {"after_": due + timedelta(seconds=1), "before_": datetime.now(UTC)},
        }
    )
    with get_client(sync_client=True) as client:
        return any(other.auto_scheduled for other in client.read_flow_runs(flow_run_filter=later))


def _failed(error: SynthError, *, where: str, charged: bool) -> State[Any]:
    logger.error("synth: %s", error)  # to the worker's standard error; Prefect gets less
    return _state(Failed, ending_of(error, where=where, charged=charged))


def _state(kind: Callable[..., State[Any]], ending: Ending) -> State[Any]:
    return kind(name=ending.name, message=ending.message)
