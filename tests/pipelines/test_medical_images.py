"""DICOM, NIfTI and TIFF files through the whole pipeline: nothing but pixels and labels gets past ingest."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin
from pydicom import Dataset, dcmread, dcmwrite, uid
from pydicom.dataset import FileMetaDataset

from pipelines.evaluating_images import _sampled
from synth.config import Source
from synth.image_schema import ImageSchema, load_any_schema
from synth.images.noticed import BURNED_IN
from synth.images.source import open_images
from synth.images.unreadable import Why

CANARY = "zq-canary"
FILES = 60
RUN: dict[str, Any] = {
    "source": {"folder": "scans", "labels": "labels.csv"},
    "schema": "schema.yaml",
    "privacy": {"epsilon": 8.0, "delta": 1e-5},
    "output": {"directory": "out", "rows": 60},
    "ledger": {"url": "sqlite:///ledger.db"},
}
SCHEMA: dict[str, Any] = {
    "dataset": "scans",
    "population": "clinic",
    "kind": "image",
    "image": {
        "height": 12,
        "width": 12,
        "resize": "stretch",
        "dicom": {"window": [100, 201], "frames": "all"},
        "nifti": {"value_range": [0, 200], "slices": "middle"},
    },
    "target": {"name": "side", "classes": {0: "left", 1: "right"}},
    "privacy_unit": "patient",
    "max_rows_per_person": 9,
}


def scan(rng: np.random.Generator, right: bool) -> np.ndarray:
    """Bright on one side, 12 × 16, from 0 to 200."""
    pixels = rng.integers(0, 60, (12, 16)).astype(np.uint8)
    pixels[:, 8:] += np.uint8(140 * right)
    pixels[:, :8] += np.uint8(140 * (not right))
    return pixels


def as_dicom(frames: np.ndarray, syntax: str, burned_in: str) -> bytes:
    """A file whose every free text names somebody, in the header, in private tags and in what pydicom warns about."""
    data = Dataset()
    data.PatientName, data.PatientID, data.InstitutionName = f"{CANARY}^name", f"{CANARY}-id", f"{CANARY}-place"
    data.SOPClassUID, data.SOPInstanceUID = uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage, uid.generate_uid()
    data.NumberOfFrames, data.Rows, data.Columns = frames.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.BurnedInAnnotation = burned_in
    data.add_new(0x00080020, "LO", f"{CANARY}-date")
    data.private_block(0x000B, f"{CANARY}-creator", create=True).add_new(0x01, "LT", f"{CANARY}-private")
    data.PixelData = frames.tobytes()
    data["PixelData"].VR = "OB"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    if syntax == uid.RLELossless:
        data.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
    data.file_meta.TransferSyntaxUID = uid.UID(syntax)
    out = BytesIO(f"{CANARY}-preamble".encode().ljust(128, b"\0"))
    dcmwrite(out, data, enforce_file_format=True)
    # A date that is none, so that reading it would warn and quote it.
    return f"{CANARY}-preamble".encode().ljust(128, b"\0") + out.getvalue()[128:].replace(b"LO\x0e\0", b"DA\x0e\0", 1)


def as_nifti(pixels: np.ndarray, packed: bool) -> bytes:
    volume = np.repeat(pixels[::-1].T[:, :, None], 3, axis=2)
    image = nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4))
    image.header["descrip"], image.header["db_name"] = f"{CANARY}-descrip".encode(), f"{CANARY}-db".encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{CANARY}-extension".encode()))
    content = bytes(image.to_bytes())
    return gzip.compress(content) if packed else content


def as_tiff(pixels: np.ndarray) -> bytes:
    tags, out = TiffImagePlugin.ImageFileDirectory_v2(), BytesIO()
    tags[270], tags[315], tags[306] = f"{CANARY}-description", f"{CANARY}-artist", f"{CANARY}-date"
    Image.fromarray(pixels).save(out, "TIFF", tiffinfo=tags)
    return out.getvalue()


def as_png(pixels: np.ndarray) -> bytes:
    texts, out = PngImagePlugin.PngInfo(), BytesIO()
    texts.add_text("Patient", f"{CANARY}-text")
    Image.fromarray(pixels).save(out, "PNG", pnginfo=texts)
    return out.getvalue()


@pytest.fixture
def clinic_folder(tmp_path: Path) -> Path:
    """Files of every kind, the name of each that of somebody, some of them broken."""
    rng, folder = np.random.default_rng(0), tmp_path / "clinic"
    (folder / "scans").mkdir(parents=True)
    syntaxes = [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian]
    lines = ["file,side,patient,note"]
    for i in range(FILES):
        right = i % 5 < 2
        pixels, name = scan(rng, right), f"{CANARY}-{i}.{'dcm' if i % 2 else 'png'}"  # the names tell nothing
        match i % 6:
            case 0 | 1 | 2:
                frames = np.stack([pixels, pixels[::-1], pixels])[: 1 + i % 3]
                syntax = uid.RLELossless if i % 4 == 0 else syntaxes[i % 3]
                content = as_dicom(frames, syntax, "YES" if i in (7, 8) else "NO")
            case 3:
                content = as_nifti(pixels, packed=i % 4 == 1)
            case 4:
                content = as_tiff(pixels)
            case _:
                content = as_png(pixels)
        if i == 18:
            content = content[:-60]
        if i in (13, 33):
            content = f"{CANARY}-bytes".encode()
        (folder / "scans" / name).write_bytes(content)
        lines.append(f"{name},{'right' if right else 0},{CANARY}-person-{i // 3},{CANARY}-note")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "schema.yaml").write_text(json.dumps(SCHEMA))
    (folder / "run.yaml").write_text(json.dumps(RUN))
    return folder


def test_nothing_but_pixels_and_labels_gets_past_ingest(
    clinic_folder: Path, synth: Callable[..., Any], home: Path, shared: Callable[[Path], list[str]]
) -> None:
    run = synth("run", clinic_folder / "run.yaml")
    bundle, folder = run.bundle, run.bundle.parent
    assert CANARY not in run.out + run.err
    assert synth("verify", bundle).code == 0

    table = pq.read_table(next((bundle / "data").glob("part-*.parquet")))
    assert set(table["side"].to_pylist()) <= {0, 1} and table.num_rows == 60
    schema = (bundle / "schema.yaml").read_text()
    assert "window" in schema and "frames: all" in schema

    report = json.loads((folder / "internal" / "report.json").read_text())
    rows = {what: [row for row, _ in places] for what, places in report["places"].items()}
    assert set(rows[Why.UNKNOWN]) == {14, 34} and set(rows[Why.DAMAGED]) == {19}
    assert set(rows[BURNED_IN]) == {8, 9} and report["places"][BURNED_IN][0] == [8, 1]
    assert report["noticed"] == {what: len(places) for what, places in rows.items()}
    page = (folder / "internal" / "report.html").read_text()
    assert f'{Why.UNKNOWN}</th><td class="number">2</td><td>14, 34</td>' in page and "9 (picture 2)" in page
    for public in bundle.rglob("*"):
        assert not public.is_file() or str(Why.UNKNOWN).encode() not in public.read_bytes()

    drawn = clinic_folder / "drawn"
    made = synth("sample", bundle, "--rows", 7, "--where", "side=right", "--dicom", "-o", drawn)
    assert made.code == 0 and len(list(drawn.glob("*.dcm"))) == 7, made.err
    assert (drawn / "labels.csv").read_text().splitlines()[:2] == ["file,side", "0000001.dcm,1"]
    first = dcmread(drawn / "0000001.dcm")
    assert (first.SyntheticData, first.SeriesDescription) == ("YES", "SYNTHETIC side: right")
    for options, words in (((), "exists already"), (("--complete", drawn / "x"), "--dicom does not go with")):
        refused = synth("sample", bundle, "--rows", 7, "--dicom", "-o", drawn, *options)
        assert refused.code == 2 and words in refused.err

    assert not list(folder.glob("internal/failure-*")) and not (folder / "private").exists()
    assert shared(folder) == []
    for place in (clinic_folder, home):
        for path in place.rglob("*"):
            if "scans" in path.relative_to(place).parts or path.name == "labels.csv":
                continue
            assert CANARY not in path.name
            with contextlib.suppress(FileNotFoundError):  # a journal of Prefect's database comes and goes
                assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


def test_medical_files_are_evaluated_against_too(clinic_folder: Path) -> None:
    schema = load_any_schema(clinic_folder / "schema.yaml")
    assert isinstance(schema, ImageSchema)
    source = Source.model_validate({"folder": clinic_folder / "scans", "labels": clinic_folder / "labels.csv"})
    rows = list(open_images(source, schema).rows())
    pixels, labels = _sampled(rows, schema)
    # All but two files without a picture, and one cut short.
    assert len(pixels) == len(labels) == len(rows) - 3
    assert set(labels.tolist()) == {0, 1} and pixels.max() > 200


def test_a_draft_is_refused_until_it_is_confirmed(clinic_folder: Path, synth: Callable[..., Any]) -> None:
    schema = clinic_folder / "schema.yaml"
    schema.unlink()
    assert synth("schema", "draft", clinic_folder / "run.yaml", "-o", schema).code == 0
    text = schema.read_text()
    assert "dataset: scans\n" in text and "name: side\n" in text and "# columns there are: side, patient, note" in text
    assert CANARY not in text
    schema.write_text(text.replace("0: fill in", "0: left, 1: right"))
    refused = synth("run", clinic_folder / "run.yaml")
    assert refused.code == 3 and "remove `domain: unconfirmed`" in refused.err
    schema.write_text(schema.read_text().replace("  # dicom", "  dicom").replace("  domain: unconfirmed\n", ""))
    assert synth("plan", clinic_folder / "run.yaml").code == 0
    loaded = load_any_schema(schema)
    assert isinstance(loaded, ImageSchema) and loaded.image.dicom is not None


def test_several_pictures_of_a_file_need_persons(clinic_folder: Path, synth: Callable[..., Any]) -> None:
    schema = SCHEMA | {"privacy_unit": "row", "max_rows_per_person": 1}
    (clinic_folder / "schema.yaml").write_text(json.dumps(schema))
    refused = synth("run", clinic_folder / "run.yaml")
    assert refused.code == 2 and "image.dicom.frames" in refused.err and len(refused.err.splitlines()) == 1
    assert not (clinic_folder / "out").exists() and not (clinic_folder / "ledger.db").exists()


def test_the_section_that_init_suggests_is_valid(tmp_path: Path, synth: Callable[..., Any]) -> None:
    assert synth("init", tmp_path / "new").code == 0
    text = (tmp_path / "new" / "schema.yaml").read_text()
    section = text[text.index("# kind: image") :].partition("\n\n")[0]
    written = "dataset: scans\n" + "\n".join(line.removeprefix("# ") for line in section.splitlines())
    (tmp_path / "schema.yaml").write_text(written)
    schema = load_any_schema(tmp_path / "schema.yaml")
    assert isinstance(schema, ImageSchema) and schema.image.dicom is not None
    assert schema.image.dicom.window == (40, 400) and schema.image.nifti and schema.image.tiff
