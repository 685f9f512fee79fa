"""The runs below one output directory: what each has become, which bundle is the latest, and which may go.

Nothing is opened but what runs leave: no private row is read, and a run that is under way is not disturbed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from synth.durations import noted_in
from synth.errors import SynthError, UserError
from synth.files import locked, write_whole
from synth.privacy.ledger import Ledger
from synth.release import examine
from synth.release.attestation import claims_of
from synth.run_folder import RunFolder, delete_leftovers, try_lock
from synth.yaml_file import read_yaml

LATEST = "latest"
"""A text file in the output directory: the newest finished bundle, as a path from there, approved or not."""
GRACE = timedelta(hours=1)
"""A run this young may be about to take its lock, so it is not removed."""
PRUNED = ".pruned"

State = Literal["drafting", "resumable", "failed", "candidate", "approved", "rejected", "revoked", "damaged", "audit"]
REMOVABLE: frozenset[State] = frozenset({"failed", "candidate", "rejected"})

Revocations = Callable[[Path], Sequence[Path]]
"""The revocation lists to look a bundle up in."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One run folder.

    Attributes:
        run: its id; created: when it started, UTC, ISO 8601.
        state: `drafting` while it is at work; `resumable` when it died and `--resume` goes on with it; `damaged` when
            its bundle is not intact; `audit` for a long audit.
        epsilon: stated by the bundle, else asked for by its run.yaml; None when neither can be read.
        charged: whether the ledger counts it; None without a ledger.
        private_gone: whether its working files are gone.
        latest: whether it made the newest finished bundle.
        bundle: the bundle's folder, None without one.
        seconds: how long its stages have taken, over all its tries; None where that was not noted. It follows from how
            large the source is, and is for the steward alone.
    """

    run: str
    created: str
    state: State
    epsilon: float | None
    charged: bool | None
    private_gone: bool
    latest: bool
    bundle: Path | None
    seconds: float | None


def point_to(bundle: Path, *, always: bool) -> None:
    """Make a finished bundle the latest of its output directory; unless `always`, only where there is a pointer.

    The pointer is replaced as a whole: who reads it gets a whole path to a whole bundle.
    """
    directory = bundle.parent.parent
    if always or (directory / LATEST).is_file():
        write_whole(directory / LATEST, f"{bundle.relative_to(directory).as_posix()}\n")


def list_runs(
    directory: Path,
    *,
    revocations: Revocations,
    ledger: Ledger | None = None,
    resumable: Collection[str] | None = None,
) -> tuple[ListedRun, ...]:
    """All runs, the newest first. Raises UserError without such a directory.

    `resumable` are the ids of those that `--resume` would go on with; where nobody has asked, the ones that died with
    all that they drew saved whole.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; name a run.yaml, or the output folder of its runs")
    charged = None if ledger is None else {run.run_id for one in ledger.populations() for run in one.charged}
    folders = [RunFolder(path.parent.parent) for path in directory.glob("*/internal/run.json")]
    moments = {folder: folder.created() for folder in folders}
    newest_first = sorted(folders, key=lambda folder: (moments[folder], folder.run_id), reverse=True)
    latest = _latest(directory, newest_first)
    return tuple(
        ListedRun(
            run=folder.run_id,
            created=moments[folder],
            state=_state(folder, revocations, resumable),
            epsilon=_epsilon(folder),
            charged=None if charged is None else folder.run_id in charged,
            private_gone=not folder.private.exists(),
            latest=folder.run_id == latest,
            bundle=folder.bundle if folder.bundle.is_dir() else None,
            seconds=_seconds(folder),
        )
        for folder in newest_first
    )


def prune(
    directory: Path, *, keep: int, revocations: Revocations, dry_run: bool = False, now: datetime | None = None
) -> tuple[ListedRun, ...]:
    """Remove all but the newest `keep` of the runs that nobody needs; returns the removed.

    These are failed, undecided or rejected. Never one that was approved or revoked, is damaged or at work, or made the
    latest bundle. Working files that dead runs have left go too. With `dry_run` nothing is touched.
    """
    youngest = (now or datetime.now(UTC)) - GRACE
    old = [
        run
        for run in list_runs(directory, revocations=revocations)  # what can be resumed goes when its time is over
        if run.state in REMOVABLE and not run.latest and datetime.fromisoformat(run.created) < youngest
    ][keep:]
    if dry_run:
        return tuple(old)
    delete_leftovers(directory)
    for aside in directory.glob(f".*{PRUNED}"):  # of a prune that was killed
        shutil.rmtree(aside, ignore_errors=True)
    return tuple(run for run in old if _remove(RunFolder(directory / run.run), revocations))


def _remove(folder: RunFolder, revocations: Revocations) -> bool:
    """Remove a run unless somebody works on it, or has decided otherwise meanwhile. It vanishes in one rename."""
    with try_lock(folder.path) as free:
        if not free:
            return False
        if not folder.bundle.is_dir():
            return _vanish(folder)
        with locked(folder.bundle):  # nobody decides about it meanwhile
            return _state(folder, revocations) in REMOVABLE and _vanish(folder)


def _vanish(folder: RunFolder) -> bool:
    aside = folder.path.with_name(f".{folder.run_id}{PRUNED}")
    folder.path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _state(folder: RunFolder, revocations: Revocations, resumable: Collection[str] | None = None) -> State:
    if folder.bundle.is_dir():
        try:
            return examine(folder.bundle, revocations=revocations(folder.bundle)).state
        except SynthError:
            return "damaged"
    if folder.replaced.is_dir():  # newly documented, and killed: `synth document` puts it back
        return "damaged"
    if folder.private.is_dir():
        with try_lock(folder.path) as free:
            if not free:
                return "drafting"
    died_whole = folder.saved and folder.started().get("makes") == "bundle"
    if died_whole if resumable is None else folder.run_id in resumable:
        return "resumable"
    return "audit" if (folder.internal / "audit.html").is_file() else "failed"


def _epsilon(folder: RunFolder) -> float | None:
    try:
        if folder.bundle.is_dir():
            return claims_of(folder.bundle).epsilon
        asked = read_yaml(folder.internal / "run.yaml")["privacy"]["epsilon"]
        return float(asked)
    except (SynthError, LookupError, TypeError, ValueError):
        return None


def _seconds(folder: RunFolder) -> float | None:
    noted = noted_in(folder.internal)
    return round(sum(duration.seconds for duration in noted), 3) if noted else None


def _latest(directory: Path, newest_first: Sequence[RunFolder]) -> str | None:
    """Whose bundle is the latest: by the pointer, where there is one."""
    if (directory / LATEST).is_file():
        return (directory / LATEST).read_text(encoding="utf-8").partition("/")[0]
    return next((folder.run_id for folder in newest_first if folder.bundle.is_dir()), None)
