"""Resume: which run can go on after it died, and from where. Nothing is drawn again, and nothing more is charged.

A run goes on when all that it drew is saved whole: from the bounds it has estimated, from its noised measurements and
its last checkpoint, or between stages. One that died before its first draw goes on too. Each stage leaves out what is
done already (`synth.stages`); what was drawn and not saved is lost, and stays spent.

Where a later stage wants private rows (a critic, the internal report), they are encoded once more, and who has more
than m rows is bounded by fresh coins. That costs nothing: each release has the sensitivity it was charged for whichever
m rows of a person it sees, the coins depend on nobody's rows, and adaptive composition asks no more.
"""

from __future__ import annotations

from pathlib import Path

from synth.config import Run, load_run
from synth.errors import UserError
from synth.prepare import check_source, events_of
from synth.privacy.budget import BOUNDS
from synth.privacy.events import GdpEvent, HeldOutEvent, PoissonGaussianEvent
from synth.privacy.ledger import Ledger, Reservation
from synth.run_folder import RunFolder, delete_leftovers, difference, go_on_in, runs_below, under_way

RESTORED = "has drawn what this ledger does not hold: was the ledger restored from a backup?"


def resume(run_file: Path, ledger: Ledger) -> RunFolder:
    """The folder of the run of this run.yaml that goes on; the counterpart of `synth.prepare.prepare`.

    The header of the source is checked again where private rows are still wanted. Raises UserError when there is no
    such run, InvalidConfig or InvalidSource.
    """
    run = load_run(run_file)
    delete_leftovers(run.config.output.directory)
    folder, reason = _latest(run, ledger)
    if folder is None:
        raise UserError(f"{run_file}: {reason}; start a new run without --resume")
    if wants_rows(folder):
        check_source(run)
    go_on_in(folder, run)
    return folder


def can_be_resumed(run: Run, ledger: Ledger) -> RunFolder | None:
    """The run of this run.yaml that `resume` would go on with, for who starts another one; None without any."""
    return _latest(run, ledger)[0]


def wants_rows(folder: RunFolder) -> bool:
    """Whether a stage that is still to come opens private rows: the internal report is the last that does."""
    return not folder.has_noted("quality")


def obstacle(folder: RunFolder, reservation: Reservation | None) -> str | None:
    """Why a run that nobody holds cannot go on, in words that follow its name; None when it can.

    Args:
        folder: the run's folder.
        reservation: what the ledger knows of it.
    """
    if folder.bundle.exists():
        return f"is finished: its bundle is {folder.bundle}"
    if reservation is None:
        return "has no reservation in this ledger"
    if reservation.state == "void":
        return "ended before anything was drawn, and cost nothing"
    if reservation.state == "settled":
        # Before its account closes, a run that is given up loses what it could go on from.
        return None if folder.saved and not wants_rows(folder) else "was given up; what it spent stays spent"
    if not folder.saved:
        if any(isinstance(event, PoissonGaussianEvent) for event in reservation.spent):
            return "died while its critic learned, whose steps are one release, so that its budget stays spent"
        if reservation.spent:
            return "lost what it drew, or whom it held out, or had it deleted, so that its budget stays spent"
        return RESTORED if folder.drew.exists() else None
    unspent = [event for event in reservation.unspent if isinstance(event, (GdpEvent, HeldOutEvent))]
    if not folder.measured:  # it has estimated bounds, and drawn nothing else
        unspent = [event for event in unspent if event.name == BOUNDS]
    return RESTORED if unspent else None


def _latest(run: Run, ledger: Ledger) -> tuple[RunFolder | None, str]:
    """The latest run of this run.yaml that can go on; without any, why the latest of all cannot."""
    why = ""
    for folder in runs_below(run.config.output.directory):
        started = folder.started()
        if started.get("file") != str(run.file) or started.get("makes") != "bundle":
            continue
        reason = _reason(folder, run, ledger)
        if reason is None:
            return folder, ""
        why = why or f"run {folder.run_id} {reason}"
        if folder.bundle.exists():
            break  # what died before it has been replaced
    return None, why or f"no run of it is in {run.config.output.directory}"


def _reason(folder: RunFolder, run: Run, ledger: Ledger) -> str | None:
    reservation = ledger.run(folder.run_id)
    # A run that has just started has not reserved yet, and nobody else may hold its folder, be it for a moment.
    if reservation is not None and not folder.bundle.exists() and under_way(folder):
        return "is under way in another process"
    if (reason := obstacle(folder, reservation)) or (reason := difference(folder, run)):
        return reason
    assert reservation is not None  # else it would be an obstacle
    if reservation.events != events_of(run):
        return "has reserved something else than it would now"
    return None
