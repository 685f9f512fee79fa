"""`synth evaluate` of pictures: their full internal report, for the steward alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from synth.errors import SynthError, UserError, VerificationFailed

if TYPE_CHECKING:
    from synth.config import Source
    from synth.evaluate.internal.images import Pictures
    from synth.image_schema import ImageSchema
    from synth.images.labelled import ImageSource, Labelled

LABELS = "labels.csv"


def evaluate_images(
    bundle: Path, schema: ImageSchema, *, mu: float | None, real: Path, training: Path | None, folder: Path
) -> Path:
    """Write the full internal report of a bundle of pictures to `folder` and return its page.

    Raises UserError for what is missing or does not fit, VerificationFailed for a damaged bundle.
    """
    from synth.images.source import open_images
    from synth.privacy.boundary import guarded

    held_out = source_at(real)
    learned = _source_of(bundle) if training is None else source_at(training)
    if learned is None:
        raise UserError("--training: the pictures that were learned are not where they were; name them")
    if learned.path.exists() and held_out.path.exists() and learned.path.samefile(held_out.path):
        raise UserError("--real: are the pictures that were learned; name ones that the run has not seen")
    opened = [open_images(source, schema) for source in (learned, held_out)]
    with guarded("evaluate", folder):
        from synth.evaluate.internal.images import image_report, write_image_report

        train, test = (_sampled(_readable(source), schema) for source in opened)
        synthetic = _sampled(_drawn(bundle, schema), schema)
        report = image_report(train, test, synthetic, schema, learned=False, mu=mu)
        return write_image_report(report, test, synthetic, schema, folder, name="evaluation")


def source_at(path: Path) -> Source:
    """Pictures at a path: a Parquet file, or a folder with labels.csv in it."""
    from synth.config import Source

    return Source.model_validate({"folder": path, "labels": path / LABELS} if path.is_dir() else {"path": path})


def _source_of(bundle: Path) -> Source | None:
    """The pictures that the run has learned, when they are still where they were."""
    from synth.run_folder import RunFolder

    try:
        source = RunFolder(bundle.resolve().parent).run().files
    except (OSError, ValueError, KeyError, TypeError, SynthError):
        return None
    return source if source.path.exists() else None


def _readable(source: ImageSource) -> Iterator[Labelled]:
    return (row for row in source.rows() if row.label is not None)


def _drawn(bundle: Path, schema: ImageSchema) -> Iterator[Labelled]:
    import pyarrow as pa

    from synth.image_schema import IMAGE_COLUMN
    from synth.images.labelled import Labelled
    from synth.images.source import class_of
    from synth.parquet import read_parts

    try:
        for batch in read_parts(bundle / "data", batch_rows=100):
            for image, label in zip(batch.column(IMAGE_COLUMN), batch.column(schema.target.name), strict=True):
                yield Labelled(image["bytes"].as_py(), class_of(label.as_py(), schema.target))
    except (pa.ArrowException, OSError, KeyError):
        raise VerificationFailed(f"{bundle}: its data is damaged") from None


def _sampled(rows: Iterable[Labelled], schema: ImageSchema) -> Pictures:
    """A random sample of pictures. Raises UserError for too few."""
    import numpy as np

    from synth.evaluate.internal.images import FEWEST_PICTURES, MOST_PICTURES
    from synth.images.encode import Sample
    from synth.images.reading import PictureReader

    kept = Sample(schema, np.random.default_rng(0), most=MOST_PICTURES)
    with PictureReader(schema.image) as reader:
        for row in rows:
            picture = reader.read(row.content, row.place).pixels
            if picture is not None and row.label is not None:
                kept.offer(picture, row.label)
    if len(kept.labels) < FEWEST_PICTURES:
        raise UserError(f"evaluate: needs at least {FEWEST_PICTURES} readable, labelled pictures of each kind")
    return np.stack(kept.pixels), np.array(kept.labels, dtype=np.int64)
