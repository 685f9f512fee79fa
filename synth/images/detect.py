"""Detect: whether pictures are pictures of a bundle, and how sure that is. Reads public files and the pictures alone.

A file that is asked about may be anybody's, so it is decoded in the process of its own that sources have for TIFF and
DICOM. Equal pixels (`equal_pixels`) are looked up for every picture. Of what is not equal, a random choice is compared
with every picture of the bundle (`nearness`): a copy by JPEG, in another size or brightness, or cut out of one, stands
out from the rest. To have enough of a rest, fresh draws from the released model join a small bundle's pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from synth.detect import SURE, Verdict, chance_of_as_many, is_parquet, metadata_of
from synth.errors import InvalidSource
from synth.image_files import DicomReading, TiffReading
from synth.image_schema import IMAGE_COLUMN, ImageFormat
from synth.images.brought import Brought, brought
from synth.images.equal_pixels import PixelChance, print_of
from synth.images.model import ImageModel
from synth.images.nearness import Highest, Likeness, best_within, chance_of_gap, fisher, on_grid
from synth.images.picture import blank, read_picture, resized, with_channels
from synth.images.reading import PictureReader
from synth.images.sample import draw_pixels
from synth.images.source import class_of
from synth.images.unreadable import Unreadable
from synth.parquet import read_parts

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]
Prints = npt.NDArray[np.uint64]
Kind = Literal["pixels", "near", "crop", "none", "not judged", "unreadable"]

NEAR = 1e-4
"""A picture is said to be near to one of the bundle's when chance shows as much at most this often, of one picture.
Whether any comes from the bundle is asked by SURE, of all that were judged together."""
DOUBT = 0.01
"""Likenesses that chance shows more often than this among all that were judged leave no doubt about "none"."""
JUDGED = 1_000
"""Different pictures, drawn at random, whose chance of equal pixels is computed."""
JUDGED_NEAR, JUDGED_CROPS = 200, 10
"""Different pictures without an equal, drawn at random, that are compared with all; and smaller ones slid over them."""
OWN = 100
"""Pictures of the bundle that are compared with its others, to say what a copy would show."""
WOULD_SHOW = 0.98
"""The correlation of such a copy: about that of JPEG at quality 50."""
CROP_SIDE, LEAST_CROP = 64, 0.5
"""The largest side of pictures over which others are slid, and the least share of each side that these have."""
ENOUGH, MOST_DRAWN = 4_000, 1 << 27
"""Fresh draws join the bundle's pictures up to so many, and up to so many pixels."""
AT_ONCE, PIXELS_AT_ONCE, PIXELS_KEPT = 512, 1 << 24, 1 << 26


@dataclass(frozen=True)
class Answer:
    """What was found of one picture.

    Attributes:
        name: its file, or its row in Parquet.
        found: "pixels" (equal pixels), "near" (stands out as a likeness), "crop" (as a part of one), "none", "not
            judged" (no equal, and not among those drawn for comparison) or "unreadable".
        row: the bundle's picture, counted from 1; None where none was found.
        p_value: how often chance would show as much of this picture, at most; None where it was not judged.
    """

    name: str
    found: Kind
    row: int | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class ImageDetection:
    """What was found.

    Attributes:
        verdict: "whole" (every picture is the bundle's), "part" (some are), "none" (none is, and the bundle's own would
            have shown), "unknown" (chance could make every picture match, or a likeness is not certain enough).
        pictures: those that could be read. unreadable: the others.
        found: how many of them have the pixels of one of the bundle's. near: how many more are near, of those judged.
        different: different pictures judged by pixels. different_found: how many of these the bundle has.
        expected: how many of them chance would find, at most; of_pixels: how often it would find so many, at most.
        judged_near: different pictures without an equal that were compared with all of the bundle's.
        of_near: how often chance would show as near a one among all these, at most.
        p_value: of both together.
        own_shown: share of the bundle's own pictures of which a copy of correlation `would_show` would be called near.
        own_alarms: how many of those pictures, `own_judged`, were called near to another one.
        bundle_pictures: pictures of the bundle. bundle_found: how many of them are in the file, pixel by pixel.
        marked: pictures whose file says that it is synthetic. metadata: what Parquet or DICOM says of its run. Anyone
            can write such words.
        answers: of each picture.
    """

    verdict: Verdict
    pictures: int
    unreadable: int
    found: int
    near: int
    different: int
    different_found: int
    expected: float
    of_pixels: float
    judged_near: int
    of_near: float
    p_value: float
    own_shown: float
    own_alarms: int
    own_judged: int
    would_show: float
    bundle_pictures: int
    bundle_found: int
    marked: int
    metadata: dict[str, Any] | None
    answers: tuple[Answer, ...] = field(repr=False)


