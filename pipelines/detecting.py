"""`synth detect`: whether a table's rows, or pictures, come from a bundle, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.detecting_images import in_digits, said_by, tell_of_pictures
from pipelines.options import AsJson
from pipelines.releasing import RevocationList, lists_to_read, shown
from synth.errors import InvalidSource
from synth.privacy.boundary import guarded
from synth.release import examine
from synth.threads import torch_threads

if TYPE_CHECKING:
    from synth.detect import Detection

VERDICTS = {
    "whole": "from this bundle: every row of the table is one of its rows",
    "part": "in part from this bundle: more of its rows are in the table than chance explains",
    "none": "not from this bundle: no more rows match than chance explains",
    "unknown": "cannot be told: independent rows would match as well; name a table with more rows or more columns",
}


def detect(
    file: Annotated[
        Path,
        typer.Argument(
            help="A Parquet or CSV table, or a folder of its files; of images, a picture, a folder of pictures, or "
            "Parquet.",
            show_default=False,
        ),
    ],
    bundle: Annotated[Path, typer.Option("--bundle", help="The bundle folder to compare with.", show_default=False)],
    revocations: RevocationList = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether a table's rows, or pictures, come from a bundle: all of them, some of them, or none.

    Rows are compared by value, so a shuffled or cut copy, one without metadata, and one with fewer columns or as CSV
    are found; pictures by their pixels, whatever the kind of file, and then by likeness. How often chance alone would
    show as much stands beside it. The bundle is verified first; only its public files are read, so it costs nothing.
    """
    from synth import detect as detection
    from synth.images.brought import holds_pictures
    from synth.images.model import is_image_model

    verified = examine(bundle, revocations=lists_to_read(bundle, revocations))
    if is_image_model(bundle / "model"):
        tell_of_pictures(file, bundle, run=verified.run_id, as_json=as_json)
        return
    if holds_pictures(file):
        raise InvalidSource(f"{file}: holds pictures, and {bundle} is a bundle of a table; name a Parquet or CSV table")
    with torch_threads(1), guarded("detect"):  # the table may be anybody's: a library's error could quote a value of it
        found = detection.detect(file, bundle, run_id=verified.run_id)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "bundle": str(bundle), "run": verified.run_id, **asdict(found)}))
        return
    for line in _lines(file, verified.run_id, found):
        typer.echo(shown(line))


def _lines(file: Path, run: str, found: Detection) -> Iterator[str]:
    yield f"{file}: {VERDICTS[found.verdict]}"
    yield f"  rows: {found.found:,} of {found.rows:,} are the bundle's (run {run}), {found.found / found.rows:.1%}"
    yield f"  the bundle: {found.bundle_found:,} of its {found.bundle_rows:,} rows are in the table"
    yield f"  chance: {found.different_found:,} of {found.different:,} different rows judged match; by chance at most"
    chance = in_digits(found.p_value)
    yield f"    {found.expected:.3g} would on average, and as many or more with probability {chance} or less"
    if found.verdict == "part":
        yield f"  estimated share of rows from the bundle: {found.share:.1%}"
    without = f"; without {', '.join(found.absent)}" if found.absent else ""
    yield f"  compared: {len(found.columns)} columns{without}"
    yield f"  metadata: {said_by(found.metadata)}"
