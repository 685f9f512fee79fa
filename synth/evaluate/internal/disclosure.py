"""Disclosure: what the synthetic rows give away about the people they were learned from, beside a control group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from synth.evaluate.internal.attacks import attribute_inference, linkability
from synth.evaluate.internal.copies import ClosestRecords, CopyAlarm, copies, copies_within, near_copies
from synth.evaluate.internal.intervals import Risk
from synth.evaluate.internal.membership import Membership, membership
from synth.evaluate.internal.rows import Rows, is_ordered
from synth.evaluate.internal.singling_out import singling_out
from synth.tables.codec import Codec

ATTEMPTS = 1_000
PROBES = 2_000
FEW_COLUMNS = 40
"""Beyond so many columns fewer attacks are made, so that their time does not grow."""


@dataclass(frozen=True)
class Disclosure:
    """Copies always; the rest only with training rows and held-out rows.

    Attributes:
        rows: rows of each table that the attacks looked at.
        risks: singling out and linkability; inference: attribute inference, by column.
        left_out: why the attacks were not made, if so.
    """

    rows: int
    copies: CopyAlarm
    near_copies: CopyAlarm | None
    closest: ClosestRecords | None
    membership: Membership | None
    risks: tuple[Risk, ...]
    inference: tuple[Risk, ...]
    left_out: str | None


def disclosure(
    real: Rows,
    synthetic: Rows,
    training: Rows | None,
    codecs: Mapping[str, Codec],
    *,
    mu: float | None,
    rng: np.random.Generator,
) -> Disclosure:
    """All attacks, on equally many rows of each table.

    Args:
        real: held-out rows; training: the rows that were learned, or None when they are not at hand.
        mu: the stated Gaussian privacy, for what it leaves possible.
    """
    if training is None:
        alarm = copies_within(synthetic.fingerprints, real.fingerprints, rng=rng)
        left_out = "the attacks need the rows that were learned as well as held-out rows"
        return Disclosure(len(real.matrix), alarm, None, None, None, (), (), left_out)
    fewer = min(1.0, FEW_COLUMNS / len(codecs))
    attempts, probes = int(ATTEMPTS * fewer), int(PROBES * fewer)
    rows = min(len(table.matrix) for table in (real, synthetic, training))
    learned, held, fake = (table.take(rows) for table in (training, real, synthetic))
    near = near_copies(fake, learned, held, codecs, probes=probes)
    targets = (learned[:attempts], held[:attempts], fake)
    linked = linkability(*targets, codecs, rng=rng)
    return Disclosure(
        rows=rows,
        copies=copies(synthetic.fingerprints, training.fingerprints, real.fingerprints),
        near_copies=None if near is None else near[0],
        closest=None if near is None else near[1],
        membership=membership(learned, held, fake, codecs, most=probes, mu=mu),
        risks=(
            *singling_out(learned, held, fake, is_ordered(codecs), attempts=attempts, rng=rng),
            *([linked] if linked else []),
        ),
        inference=tuple(attribute_inference(*targets, codecs, rng=rng)),
        left_out=None,
    )
