"""Prefect's server for one run, in a thread of this process.

Prefect would start one as a process of its own: slower, and it would outlive a run that is killed, holding the
database and the run's output streams. Where the user has named a server (PREFECT_API_URL), that one is used.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import httpx
import uvicorn
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException
from prefect.server.api.server import create_app
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from synth.errors import SynthError
from synth.files import PRIVATE_FOLDER

FLOW_NAME = "synth-run"
KNOWN_DAYS = 90
"""How long the database of such servers knows of a run; a server of its own keeps to its own retention."""
POLL_SECONDS = 0.02
STOP_SECONDS = 10.0


@contextmanager
def prefect_server() -> Iterator[None]:
    """A Prefect API for the flows run inside of this. Raises SynthError when it does not start."""
    if PREFECT_API_URL.value():
        yield
        return
    # Other users of the machine can reach the port, but cannot know the password.
    password = f"synth:{secrets.token_urlsafe(32)}"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        temporary_settings({PREFECT_API_AUTH_STRING: password, PREFECT_SERVER_API_AUTH_STRING: password}),
    ):
        app = create_app(ephemeral=True, ignore_cache=True)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="prefect", daemon=True)
        try:
            with _one_at_a_time():
                thread.start()
                _wait(server, thread)
            port = listener.getsockname()[1]
            with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
                try:
                    _forget_old_runs()
                    yield
                finally:
                    EventsWorker.drain_all(timeout=STOP_SECONDS)  # the states of tasks travel as events
        finally:
            server.should_exit = True
            if thread.is_alive():
                thread.join(timeout=STOP_SECONDS)


def _forget_old_runs() -> None:
    """Delete what Prefect knows of our runs that ended long ago: a server for one run removes old events alone.

    Others may keep runs of their own in this database, and ours must not fail because of them.
    """
    ended = {"end_time": {"before_": datetime.now(UTC) - timedelta(days=KNOWN_DAYS)}}
    with suppress(httpx.HTTPError, PrefectException), get_client(sync_client=True) as client:
        ours, old = FlowFilter.model_validate({"name": {"any_": [FLOW_NAME]}}), FlowRunFilter.model_validate(ended)
        for run in client.read_flow_runs(flow_filter=ours, flow_run_filter=old):
            client.delete_flow_run(run.id)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two servers that lay out a new database at the same time would break each other's start."""
    home = PREFECT_HOME.value()
    home.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    descriptor = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    limit = time.monotonic() + PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    while not server.started:
        if not thread.is_alive() or time.monotonic() > limit:
            raise SynthError("Prefect's server did not start; is its database (PREFECT_HOME) writable and whole?")
        time.sleep(POLL_SECONDS)
