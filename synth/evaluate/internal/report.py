"""The full report: fidelity, utility, detection and disclosure of a bundle against rows that its run has not seen.

Its time is bounded by sampling: SAMPLE_ROWS of each table at most, fewer where a section says so.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from synth.errors import UserError
from synth.evaluate.internal.detection import Detection, detection
from synth.evaluate.internal.disclosure import Disclosure, disclosure
from synth.evaluate.internal.fidelity import Fidelity, fidelity
from synth.evaluate.internal.page import full_page
from synth.evaluate.internal.rows import Rows, fingerprints
from synth.evaluate.internal.sdmetrics_scores import LibraryScores, library_scores
from synth.evaluate.internal.utility import Utility, utility
from synth.files import write_whole
from synth.tables.codec import Codec

logger = logging.getLogger(__name__)

T = TypeVar("T")

SAMPLE_ROWS = 20_000
SEED = 0
REPEATED_APART = 0.05
JSON_NAME, PAGE_NAME = "evaluation.json", "evaluation.html"


@dataclass(frozen=True)
class Subject:
    """What is reported on: public facts of the bundle, and where the real rows came from."""

    run: str
    epsilon: float
    delta: float
    mu: float | None
    intact: bool
    real: str
    training: str | None


@dataclass(frozen=True)
class TableSize:
    """Rows of a table, and how many of them were sampled."""

    total: int
    sampled: int


@dataclass(frozen=True)
class Report:
    """The full report. `notes` say in words what was left out and why; `seconds` what each section took."""

    subject: Subject
    created: str
    tables: dict[str, TableSize]
    fidelity: Fidelity
    library: LibraryScores
    utility: Utility | None
    detection: Detection
    disclosure: Disclosure
    notes: tuple[str, ...]
    seconds: dict[str, float]


def full_report(
    subject: Subject,
    real: Rows,
    synthetic: Rows,
    training: Rows | None,
    codecs: Mapping[str, Codec],
    *,
    target: str | None,
    subgroups: Sequence[str] = (),
    created: str,
    notes: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Every section in turn, from samples of the three tables.

    Args:
        subject: the bundle in words.
        real: held-out rows; synthetic: the bundle's rows; training: the rows it was learned from, when at hand.
        codecs: codecs of the learned columns, in the schema's order.
        target: what the utility models predict; subgroups: columns scored level by level.
        created: when, ISO 8601; notes: what the caller has to say.
    """
    seconds: dict[str, float] = {}
    said = list(notes)
    learned = None if training is None else training.matrix

    def timed(section: str, work: Callable[[], T]) -> T:
        logger.info("evaluate: %s", section)
        start = clock()
        result = work()
        seconds[section] = round(clock() - start, 2)
        return result

    def rng(section: int) -> np.random.Generator:
        return np.random.default_rng([SEED, section])

    def useful() -> Utility | None:
        if target is None:
            said.append("Utility was left out: the schema declares no target. Name a column with --target.")
            return None
        try:
            return utility(real.matrix, synthetic.matrix, learned, codecs, target=target, subgroups=subgroups)
        except UserError as error:  # what cannot be learned depends on exact rows, so only the report may say it
            said.append(f"Utility was left out: {str(error).removeprefix('utility: ')}.")
            return None

    if training is not None:
        said += unlike(training, real)
    return Report(
        subject=subject,
        created=created,
        tables={
            name: TableSize(table.total, len(table.matrix))
            for name, table in (("real", real), ("synthetic", synthetic), ("training", training))
            if table is not None
        },
        fidelity=timed("fidelity", lambda: fidelity(real.matrix, synthetic.matrix, learned, codecs, rng=rng(0))),
        library=timed("sdmetrics", lambda: library_scores(real.matrix, synthetic.matrix, codecs)),
        utility=timed("utility", useful),
        detection=timed("detection", lambda: detection(real.matrix, synthetic.matrix, learned, codecs, rng=rng(1))),
        disclosure=timed(
            "disclosure", lambda: disclosure(real, synthetic, training, codecs, mu=subject.mu, rng=rng(2))
        ),
        notes=tuple(said),
        seconds=seconds,
    )


def unlike(training: Rows, held_out: Rows) -> list[str]:
    """What speaks against the held-out rows as a control group: rows that repeat each other more, or less."""
    rows = min(len(training.matrix), len(held_out.matrix))
    repeated = [1 - len(np.unique(fingerprints(table.take(rows)))) / rows for table in (training, held_out)]
    if abs(repeated[0] - repeated[1]) <= REPEATED_APART:
        return []
    return [
        f"The held-out rows are no good control group: {repeated[1]:.0%} of them repeat another, and "
        f"{repeated[0]:.0%} of the rows that were learned. Both should be people drawn in the same way, each once. "
        "Do not trust the attacks."
    ]


def alarms(report: Report) -> list[str]:
    """What the steward has to look at before anything else, in words."""
    found = []
    d = report.disclosure
    for what, alarm in (("copies", d.copies), ("near-copies", d.near_copies)):
        if alarm is not None and alarm.alarm:
            found.append(
                f"{what.capitalize()}: {alarm.synthetic_rows:,} synthetic rows repeat real ones that chance "
                f"hardly explains ({alarm.copied:,} distinct rows, against {alarm.by_chance:,} in the comparison)."
            )
    for attack in d.membership.attacks if d.membership else ():
        if attack.broken:
            found.append(f"Membership ({attack.name}): more is won than the privacy statement leaves possible.")
        elif attack.alarm:
            found.append(f"Membership ({attack.name}): training people can be told from held-out people.")
    for risk in (*d.risks, *d.inference):
        if risk.alarm:
            found.append(
                f"{risk.name.capitalize()}: training people fare worse than held-out people "
                f"(risk {100 * risk.risk.value:.1f} %)."
            )
    return found


def write_report(report: Report, folder: Path) -> Path:
    """Write the page and the JSON, each whole and for its owner alone; returns the page's path."""
    found = alarms(report)
    write_whole(folder / JSON_NAME, json.dumps(asdict(report) | {"alarms": found}, indent=1))
    write_whole(folder / PAGE_NAME, full_page(report, found))
    return folder / PAGE_NAME
