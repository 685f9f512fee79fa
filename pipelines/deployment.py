"""A deployment on the Prefect server that PREFECT_API_URL or the active profile names, and what it needs there.

Prefect is told names, paths and public numbers. Runs on one population wait for each other in a work queue that gives
out one at a time, whatever the deployment. Prefect's concurrency limits would do too, but they are leases: a run that
is paid for would be ended when the server is away for a moment. A run whose machine died says no more, and an
automation then marks it as crashed, which frees its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import anyio
import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import WorkPoolStatus
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.server.schemas.schedules import CronSchedule as CronDates
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from pipelines.quiet import DEFAULTS
from synth.errors import SynthError, UserError

POOL_TYPE = "process"
PATIENCE_SECONDS = 10.0
HEARTBEAT_SECONDS = 30
DEAD_AFTER = timedelta(minutes=10)
"""Without a sign of life; a living run gives one every half minute."""
TRIES = 9
"""Of a run to tell a server that is away how it has ended, after 2, 4, … 512 seconds: 17 minutes in all."""
SCHEDULED_AFTER = timedelta(minutes=5)
"""By then a server has made the runs of a new schedule."""
WATCH = "synth: runs whose machine died"
START = "start one with `prefect server start`, name it with `export PREFECT_API_URL=http://127.0.0.1:4200/api`"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What is registered.

    Attributes:
        flow: the flow's name on the server; entrypoint: module and function, as an import path.
        name: the deployment's own name.
        work_pool: a pool of the type process.
        cron: five fields; timezone: IANA.
        parameters: names, paths and public numbers.
        population: whose runs wait for each other; None for what reads no private rows.
        description: for people.
    """

    flow: str
    entrypoint: str
    name: str
    work_pool: str
    cron: str
    timezone: str
    parameters: Mapping[str, Any]
    population: str | None
    description: str

    @property
    def full_name(self) -> str:
        """As `prefect deployment` names it."""
        return f"{self.flow}/{self.name}"


def slots(cron: str, timezone: str, *, most: int, now: datetime) -> list[datetime]:
    """The next slots of a schedule, at most so many. Raises UserError for a schedule that is none, or never comes."""
    remedy = 'write five fields, such as "0 3 * * 0" for Sundays at 3'
    try:
        if len(cron.split()) != 5:
            raise ValueError
        schedule = CronDates(cron=CronSchedule(cron=cron, timezone=timezone).cron, timezone=timezone)
    except ValidationError as error:
        at = {str(part) for item in error.errors() for part in item["loc"]}
        if "timezone" in at:
            raise UserError(f"--timezone {timezone}: no such timezone; name one such as Europe/Berlin or UTC") from None
        raise UserError(f"--cron {cron!r}: is no schedule; {remedy}") from None
    except ValueError:
        raise UserError(f"--cron {cron!r}: is no schedule; {remedy}") from None
    try:
        dates = anyio.run(schedule.get_dates, most, now)
    except ValueError:  # the thirtieth of February
        dates = []
    if not dates:
        raise UserError(f"--cron {cron!r}: never comes; {remedy}")
    return [date.astimezone(UTC) for date in dates]


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """A client of the server that is named. Raises UserError when none is, or it does not answer."""
    url = PREFECT_API_URL.value()
    if not url:
        raise UserError(f"no Prefect server is named; {START}, and try again")
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    try:
        with get_client(httpx_settings={"timeout": PATIENCE_SECONDS}, sync_client=True) as client:
            if problem := client.api_healthcheck():
                raise UserError(f"no Prefect server answers at {place} ({_kind(problem)}); {START}, and try again")
            yield client
    except httpx.HTTPError as error:
        if _kind(error) in {"401", "403"}:
            raise UserError(
                f"the Prefect server at {place} wants a password; set PREFECT_API_AUTH_STRING as it was started"
            ) from None
        raise SynthError(
            f"the Prefect server at {place} refuses or fails ({_kind(error)}); is it of version 3.8?"
        ) from None


