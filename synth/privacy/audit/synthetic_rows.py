"""The audit that every run makes of itself, on its own synthetic rows: post-processing, so free and public."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from synth.errors import SynthError
from synth.facts import AuditFacts
from synth.privacy.audit.one_run import CANARIES, Audit, one_run_audit
from synth.privacy.budget import TablePlan
from synth.schema import Schema
from synth.tables.codec import codecs_of
from synth.tables.encode import encode
from synth.tables.layout import Layout

AUDITED_ROWS = 10_000
"""Synthetic rows that stand beside the canaries. The audit is about the mechanism, for which any rows will do."""


class ClaimRefuted(SynthError):
    """The audit contradicts the ε that the run claims: the software or its assumptions are at fault."""


def audit_of_rows(
    batches: Iterable[pa.RecordBatch],
    schema: Schema,
    *,
    layout: Layout,
    plan: TablePlan,
    delta: float,
    folder: Path,
    canaries: int = CANARIES,
    rows: int = AUDITED_ROWS,
) -> Audit:
    """One-run audit on rows that cost nothing: synthetic ones, or those of a declared public table.

    Args:
        batches: the rows.
        schema: the public schema.
        layout: what the run measures.
        plan: the run's releases.
        delta: the run's δ.
        folder: working files, an existing folder of the caller's.
        canaries: how many to plant.
        rows: at most so many rows are used, the first ones.
    """
    base = folder / "base.arrow"
    encode_free_rows(batches, schema, base, rows=rows)
    return one_run_audit(base, schema, layout=layout, plan=plan, delta=delta, folder=folder, canaries=canaries)


def encode_free_rows(batches: Iterable[pa.RecordBatch], schema: Schema, destination: Path, *, rows: int) -> None:
    """Encode the first rows of a table whose rows are nobody's; each counts by itself."""
    encode(first_rows(batches, rows), codecs_of(schema), destination)


def first_rows(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The first rows of a table, batch by batch."""
    left = rows
    for batch in batches:
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
        if left == 0:
            return


def refuse_refuted(audit: Audit) -> AuditFacts:
    """The facts, when they do not refute the claim. Raises ClaimRefuted.

    What was read are synthetic rows and planted records, so that stopping here says nothing about the people.
    """
    facts = audit.facts
    if audit.refuted:
        raise ClaimRefuted(
            f"audit: planted records contradict the claimed ε={facts.claimed_epsilon:g} at δ={facts.delta:g}, which an "
            "honest run meets less than twice in a million; nothing is published, and the budget stays spent. Publish "
            "nothing made by this version until the fault is found (synthetic rows alone were read for this)"
        )
    return facts
