"""Public pictures: a folder or a Parquet file that the steward declares public, for a model to learn detail from.

Nothing of them is charged or protected, so everything about them may be said: errors name their files. They are brought
to the declared form by the same rules as private ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from synth.config import Public, Source
from synth.errors import UserError
from synth.files import identities
from synth.image_schema import IMAGE_COLUMN, ImageFormat
from synth.images.reading import PictureReader
from synth.images.unreadable import Why

FEWEST = 32
"""Public pictures that a network can learn anything general from, at the least."""
MOST_BYTES = 1 << 29
"""Of all their pixels together, as they are held."""


@dataclass(frozen=True)
class PublicPictures:
    """Pixels [n, height, width, channels] in the order of their files' digests, and one digest of them all: SHA-256 of
    the files' own, sorted. Neither depends on names."""

    pixels: npt.NDArray[np.uint16]
    sha256: str


def read_public(public: Public, form: ImageFormat, *, source: Source) -> PublicPictures:
    """All public pictures. Raises UserError for one that cannot be read, too few or too many, or the run's source."""
    place = f"synthesizer.public.path {public.path}"
    here, private = public.path.resolve(), [p.resolve() for p in (source.path, source.folder) if p is not None]
    if any(here.is_relative_to(p) or p.is_relative_to(here) or identities(here) & identities(p) for p in private):
        raise UserError(f"{place}: is of the source, which is private; name a folder of other, public pictures")
    most = MOST_BYTES // (2 * math.prod(form.shape))
    found: list[tuple[bytes, npt.NDArray[np.uint16]]] = []
    with PictureReader(form) as reader:
        for name, content in _files(public.path, place):
            if len(found) == most:
                raise UserError(
                    f"{place}: holds more than {most} pictures, which are as many as are held; leave some out"
                )
            picture = reader.read(content)
            if picture.pixels is None:
                why = picture.why.value if picture.why else Why.DAMAGED.value
                raise UserError(f"{place}: {name} cannot be read as a picture ({why}); mend or remove it")
            found.append((hashlib.sha256(content or b"").digest(), picture.pixels))
    if len(found) < FEWEST:
        raise UserError(
            f"{place}: holds {len(found)} pictures and should hold at least {FEWEST}; add some, or leave it out"
        )
    found.sort(key=lambda one: one[0])
    digest = hashlib.sha256(b"".join(own for own, _ in found)).hexdigest()
    return PublicPictures(np.stack([pixels for _, pixels in found]), digest)


def _files(path: Path, place: str) -> Iterator[tuple[str, bytes | None]]:
    """Each file's name, or place, and its content."""
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                hidden = any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
                if file.is_file() and not hidden:
                    yield file.relative_to(path).as_posix(), file.read_bytes()
            return
        with pq.ParquetFile(path) as parquet:
            row = 0
            for batch in parquet.iter_batches(batch_size=64, columns=[_contents_of(parquet.schema_arrow, place)]):
                column = batch.column(0)
                for value in column.field("bytes") if pa.types.is_struct(column.type) else column:
                    row += 1
                    yield f"row {row}", value.as_py()
    except FileNotFoundError:
        raise UserError(f"{place}: no such folder or file") from None
    except (pa.ArrowException, OSError):
        raise UserError(f"{place}: should be a folder of pictures or an intact Parquet file") from None


def _contents_of(schema: pa.Schema, place: str) -> str:
    """The path of the column that holds the pictures' files."""
    if schema.get_field_index(IMAGE_COLUMN) >= 0:
        kind = schema.field(IMAGE_COLUMN).type
        inner = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {"": kind}
        for name in inner.keys() & {"", "bytes"}:
            if pa.types.is_binary(inner[name]) or pa.types.is_large_binary(inner[name]):
                return f"{IMAGE_COLUMN}.{name}".rstrip(".")
    raise UserError(f"{place}: should have a column {IMAGE_COLUMN} of bytes, or struct<bytes: binary, path: string>")