@dataclass(frozen=True)
class _Own:
    """A bundle's pictures after one pass: hashes and classes in their order, mean pictures on the grid by class."""

    prints: Prints
    labels: IntArray
    sizes: IntArray
    means: FloatArray
    whole_mean: FloatArray

    def first(self) -> IntArray:
        """The rows [different] of pictures that none before them equals."""
        return np.sort(np.unique(self.prints, return_index=True)[1]).astype(np.int64)


@dataclass
class _Asked:
    """The pictures asked about after one pass. `kept` has, by hash, a random choice of the different ones."""

    names: list[str]
    prints: list[int | None]
    kept: dict[int, UInt16Array]
    others: dict[int, UInt16Array]
    marked: int
    run: str | None


def detect_images(file: Path, bundle: Path, *, run_id: str) -> ImageDetection:
    """Compare a picture, a folder of pictures or a Parquet file of them with those of an intact bundle of run `run_id`.

    Raises InvalidSource for what holds no picture that can be read, VerificationFailed for a damaged model.
    """
    model = ImageModel.load(bundle / "model")
    own = _own(bundle, model)
    asked = _read(file, model.schema.image, own.prints)
    prints = np.array([p for p in asked.prints if p is not None], dtype=np.uint64)
    chance = PixelChance(model, own.sizes)
    chances = {p: chance(_of_form(pixels, model.schema.image)) for p, pixels in asked.kept.items()}
    expected = sum(chances.values())
    hits = int(np.isin(np.array([*asked.kept], dtype=np.uint64), own.prints).sum())
    of_pixels = chance_of_as_many(hits, expected)
    near = _compared(model, bundle, own, asked.others)
    answers = tuple(_answers(asked, own, chances, near))
    of_near = min(1.0, len(asked.others) * min((p for _, _, p in near.found.values()), default=1.0))
    p_value = min(1.0, 2 * min(of_pixels, of_near))
    return ImageDetection(
        verdict=_verdict(answers, p_value, of_near, chance_of_as_many(len(asked.kept), expected)),
        pictures=len(prints),
        unreadable=len(asked.names) - len(prints),
        found=int(np.isin(prints, own.prints).sum()),
        near=sum(answer.found in ("near", "crop") for answer in answers),
        different=len(asked.kept),
        different_found=hits,
        expected=expected,
        of_pixels=of_pixels,
        judged_near=len(asked.others),
        of_near=of_near,
        p_value=p_value,
        own_shown=near.own_shown,
        own_alarms=near.own_alarms,
        own_judged=near.own_judged,
        would_show=WOULD_SHOW,
        bundle_pictures=len(own.prints),
        bundle_found=int(np.isin(own.prints, prints).sum()),
        marked=asked.marked,
        metadata=_said(file, bundle, run_id, asked.run),
        answers=answers,
    )


def _own(bundle: Path, model: ImageModel) -> _Own:
    form, classes = model.schema.image, len(model.schema.target.classes)
    prints, labels = [], []
    sums: FloatArray | None = None
    whole = np.zeros(form.shape)
    for pixels, label in _pictures(bundle, model):
        prints.append(print_of(pixels, form.bits))
        labels.append(label)
        small = on_grid(pixels, form)
        sums = np.zeros((classes, *small.shape)) if sums is None else sums
        sums[label] += small
        whole += pixels
    sizes = np.bincount(labels, minlength=classes)
    assert sums is not None  # an intact bundle has rows
    means = sums / np.maximum(sizes, 1)[:, None, None, None]
    return _Own(np.array(prints, dtype=np.uint64), np.array(labels), sizes, means, whole / len(prints))


def _pictures(bundle: Path, model: ImageModel) -> Iterator[tuple[UInt16Array, int]]:
    """The bundle's own pictures and classes, row by row."""
    form, target = model.schema.image, model.schema.target
    for batch in read_parts(bundle / "data", batch_rows=AT_ONCE):
        for content, label in zip(batch.column(IMAGE_COLUMN).field("bytes"), batch.column(target.name), strict=True):
            pixels = read_picture(content.as_py(), form)
            yield blank(form) if pixels is None else pixels, class_of(label.as_py(), target) or 0


