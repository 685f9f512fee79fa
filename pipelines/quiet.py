"""What a user sees and does not see: our own plain lines on stderr, and nothing of the libraries."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_SETTINGS_PATH": str(Path(__file__).with_name("logging.yml")),
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_CLI_WRAP_LINES": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

_NOWHERE = logging.NullHandler()

# A retry would be a second draw; a cached or stored result would be a copy outside of the run folder.
TASK: dict[str, Any] = {"retries": 0, "persist_result": False, "log_prints": False, "cache_policy": None}
FLOW: dict[str, Any] = {"retries": 0, "persist_result": False, "log_prints": False, "validate_parameters": False}


def plain_lines() -> None:
    """Our own log lines go to stderr as they are. Those of libraries, and Python's warnings, go nowhere.

    They are not addressed to the user, and can quote the values that they stumble on.
    """
    ours = logging.StreamHandler(sys.stderr)
    for name in ("synth", "pipelines"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [ours]
    quiet_libraries()


def quiet_libraries() -> None:
    """What libraries log, and Python's warnings, go nowhere in this process."""
    logging.captureWarnings(True)
    logging.getLogger().addHandler(_NOWHERE)


def quiet_prefect() -> None:
    """Prefect, quiet and offline: called before it is imported, and never against what the user has set."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
