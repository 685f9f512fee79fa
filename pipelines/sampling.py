"""`synth sample`: rows from a bundle's model."""

from __future__ import annotations

import json
from pathlib import Path

from synth.errors import UserError, VerificationFailed
from synth.parquet import synthetic_metadata, write_file
from synth.tables.decode import arrow_schema
from synth.tables.model import TableModel
from synth.tables.rows import parse_conditions, sample_rows


def sample_to_file(bundle: Path, *, rows: int, where: list[str], seed: int | None, output: Path) -> int:
    """Draw rows from the model in `bundle` into one Parquet file; returns how many.

    Raises UserError for a missing bundle or an impossible condition, VerificationFailed for a damaged model.
    """
    if not bundle.is_dir():
        raise UserError(f"{bundle}: no such folder; name a bundle folder (the last line that `synth run` printed)")
    if not output.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist")
    model = TableModel.load(bundle / "model")
    conditions = parse_conditions(model, where)
    try:
        claims = json.loads((bundle / "privacy.json").read_bytes())["x_synth"]
        metadata = synthetic_metadata(
            epsilon=float(claims["epsilon"]),
            delta=float(claims["delta"]),
            privacy_unit=claims["privacy_unit"],
            run_id=claims["run"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise VerificationFailed(f"{bundle}: privacy.json is missing or damaged") from None
    batches = sample_rows(model, rows, seed=seed, conditions=conditions)
    return write_file(batches, arrow_schema(model.schema, model.codecs), output, metadata)