def _read(file: Path, form: ImageFormat, known: Prints) -> _Asked:
    """One pass over the file. The choice is by hash, so that it is the same for the same pictures."""
    asked, why = _Asked([], [], {}, {}, 0, None), ""
    ours = {int(p) for p in np.unique(known)}
    every = {"dicom": DicomReading(frames="all"), "tiff": TiffReading(pages="all")}
    with PictureReader(form.model_copy(update=every)) as reader:
        for one in brought(file):
            asked.marked += one.marked
            asked.run = asked.run or one.run
            try:
                for name, pixels in _decoded(one, reader, form):
                    found = print_of(pixels, form.bits)
                    asked.names.append(name)
                    asked.prints.append(found)
                    _keep(asked.kept, found, pixels, JUDGED, form)
                    if found not in ours:
                        _keep(asked.others, found, pixels, JUDGED_NEAR, form)
            except Unreadable as error:
                asked.names.append(one.name)
                asked.prints.append(None)
                why = str(error)
    if all(p is None for p in asked.prints):
        raise InvalidSource(f"{file}: " + (f"no picture in it can be read: {why}" if asked.names else "has no rows"))
    return asked


def _decoded(one: Brought, reader: PictureReader, form: ImageFormat) -> Iterator[tuple[str, UInt16Array]]:
    count = reader.count_apart(one.content)
    assert one.content is not None
    for place in range(count):
        pixels = with_channels(reader.read_apart(one.content, place), form.channels)
        yield one.name if count == 1 else f"{one.name}, picture {1 + place}", pixels


