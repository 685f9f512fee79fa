"""A ledger's URL may hold a password, and Prefect stores a flow's parameters in plain text.

So where there may be one, Prefect is given a word: within a run, one that means something in this process alone; in a
deployment, the place where the URL stands, which the worker's process can look up.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pipelines.budget_ledger import ledger_of
from synth.config import absolute_ledger_url
from synth.errors import UserError

FROM_RUN_YAML = "ledger.url of run.yaml"
FROM_ENVIRONMENT = "$SYNTH_LEDGER"
SQLITE = "sqlite:///"
_CONCEALED: dict[str, str] = {}


def concealed(ledger_url: str) -> str:
    """The URL of an SQLite ledger as it is, which is a path; a word that stands for any other."""
    if ledger_url.startswith("sqlite:"):
        return ledger_url
    word = f"ledger-{secrets.token_hex(8)}"
    _CONCEALED[word] = ledger_url
    return word


def revealed(word: str) -> str:
    """The URL that `concealed` was given."""
    return _CONCEALED.get(word, word)


def remembered(option: str | None, of_run_yaml: str | None) -> str:
    """What a deployment remembers of its ledger, so that every run of it counts in the same one.

    The URL of an SQLite file, which is a path; of any other, where it stands. Raises UserError for another on the
    command line, which the worker could not know.
    """
    url = ledger_of(option, of_run_yaml)
    if url.startswith(SQLITE):
        path = Path(url.removeprefix(SQLITE)).expanduser()
        return str(absolute_ledger_url(f"{SQLITE}{path}", Path.cwd()))
    if option is not None:
        raise UserError(
            "--ledger: a deployment keeps no URL that may hold a password; write it as ledger.url in run.yaml, best as "
            "${LEDGER_URL}, and set that variable for the worker too"
        )
    return FROM_ENVIRONMENT if os.environ.get("SYNTH_LEDGER") else FROM_RUN_YAML


def recalled(word: str, of_run_yaml: str | None) -> str:
    """The URL that `remembered` meant, in the process of a worker. Raises UserError where it stands no more."""
    if word not in {FROM_RUN_YAML, FROM_ENVIRONMENT}:
        return word
    url = of_run_yaml if word == FROM_RUN_YAML else os.environ.get("SYNTH_LEDGER")
    if not url:
        raise UserError(
            f"ledger: this deployment counts in the one of {word}, which names none here; put it back there"
        )
    return url
