"""`synth contrast`: how a bundle's columns change from some rows to others, by its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from datasheets.insight import shift_in_words
from pipelines.budget_view import print_table
from pipelines.options import AsJson
from pipelines.releasing import shown
from pipelines.sampling import table_model
from synth.errors import NotBuiltYet, UserError, VerificationFailed
from synth.facts import ShiftFacts

SHOWN = 20
"""Columns that are shown, those that change most; the JSON has all."""
READING = (
    "How the model's columns change from the rows of `against` to those of `where`: the total variation distance of "
    "their bins, and the mean or the share that moves most. `measured` says whether the column was measured together "
    "with each column of the conditions; where it was not, its change is the model's guess. What noise leaves open is "
    "not in it: quality.json has the noise of every measured pair."
)

Conditions = Annotated[
    list[str],
    typer.Option("--where", help="As for synth sample: COLUMN=VALUE and so on; repeat for several, all hold."),
]
Others = Annotated[
    list[str] | None,
    typer.Option("--against", help="The rows to compare with, written alike. Default: all rows of the model."),
]


def contrast(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder, of a table.", show_default=False)],
    where: Conditions,
    against: Others = None,
    as_json: AsJson = False,
) -> None:
    """Tell how each column changes between two kinds of rows, by the bundle's model. Costs no budget.

    Exact for any conditions, however rare: nothing is drawn. For the classes of the target the bundle's own quality
    page has the same, with what noise leaves open.
    """
    from synth.images.model import is_image_model
    from synth.insight.given import given, measured_with, shifts_between
    from synth.tables.conditions import parse_conditions

    if not bundle.is_dir():
        raise UserError(f"{bundle}: no such folder; name a bundle folder (the last line that `synth run` printed)")
    if is_image_model(bundle / "model"):
        raise NotBuiltYet(f"{bundle}: contrast is offered for tables, not for images, by this version")
    model = table_model(bundle)
    sides = [parse_conditions(model.codecs, texts) for texts in (against or [], where)]
    before, after = (given(model, side) for side in sides)
    pairs = _measured_pairs(bundle)
    asked = {name for side in sides for name in side}
    shifts = [(shift, measured_with(asked, pairs, shift.column)) for shift in shifts_between(model, before, after)]
    if as_json:
        found = {
            "reading": READING,
            "against": {"conditions": against or [], "share": before.share},
            "where": {"conditions": where, "share": after.share},
            "shifts": [_plain(*shift) for shift in shifts],
        }
        typer.echo(json.dumps(found))
        return
    named = (" and ".join(against or []) or "all rows", " and ".join(where))
    typer.echo(shown(f"{named[0]} ({before.share:.2%} of the model's rows) → {named[1]} ({after.share:.2%})"))
    units = {column.name: getattr(column, "unit", None) or "" for column in model.schema.columns}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("column", "distance", "what moves most", ""):
        table.add_column(title, overflow="fold")
    for shift, measured in shifts[:SHOWN]:
        words = shift_in_words(shift, units[shift.column], ()).replace("\N{NO-BREAK SPACE}", " ")
        note = "" if measured else "not measured together: the model's guess"
        table.add_row(*(Text(shown(word)) for word in (shift.column, f"{shift.distance:.3f}", words, note)))
    print_table(table)
    if len(shifts) > SHOWN:
        typer.echo(f"{len(shifts) - SHOWN} more, which change less, with --json")


def _plain(shift: ShiftFacts, measured: bool) -> dict[str, Any]:
    told = shift.model_dump(mode="json", include={"column", "distance", "what", "level", "values"})
    return {**told, "measured": measured}


def _measured_pairs(bundle: Path) -> set[frozenset[str]]:
    """The pairs of columns that were measured, by the bundle's public scores."""
    try:
        quality = json.loads((bundle / "quality.json").read_bytes())
        return {frozenset(pair["columns"]) for pair in quality["pairs"]["measured"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise VerificationFailed(f"{bundle}: quality.json is missing, damaged or of an earlier version") from None