def _keep(kept: dict[int, UInt16Array], found: int, pixels: UInt16Array, most: int, form: ImageFormat) -> None:
    """Keep the pictures with the smallest hashes, within memory: a large one shrinks to the bundle's own size."""
    if len(kept) >= max(1, min(most, PIXELS_KEPT // math.prod(form.shape))):
        largest = max(kept)
        if found >= largest:
            return
        del kept[largest]
    kept[found] = pixels if pixels.size <= math.prod(form.shape) else _resized(pixels, form)


def _resized(pixels: UInt16Array, form: ImageFormat) -> UInt16Array:
    return resized(pixels, form.model_copy(update={"resize": "stretch"}))


def _of_form(pixels: UInt16Array, form: ImageFormat) -> UInt16Array:
    return pixels if pixels.shape == form.shape else _resized(pixels, form)


@dataclass(frozen=True)
class _Near:
    """By hash, how a picture was found if it was, the bundle's row, and its p-value; and what the bundle's own show."""

    found: dict[int, tuple[Kind, int, float]]
    own_shown: float = 0.0
    own_alarms: int = 0
    own_judged: int = 0


def _compared(model: ImageModel, bundle: Path, own: _Own, others: dict[int, UInt16Array]) -> _Near:
    """Every picture of `others` against all of the bundle's, and some of these against the others of them."""
    if not others:
        return _Near({})
    form, likeness = model.schema.image, Likeness(own.means, own.sizes.astype(np.float64))
    vectors = likeness.vectors(np.stack([on_grid(pixels, form) for pixels in others.values()]))
    crops = [i for i, pixels in enumerate(others.values()) if _is_crop(pixels, form)][:JUDGED_CROPS]
    parts = [[*others.values()][i].astype(np.float64) for i in crops]
    different = own.first()
    tests = different[np.argsort(own.prints[different])][:OWN]
    mine = np.concatenate([np.zeros((0, vectors.shape[1])), *_vectors_at(model, bundle, likeness, tests)])
    highest, slid, self_highest = Highest(len(others)), Highest(len(parts)), Highest(len(tests))
    tests = np.sort(tests)
    for pixels, rows in _batches(model, bundle, different):
        theirs = likeness.vectors(np.stack([on_grid(one, form) for one in pixels]))
        highest.offer(fisher(vectors @ theirs.T), rows)
        z = fisher(mine @ theirs.T)
        z[rows[None, :] == tests[:, None]] = -np.inf
        self_highest.offer(z, rows)
        if parts:
            whole = pixels.astype(np.float64)
            slid.offer(np.stack([fisher(best_within(part, whole, own.whole_mean)) for part in parts]), rows)
    p_whole, p_part = _chances(highest), np.ones(len(others))
    where = highest.where.copy()
    p_part[crops] = _chances(slid)
    by_part = p_part < p_whole
    where[crops] = np.where(by_part[crops], slid.where, where[crops])
    p = np.minimum(1.0, np.minimum(p_whole, p_part) * (1 + np.isin(np.arange(len(others)), crops)))  # of two looks
    found: dict[int, tuple[Kind, int, float]] = {}
    for i, hashed in enumerate(others):
        kind: Kind = "none" if p[i] >= NEAR else "crop" if by_part[i] else "near"
        found[hashed] = kind, int(where[i]), float(p[i])
    shown = self_highest.sorted()
    copied = np.concatenate([np.full((len(shown), 1), fisher(np.array(WOULD_SHOW))), shown[:, :-1]], axis=1)
    would = np.where(copied[:, 0] >= copied[:, 1], chance_of_gap(copied, self_highest.compared), 1.0)
    return _Near(found, float((would < NEAR).mean()), int((_chances(self_highest) < NEAR).sum()), len(tests))


def _chances(highest: Highest) -> FloatArray:
    """The p-value of each; 1 where the highest is a fresh draw, which is no picture of the bundle."""
    return np.where(highest.where >= 0, chance_of_gap(highest.sorted(), highest.compared), 1.0)


def _vectors_at(model: ImageModel, bundle: Path, likeness: Likeness, rows: IntArray) -> Iterator[FloatArray]:
    """The vectors of some of the bundle's pictures, in the order of their rows."""
    form, wanted = model.schema.image, {int(row) for row in rows}
    for row, (pixels, _) in enumerate(_pictures(bundle, model)):
        if row in wanted:
            yield likeness.vectors(on_grid(pixels, form)[None])


def _batches(model: ImageModel, bundle: Path, different: IntArray) -> Iterator[tuple[UInt16Array, IntArray]]:
    """The bundle's different pictures with their rows from 0, then fresh draws from its model with −1."""
    form, wanted = model.schema.image, np.zeros(int(different.max()) + 1, dtype=bool)
    wanted[different] = True
    at_once = max(1, min(AT_ONCE, PIXELS_AT_ONCE // math.prod(form.shape)))
    pixels: list[UInt16Array] = []
    rows: list[int] = []
    for row, (one, _) in enumerate(_pictures(bundle, model)):
        if row < len(wanted) and wanted[row]:
            pixels.append(one)
            rows.append(row)
        if len(pixels) == at_once:
            yield np.stack(pixels), np.array(rows)
            pixels, rows = [], []
    if pixels:
        yield np.stack(pixels), np.array(rows)
    left = min(ENOUGH - len(different), MOST_DRAWN // math.prod(form.shape))
    rng = np.random.default_rng(0)  # the same question has the same answer
    while left > 0:
        drawn = min(left, at_once)
        labels = rng.choice(len(model.class_share), drawn, p=model.class_share)
        yield draw_pixels(model, labels, rng), np.full(drawn, -1)
        left -= drawn


def _is_crop(pixels: UInt16Array, form: ImageFormat) -> bool:
    h, w = pixels.shape[:2]
    fits = h <= form.height <= CROP_SIDE and w <= form.width <= CROP_SIDE and (h, w) != (form.height, form.width)
    return fits and h >= LEAST_CROP * form.height and w >= LEAST_CROP * form.width


def _answers(asked: _Asked, own: _Own, chances: dict[int, float], near: _Near) -> Iterator[Answer]:
    order = np.argsort(own.prints, kind="stable")
    known = own.prints[order]
    for name, found in zip(asked.names, asked.prints, strict=True):
        if found is None:
            yield Answer(name, "unreadable")
            continue
        at = int(np.searchsorted(known, np.uint64(found)))
        if at < len(known) and int(known[at]) == found:
            yield Answer(name, "pixels", 1 + int(order[at]), chances.get(found))
        elif found in near.found:
            kind, row, p = near.found[found]
            yield Answer(name, kind, None if kind == "none" else 1 + row, p)
        else:
            yield Answer(name, "not judged")


def _verdict(answers: tuple[Answer, ...], p_value: float, of_near: float, of_all: float) -> Verdict:
    """`of_all` is how often chance would find all of the pictures judged, by pixels."""
    found = [answer.found for answer in answers if answer.found not in ("unreadable", "not judged")]
    if p_value < SURE:
        return "part" if "none" in found else "whole"
    doubtful = of_near < DOUBT and any(kind in ("near", "crop") for kind in found)
    return "none" if of_all < SURE and not doubtful else "unknown"


def _said(file: Path, bundle: Path, run_id: str, run: str | None) -> dict[str, Any] | None:
    parquet = any(file.glob("*.parquet")) if file.is_dir() else is_parquet(file)
    if parquet:
        return metadata_of(file, bundle, run_id)
    return None if run is None else {"synthetic": "true", "run": run, "this_run": run == run_id}
