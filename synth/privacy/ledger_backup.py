"""A ledger as one file: canonical JSON with every entry and the chain's head.

    {"entries": […], "format": "dp-synth-ledger/1", "head": "…", "layout": 2}

It holds what the ledger holds, so it is as private as the ledger. A backup whose tail was cut off together with its
head is intact in itself: bundles show it, as with a ledger that was rolled back.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, ValidationError

from synth.errors import UserError, VerificationFailed
from synth.files import canonical_json
from synth.privacy.ledger_chain import Entry, Kind, head_of
from synth.privacy.ledger_table import LAYOUT_VERSION

FORMAT = "dp-synth-ledger/1"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seq: int
    time: str
    population: str
    dataset: str | None
    run_id: str | None
    kind: Kind
    payload: str
    previous: str
    hash: str


def backup_of(entries: tuple[Entry, ...]) -> bytes:
    """The backup of a ledger with these entries."""
    rows = [asdict(entry) for entry in entries]
    return canonical_json({"format": FORMAT, "layout": LAYOUT_VERSION, "head": head_of(entries), "entries": rows})


def entries_of(content: bytes) -> tuple[Entry, ...]:
    """The entries of a backup; their chain is the caller's to verify.

    Raises UserError for a file that is no backup or needs newer software, VerificationFailed for one that was changed.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or "entries" not in value or "format" not in value:
        raise UserError("backup: is not a ledger's backup; name a file that `synth budget backup` wrote")
    if value["format"] != FORMAT or not isinstance(value.get("layout"), int) or value["layout"] > LAYOUT_VERSION:
        raise UserError("backup: was written by another version; use newer software")
    try:
        rows = [_Row.model_validate(row) for row in value["entries"]]
        intact = set(value) == {"format", "layout", "head", "entries"} and canonical_json(value) == content
    except (ValidationError, TypeError, ValueError):
        intact, rows = False, []
    entries = tuple(Entry(**row.model_dump()) for row in rows)
    if not intact or value["head"] != head_of(entries):
        raise VerificationFailed("backup: was changed after it was written")
    return entries
