"""Which ledger `synth budget` means, and opening it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs
import typer

from synth.config import absolute_ledger_url
from synth.errors import InvalidConfig
from synth.privacy.ledger import Ledger, resolve_ledger_url
from synth.yaml_file import fill_environment, read_yaml

RUN_YAML = Path("run.yaml")


def ledger_url_of_run_yaml(file: Path, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The `ledger.url` of a run.yaml, relative to its folder, and a warning when it cannot be had.

    (None, None) without such a file or key. Budgets must stay readable beside a broken run.yaml, so
    nothing is raised; the warning repeats no value of the file, which may hold a password.
    """
    if not file.exists():
        return None, None
    ignored = f"{file}: its ledger.url is ignored"
    try:
        section = read_yaml(file).get("ledger")
    except InvalidConfig as error:
        return None, f"{ignored}: {'; '.join(error.problems)}"
    url = section.get("url") if isinstance(section, dict) else section
    if url is None:
        return None, None
    if not isinstance(section, dict) or not isinstance(url, str):
        return None, f"{ignored}: should be text, as in `ledger: {{url: ...}}`"
    filled, missing = fill_environment(url, environment)
    if missing:
        return None, f"{ignored}: the environment variable {missing[0]} is not set"
    return absolute_ledger_url(filled, file.resolve().parent), None


def ledger_of(option: str | None, of_run_yaml: str | None) -> str:
    """The url of the ledger: the option, else $SYNTH_LEDGER, else of the run.yaml, else in the user's data folder."""
    return resolve_ledger_url(option, os.environ, of_run_yaml, platformdirs.user_data_path("synth"))


def open_ledger(option: str | None, *, create: bool = False) -> Ledger:
    """The ledger that the command line, $SYNTH_LEDGER or ./run.yaml names."""
    of_run_yaml = None
    if option is None and not os.environ.get("SYNTH_LEDGER"):
        of_run_yaml, warning = ledger_url_of_run_yaml(RUN_YAML, os.environ)
        if warning:
            typer.echo(f"warning: {warning}", err=True)
    return Ledger.open(ledger_of(option, of_run_yaml), create=create)
