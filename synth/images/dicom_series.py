"""Synthetic pictures as DICOM: one study, a series for each class, every file marked as synthetic; and their labels.

Secondary Capture Image Storage (PS3.3 A.8.1) with Image Type DERIVED and SECONDARY, Conversion Type SYN and Synthetic
Data YES. All identifiers are fresh, dates are empty, and nobody is the patient.
"""

from __future__ import annotations

import csv
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydicom import Dataset, dcmwrite, uid
from pydicom.dataset import FileMetaDataset

from synth.errors import UserError
from synth.files import PRIVATE_FOLDER, write_whole
from synth.image_schema import FILE_COLUMN, IMAGE_COLUMN, ImageFormat, ImageSchema
from synth.images.picture import read_picture

UInt16Array = npt.NDArray[np.uint16]

LABELS = "labels.csv"
LONGEST_DESCRIPTION = 64
"""Characters of the value representation LO."""


def write_series(
    batches: Iterable[pa.RecordBatch], schema: ImageSchema, folder: Path, metadata: Mapping[str, str]
) -> int:
    """Write rows of `sample_images` as a new folder of DICOM files with labels.csv; returns how many.

    The folder can be a source again. It appears whole. Raises UserError when it exists or cannot be written.

    Args:
        batches: pictures and labels, as `sample_images` draws them.
        schema: of the model.
        folder: where the files go; must not exist.
        metadata: what marks a Parquet file of such rows, told in every file's derivation.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: exists already; name a new folder")
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        aside.mkdir(mode=PRIVATE_FOLDER)
        try:
            rows = _write(batches, schema, aside, metadata)
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({os.strerror(error.errno or 0)})") from None
    return rows


def _write(batches: Iterable[pa.RecordBatch], schema: ImageSchema, folder: Path, metadata: Mapping[str, str]) -> int:
    table = StringIO()
    labels = csv.writer(table, lineterminator="\n")
    labels.writerow([FILE_COLUMN, schema.target.name])
    study, series = _fresh(), {value: _fresh() for value in schema.target.values}
    rows = 0
    for batch in batches:
        for row in batch.to_pylist():
            rows += 1
            name, label = f"{rows:07d}.dcm", row[schema.target.name]
            pixels = read_picture(row[IMAGE_COLUMN]["bytes"], schema.image)
            assert pixels is not None  # it was written a moment ago
            data = _image(pixels, schema.image)
            data.StudyInstanceUID, data.SeriesInstanceUID, data.InstanceNumber = study, series[label], rows
            data.SeriesNumber = 1 + schema.target.values.index(label)
            described = f"SYNTHETIC {schema.target.name}: {schema.target.classes[label]}"
            data.SeriesDescription = described.replace("\\", "/")[:LONGEST_DESCRIPTION]
            data.DerivationDescription = "SYNTHETIC. " + "; ".join(f"{k}={v}" for k, v in metadata.items())
            write_whole(folder / name, _file(data))
            labels.writerow([name, label])
    write_whole(folder / LABELS, table.getvalue())
    return rows


def _image(pixels: UInt16Array, form: ImageFormat) -> Dataset:
    """The picture, and what stands in every file."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = uid.SecondaryCaptureImageStorage, _fresh()
    data.ImageType, data.Modality, data.ConversionType = ["DERIVED", "SECONDARY"], "OT", "SYN"
    data.SyntheticData, data.BurnedInAnnotation = "YES", "NO"
    data.PatientName, data.PatientID = "SYNTHETIC^NOBODY", "SYNTHETIC"
    for empty in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        setattr(data, empty, "")
    data.ReferringPhysicianName = data.PatientOrientation = ""
    data.Rows, data.Columns, data.SamplesPerPixel = pixels.shape
    data.PhotometricInterpretation = "MONOCHROME2" if form.channels == 1 else "RGB"
    if form.channels == 3:
        data.PlanarConfiguration = 0
    else:
        # The whole range, so that a viewer shows what a PNG would.
        data.WindowCenter, data.WindowWidth = 1 << (form.bits - 1), 1 << form.bits
    data.BitsAllocated = data.BitsStored = form.bits
    data.HighBit, data.PixelRepresentation = form.bits - 1, 0
    content = pixels.astype("<u2" if form.bits == 16 else np.uint8).tobytes()
    data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OW" if form.bits == 16 else "OB"
    return data


def _file(data: Dataset) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    out = BytesIO()
    dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def _fresh() -> uid.UID:
    """A new identifier under 2.25: a random UUID (PS3.5 B.2)."""
    return uid.generate_uid(prefix=None)
