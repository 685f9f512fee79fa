"""What the long audit of a run on images audits, and on which pictures; `long` says when, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from synth.config import Run, Source
from synth.errors import UserError
from synth.image_schema import ImageSchema
from synth.images.encode import encode, encode_source
from synth.images.labelled import Labelled
from synth.images.sample import arrow_schema
from synth.images.source import open_images
from synth.images.transform import transform_of
from synth.ingest import at_rest
from synth.prepare import plan_images_of
from synth.privacy.audit.image_shadow import shadow_audit_of_images
from synth.privacy.audit.images import measuring, one_run_audit_of_images, synthetic_rows
from synth.privacy.audit.one_run import Audit
from synth.privacy.audit.shadow import ShadowAudit
from synth.privacy.contributions import bound_contributions
from synth.privacy.events import GaussianEvent

SAMPLE = "sample"
"""Pictures that `encode` keeps beside the coefficients; nothing here looks at them."""


class ImageAudit:
    """A `long.Audited`: the mechanism of a run on images."""

    def __init__(self, run: Run, schema: ImageSchema) -> None:
        """Bind to a run; nothing is read."""
        self._run, self._schema, self._plan = run, schema, plan_images_of(run)
        self._transform = transform_of(schema.image, len(schema.target.classes))
        self._delta = run.config.privacy.delta

    @property
    def events(self) -> tuple[GaussianEvent, ...]:
        """What one audit on private pictures spends."""
        return self._plan.releases

    @property
    def arrow_schema(self) -> pa.Schema:
        """Of a bundle's rows."""
        return arrow_schema(self._schema)

    def check_source(self) -> None:
        """Look at the header of the run's source."""
        open_images(self._run.files, self._schema)

    def check_public(self, table: Path) -> None:
        """Look at the header of a public table, which for images is one Parquet file."""
        if table.is_dir():
            raise UserError(f"--public-table {table}: is a folder; public pictures come as one Parquet file")
        open_images(Source(path=table), self._schema)

    def encode_source(self, destination: Path) -> None:
        """Encode the private pictures as a run does."""
        files, sample = self._run.files, destination.parent / SAMPLE
        with at_rest(files.path):
            encode_source(files, self._schema, self._transform, destination, sample=sample)

    def encode_public(self, table: Path, destination: Path, *, rows: int) -> None:
        """Encode the first rows of a public table, with at most as many of a person as may stay."""
        self._encode(self._bounded(table, rows), destination)

    def encode_synthetic(self, batches: Iterator[pa.RecordBatch], destination: Path, *, rows: int) -> None:
        """Encode the first rows of a bundle."""
        self._encode(synthetic_rows(batches, self._schema, rows), destination)

    def one_run(self, base: Path, folder: Path, *, canaries: int, charge: Callable[[str], None] | None = None) -> Audit:
        """The one-run audit on encoded pictures; `charge` where they are private."""
        mechanism = None if charge is None else measuring(self._schema, self._transform, self._plan, charge)
        return one_run_audit_of_images(
            base,
            self._schema,
            self._transform,
            self._plan,
            delta=self._delta,
            folder=folder,
            canaries=canaries,
            mechanism=mechanism,
        )

    def shadow(self, base: Path, folder: Path, *, repetitions: int, progress: Callable[[int], None]) -> ShadowAudit:
        """Shadow tables on encoded pictures that cost nothing."""
        return shadow_audit_of_images(
            base,
            self._schema,
            self._transform,
            mechanism=measuring(self._schema, self._transform, self._plan),
            delta=self._delta,
            folder=folder,
            repetitions=repetitions,
            progress=progress,
        )

    def _encode(self, rows: Iterator[Labelled], destination: Path) -> None:
        encode(rows, self._schema, self._transform, destination, sample=destination.parent / SAMPLE)

    def _bounded(self, table: Path, most: int) -> Iterator[Labelled]:
        source, stays = open_images(Source(path=table), self._schema), None
        if self._schema.person_column is not None:
            stays = bound_contributions(source.persons(), max_rows_per_person=self._schema.max_rows_per_person)
        left = most
        for i, row in enumerate(source.rows()):
            if stays is None or stays[i]:
                yield row
                left -= 1
            if left == 0:
                return
