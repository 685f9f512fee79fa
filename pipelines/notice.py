"""A notice of how a scheduled run ended, to the webhook that $SYNTH_NOTIFY names: what Prefect shows, and no more."""

from __future__ import annotations

import logging
import os
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun, State

PATIENCE_SECONDS = 10.0

logger = logging.getLogger(__name__)


def give_notice(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """A hook of Prefect's. Whether anybody hears of it changes nothing. The address may be a secret: it is not told."""
    url = os.environ.get("SYNTH_NOTIFY")
    if not url:
        return
    logging.getLogger("httpx").setLevel(logging.WARNING)  # below that it logs addresses
    told = {"flow": flow.name, "flow_run": flow_run.name, "state": state.name, "message": state.message or ""}
    told["text"] = "{flow} {flow_run}: {state}: {message}".format_map(told)  # what chats show
    try:
        httpx.post(url, json=told, timeout=PATIENCE_SECONDS).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        logger.warning("warning: nobody was told how this run ended (%s)", type(error).__name__)
