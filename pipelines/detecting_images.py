"""`synth detect` of pictures, in words and as JSON; and what is said alike of tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipelines.releasing import shown
from synth.privacy.boundary import guarded

if TYPE_CHECKING:
    from synth.images.detect import ImageDetection

VERDICTS = {
    "whole": "from this bundle: every picture is one of its pictures, or near to one",
    "part": "in part from this bundle: more of its pictures are in the file than chance explains",
    "none": "not from this bundle: no more pictures match than chance explains",
    "unknown": "cannot be told: independent pictures might match as well; name more pictures, or larger ones",
}
KINDS = {
    "pixels": "has the pixels of the bundle's picture {row}",
    "near": "is near to the bundle's picture {row}",
    "crop": "is near to a part of the bundle's picture {row}",
    "none": "is like none of the bundle's",
    "not judged": "has the pixels of none of the bundle's; its likeness was not judged",
    "unreadable": "cannot be read",
}
SHOWN = 10
"""How many pictures are told of one by one; the JSON has all."""


def tell_of_pictures(file: Path, bundle: Path, *, run: str, as_json: bool) -> None:
    """Print what is found of the pictures in `file`. Raises as `synth.images.detect.detect_images`."""
    from synth.images.detect import detect_images

    with guarded("detect"):  # the pictures may be anybody's
        found = detect_images(file, bundle, run_id=run)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "bundle": str(bundle), "run": run, **asdict(found)}))
        return
    for line in _lines(file, run, found):
        typer.echo(shown(line))


def _lines(file: Path, run: str, found: ImageDetection) -> Iterator[str]:
    yield f"{file}: {VERDICTS[found.verdict]}"
    share = found.found / found.pictures
    yield f"  pictures: {found.found:,} of {found.pictures:,} are the bundle's, pixel by pixel (run {run}), {share:.1%}"
    yield f"  the bundle: {found.bundle_found:,} of its {found.bundle_pictures:,} pictures are in the file"
    yield f"  chance: {found.different_found:,} of {found.different:,} different pictures judged match; by chance at"
    chance = in_digits(found.of_pixels)
    yield f"    most {found.expected:.3g} would on average, and as many or more with probability {chance} or less"
    if found.judged_near:
        yield f"  near: {found.near:,} more pictures (lossy, resized, brighter or cut); {found.judged_near:,} different"
        chance = in_digits(found.of_near)
        yield f"    others judged; by chance one of them is as near as the nearest with probability {chance} or less;"
        own = f"{found.own_judged:,} of the bundle's own"
        yield f"    of {own}, {found.own_shown:.0%} would be known by a copy of correlation {found.would_show}"
    if found.unreadable:
        yield f"  not read: {found.unreadable:,}"
    if len(found.answers) <= SHOWN:
        for answer in found.answers:
            yield f"  {answer.name}: {KINDS[answer.found].format(row=answer.row)}"
    if found.marked:
        yield f"  marked: {found.marked:,} say in their file that they are synthetic (anyone can write that)"
    yield f"  metadata: {said_by(found.metadata)}"


def said_by(metadata: dict[str, Any] | None) -> str:
    """What a file says of where it comes from."""
    if metadata is None:
        return "none that a bundle's files have"
    if metadata["this_run"]:
        return "says that it is from this run (anyone can write that)"
    return f"says that it is from run {metadata.get('run', 'unknown')}, which is another (anyone can write that)"


def in_digits(chance: float) -> str:
    """A probability in two digits."""
    return "1e-300" if chance < 1e-300 else f"{chance:.2g}"
