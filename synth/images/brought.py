"""Pictures that somebody brings to be compared: one file, a folder of files, or Parquet. Nothing is decoded here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synth.detect import is_parquet
from synth.errors import InvalidSource
from synth.image_schema import IMAGE_COLUMN
from synth.images.decoder import JPEG_MAGIC, PNG_MAGIC, kind_of
from synth.images.unreadable import MOST_BYTES
from synth.parquet import DIGITAL_SOURCE_TYPE

PICTURES_AT_ONCE = 64
HEAD = 512
"""Bytes by which a file is known."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".nii"}
"""Files of a folder that claim to be pictures: what else lies there, such as labels, is passed over."""
DICOM_MARK = re.compile(rb"SYNTHETIC\. synthetic=true;[ -~]{0,400}?\brun=([0-9A-Za-z_.:-]{1,80})")
"""What `synth sample --dicom` writes into every file's derivation, found as bytes: a header is not trusted here."""


@dataclass(frozen=True)
class Brought:
    """A file that should hold a picture, and what to call it; None for one that cannot be had."""

    name: str
    content: bytes | None

    @property
    def marked(self) -> bool:
        """Whether its bytes hold the words of a synthetic picture: anyone can write them."""
        return self.content is not None and (DIGITAL_SOURCE_TYPE.encode() in self.content or self.run is not None)

    @property
    def run(self) -> str | None:
        """The run that a DICOM file says it is from."""
        found = None if self.content is None else DICOM_MARK.search(self.content)
        return None if found is None else found[1].decode()


def brought(file: Path) -> Iterator[Brought]:
    """All that lies in `file`, one picture's file at a time. Raises InvalidSource when that is not pictures."""
    if file.is_dir():
        yield from _in_folder(file)
    elif not file.is_file():
        raise InvalidSource(f"{file}: no such file")
    elif is_parquet(file):
        yield from _in_parquet(file)
    elif is_picture(file):
        yield Brought(file.name, _content(file))
    else:
        raise InvalidSource(
            f"{file}: is neither a picture (PNG, JPEG, TIFF, DICOM) nor Parquet, and the bundle is one of pictures"
        )


def is_picture(file: Path) -> bool:
    """Whether a file begins as one of the known kinds of picture does."""
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    return head.startswith((JPEG_MAGIC, PNG_MAGIC)) or kind_of(head) is not None


def holds_pictures(path: Path) -> bool:
    """Whether a file is a picture, or a folder has one."""
    return any(is_picture(one) for one in (path.iterdir() if path.is_dir() else [path]) if one.is_file())


def _in_folder(folder: Path) -> Iterator[Brought]:
    found = False
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if is_parquet(path):
            found = True
            yield from (Brought(f"{name} {one.name}", one.content) for one in _in_parquet(path))
        elif path.suffix.lower() in SUFFIXES or is_picture(path):
            found = True
            yield Brought(name, _content(path))
    if not found:
        raise InvalidSource(f"{folder}: holds no pictures (PNG, JPEG, TIFF, DICOM or Parquet)")


def _in_parquet(file: Path) -> Iterator[Brought]:
    row = 0
    try:
        with pq.ParquetFile(file) as opened:
            kind = opened.schema_arrow.field(IMAGE_COLUMN).type if IMAGE_COLUMN in opened.schema_arrow.names else None
            if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                raise InvalidSource(
                    f"{file}: has no column {IMAGE_COLUMN} of struct<bytes, path>, and the bundle is one of pictures"
                )
            for batch in opened.iter_batches(batch_size=PICTURES_AT_ONCE, columns=[f"{IMAGE_COLUMN}.bytes"]):
                pictures = batch.column(IMAGE_COLUMN)
                for content, valid in zip(pictures.field("bytes"), pictures.is_valid(), strict=True):
                    row += 1
                    value = content.as_py() if valid.as_py() else None
                    yield Brought(f"row {row}", value if isinstance(value, bytes) else None)
    except (pa.ArrowException, OSError):
        raise InvalidSource(f"{file}: damaged Parquet file; write it again") from None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= MOST_BYTES else None
    except OSError:
        return None
