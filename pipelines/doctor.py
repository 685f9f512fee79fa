"""`synth doctor`: whether this machine is ready for a run, and what to do where it is not. A line a check."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from datasheets import load_answers
from pipelines.budget_ledger import ledger_of
from pipelines.dask_workers import refuse_without_dask
from pipelines.options import AsJson, LedgerOfRun
from pipelines.quiet import quiet_prefect
from pipelines.secret_blocks import fill_from_blocks
from synth.config import load_run
from synth.errors import SynthError, UserError
from synth.prepare import check, exposures
from synth.privacy.ledger import Ledger

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
OLDEST, NEWEST = (3, 11), (3, 13)
LEAST_FREE_BYTES = 2 << 30
INSTALL = "pip install -c constraints.txt -e ."


@dataclass(frozen=True)
class Finding:
    """One check: what was found, whether it will do, and what to do if not."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def doctor(
    run_yaml: Annotated[
        Path | None, typer.Argument(help="Also check this run: its files, source, ledger and disk.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Also check who may read this private key.", show_default=False)
    ] = None,
    ledger: LedgerOfRun = None,
    as_json: AsJson = False,
) -> None:
    """Check packages, Prefect's server, ledger, key, disk and processors. Exit 1 when something has to be done.

    Nothing is written, and no private row is read: of the source, names and types of its columns alone.
    """
    found = tuple(_all(run_yaml, key, ledger))
    ok = all(finding.ok for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": ok, "checks": [asdict(finding) for finding in found]}))
    else:
        for finding in found:
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            typer.echo(f"{'ok  ' if finding.ok else 'MEND'}  {finding.name:<9} {finding.found}{remedy}")
        todo = [finding.name for finding in found if not finding.ok]
        typer.echo(f"to do: {', '.join(todo)}" if todo else "ready")
    raise typer.Exit(0 if ok else 1)


def _all(run_yaml: Path | None, key: Path | None, ledger: str | None) -> Iterator[Finding]:
    yield _python()
    yield _packages()
    yield _asked("prefect", _prefect)
    yield _asked("torch", _torch)
    config = None
    if run_yaml is not None:
        with suppress(SynthError):  # said by the line of Prefect's server
            fill_from_blocks(run_yaml)
        yield _asked("run", lambda: _run(run_yaml, ledger))
        try:
            config = load_run(run_yaml).config
        except SynthError:
            return  # said by the line before
    yield _asked("ledger", lambda: _ledger(ledger_of(ledger, config.ledger.url if config else None)))
    yield _disk(config.output.directory if config else Path.cwd())
    if key is not None:
        yield _asked("key", lambda: _key(key))


def _asked(name: str, ask: Callable[[], Finding]) -> Finding:
    """A check whose refusal is its answer. `;` ends what is wrong, and what to do follows."""
    try:
        return ask()
    except SynthError as error:
        return Finding(name, False, str(error))


def _python() -> Finding:
    fits = OLDEST <= sys.version_info[:2] <= NEWEST
    return Finding("python", fits, platform.python_version(), "" if fits else "use Python 3.11, 3.12 or 3.13")


def _packages() -> Finding:
    """Direct dependencies against their ranges, and against the exact versions that were tested together."""
    wrong, untested = [], []
    pins = _pins()
    for line in metadata.requires("dp-synth") or ():
        asked = Requirement(line)
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(asked.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{asked.name} is missing")
            continue
        if not asked.specifier.contains(version, prereleases=True):
            wrong.append(f"{asked.name} {version} is not {asked.specifier}")
        elif pins.get(canonicalize_name(asked.name), version).split("+")[0] != version.split("+")[0]:
            untested.append(f"{asked.name} {version}")
    if wrong:
        return Finding("packages", False, ", ".join(wrong), INSTALL)
    if untested:
        return Finding("packages", True, f"within their ranges, but other versions than tested: {', '.join(untested)}")
    return Finding("packages", True, "the tested versions" if pins else "within their ranges")


def _pins() -> dict[str, str]:
    """Package → tested version; empty where the project is installed without its repository."""
    if not CONSTRAINTS.is_file():
        return {}
    lines = (line.partition("==") for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(name): version for name, separator, version in lines if separator and name[0] != "#"}


def _prefect() -> Finding:
    quiet_prefect()
    from prefect import __version__
    from prefect.settings import PREFECT_API_URL

    from pipelines.deployment import idle, server

    if not PREFECT_API_URL.value():
        return Finding(
            "prefect", True, f"{__version__}; no server is named: `synth run` brings its own, a schedule needs one"
        )
    with server() as client:
        theirs = str(client.request("GET", "/admin/version").json())
        idling = "; ".join(idle(client, now=datetime.now(UTC)))
    found = f"{__version__}; the server answers, version {theirs}"
    if theirs.split(".")[:2] != __version__.split(".")[:2]:
        return Finding("prefect", False, found, "use the same version for server, worker and this command")
    return Finding("prefect", not idling, found, idling)


def _torch() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    gpu = f"GPU {', '.join(names)}" if names else "no GPU"
    fits = threads <= cores
    remedy = "" if fits else f"set OMP_NUM_THREADS to at most {cores}: threads without a core only wait for each other"
    return Finding("torch", fits, f"{torch.__version__}, {threads} threads on {cores} cores, {gpu}", remedy)


def _run(run_yaml: Path, ledger: str | None) -> Finding:
    run = load_run(run_yaml)
    refuse_without_dask(run)
    load_answers(run.config.answers)
    check(run_yaml, Ledger.open(ledger_of(ledger, run.config.ledger.url), create=False))
    found = "its files are valid, the source fits the schema, and the cap has room for it"
    return Finding("run", True, found, "; ".join(exposures(run.config.source, None)))


def _ledger(url: str) -> Finding:
    book = Ledger.open(url, create=False)
    entries = book.verify_chain()
    advice = [*exposures(None, book)]
    if book.overpowered():
        advice.append("its user has more rights on the entries than a run needs: name synth_runner of docs/grants.sql")
    if without := [account.population for account in book.populations() if account.cap is None]:
        advice.append(f"no cap for {', '.join(without)}: set one with `synth budget cap`")
    found = [f"{book.place}: intact, {entries} entries" if entries else f"{book.place}: no entries yet"]
    found += filter(None, [book.protection()])
    return Finding("ledger", True, ", ".join(found), "; ".join(advice))


def _disk(directory: Path) -> Finding:
    place = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    fits = free >= LEAST_FREE_BYTES and os.access(place, os.W_OK)
    remedy = "" if fits else "free some space, or name another output.directory that you may write"
    return Finding("disk", fits, f"{free / 2**30:.1f} GiB free at {place}", remedy)


def _key(key: Path) -> Finding:
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
    except OSError as error:
        raise UserError(f"{key}: {error.strerror}; name the file that `synth key new` wrote") from None
    fits = not mode & 0o077
    return Finding("key", fits, f"{key}: mode {mode:04o}", "" if fits else f"others may read it: chmod 600 {key}")