def idle(client: SyncPrefectClient, *, now: datetime) -> Iterator[str]:
    """Why deployments of ours would not run: no worker at their pool, or a schedule that makes no runs."""
    ours = client.read_deployments(deployment_filter=DeploymentFilter.model_validate({"tags": {"all_": ["synth"]}}))
    for pool in sorted({one.work_pool_name for one in ours if one.work_pool_name}):
        if client.read_work_pool(pool).status == WorkPoolStatus.NOT_READY:
            yield f"no worker is at work pool {pool}: prefect worker start --pool {pool}"
    for one in ours:
        if one.paused or not one.schedules or one.updated is None or now - one.updated < SCHEDULED_AFTER:
            continue
        waiting = {"deployment_id": {"any_": [one.id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
        if not client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(waiting), limit=1):
            yield f"the schedule of {one.name} makes no runs: install the server from constraints.txt too"


def _kind(error: Exception) -> str:
    return str(error.response.status_code) if isinstance(error, httpx.HTTPStatusError) else type(error).__name__


def register(client: SyncPrefectClient, deployment: Deployment) -> UUID:
    """Make the deployment, or bring the one of that name up to date; returns its id.

    Raises UserError when the name is taken by another run.yaml or bundle, or the pool is of another type.
    """
    _refuse_taken(client, deployment)
    _work_pool(client, deployment.work_pool)
    _watch(client)
    flow_id = client.create_flow_from_name(deployment.flow)
    return client.create_deployment(
        flow_id,
        deployment.name,
        entrypoint=deployment.entrypoint,
        work_pool_name=deployment.work_pool,
        work_queue_name=_queue(client, deployment),
        parameters=dict(deployment.parameters),
        enforce_parameter_schema=False,
        description=deployment.description,
        tags=["synth"],
        version=metadata.version("dp-synth"),
        job_variables={"env": _environment()},
        pull_steps=[],
        schedules=[
            DeploymentScheduleCreate(
                schedule=CronSchedule(cron=deployment.cron, timezone=deployment.timezone), slug="synth"
            )
        ],
    )


def _refuse_taken(client: SyncPrefectClient, deployment: Deployment) -> None:
    try:
        there = client.read_deployment_by_name(deployment.full_name).parameters
    except ObjectNotFound:
        return
    for key in ("run_file", "bundle"):
        if there.get(key) != deployment.parameters.get(key):
            raise UserError(f"deployment {deployment.full_name}: is there for {there.get(key)}; give another --name")


def _work_pool(client: SyncPrefectClient, name: str) -> None:
    """Make the pool when it is missing."""
    try:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=name, type=POOL_TYPE, base_job_template=template))
    except ObjectAlreadyExists:
        kind = client.read_work_pool(name).type
        if kind != POOL_TYPE:
            raise UserError(
                f"--work-pool {name}: is of type {kind}; name one of type {POOL_TYPE}, or a new one"
            ) from None
    except ValidationError:
        raise UserError(f"--work-pool {name}: not such a name; use letters, digits and dashes") from None


def _queue(client: SyncPrefectClient, deployment: Deployment) -> str:
    """The population's queue, which gives out one run at a time; made when missing. Others share the pool's own."""
    if deployment.population is None:
        return "default"
    name = re.sub(r"[^\w .-]", "-", deployment.population)
    pool = {"work_pool_name": deployment.work_pool}
    try:
        client.request(
            "POST",
            "/work_pools/{work_pool_name}/queues",
            path_params=pool,
            json={"name": name, "concurrency_limit": 1},
        )
    except PrefectHTTPStatusError as error:
        if error.response.status_code != httpx.codes.CONFLICT:
            raise
        client.request(
            "PATCH",
            "/work_pools/{work_pool_name}/queues/{name}",
            path_params=pool | {"name": name},
            json={"concurrency_limit": 1},
        )
    return name


def _watch(client: SyncPrefectClient) -> None:
    """The automation that marks runs without a sign of life as crashed, once a server."""
    if client.read_automations_by_name(WATCH):
        return
    client.create_automation(
        AutomationCore(
            name=WATCH,
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                expect={"prefect.flow-run.*"},  # another heartbeat, or the end by whatever name
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related={"prefect.resource.role": "flow", "prefect.resource.name": ["synth-scheduled"]},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=DEAD_AFTER,
            ),
            actions=[ChangeFlowRunState(state="CRASHED", message="no sign of life; what was reserved stays spent")],
        )
    )


def _environment() -> dict[str, str]:
    """Settings of the worker's process, read before any of our code: nothing of a run goes to Prefect's logs."""
    quiet = {name: value for name, value in DEFAULTS.items() if name != "PREFECT_LOGGING_SETTINGS_PATH"}
    return quiet | {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_CLIENT_MAX_RETRIES": str(TRIES),
    }
