"""Files that hold several pictures: a row for each, with its file's label and person; at most m of a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load

from synth.config import Source
from synth.errors import InvalidSource
from synth.image_schema import ImageSchema, parse_image_schema
from synth.images.encode import encode_source
from synth.images.source import open_images
from synth.images.transform import Transform
from synth.images.unreadable import Why
from synth.working_file import read_content

FileOf = Callable[..., bytes]


def schema(**changes: object) -> ImageSchema:
    raw = {
        "dataset": "toy",
        "image": {"height": 8, "width": 8, "dicom": {"window": "stored", "frames": "all"}},
        "target": {"classes": {0: "a", 1: "b"}},
        "privacy_unit": "patient",
    }
    return parse_image_schema(raw | changes, file="schema.yaml")


def frames(dicom_of: FileOf, *values: int) -> bytes:
    return dicom_of(np.stack([np.full((8, 8), value, np.uint8) for value in values]))


def folder(path: Path, files: dict[str, bytes], labels: list[str]) -> Source:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    (path / "labels.csv").write_text("\n".join(["file,label,patient", *labels]) + "\n")
    return Source.model_validate({"folder": path, "labels": path / "labels.csv"})


@pytest.fixture
def source(tmp_path: Path, dicom_of: FileOf, file_of: FileOf) -> Source:
    """Three frames of one patient and a plain picture, a broken file, two frames of another."""
    files = {
        "1": frames(dicom_of, 10, 20, 30),
        "2": file_of(np.full((8, 8), 40, np.uint8)),
        "3": b"zq-canary",
        "4": frames(dicom_of, 50, 60),
    }
    return folder(tmp_path / "scans", files, ["1,0,P1", "2,1,P1", "3,1,P2", "4,b,P2"])


def test_each_picture_is_a_row_of_its_file(source: Source) -> None:
    opened = open_images(source, schema())
    persons = [value for batch in opened.persons() for value in batch.to_pylist()]
    rows = list(opened.rows())
    assert persons == ["P1"] * 4 + ["P2"] * 3
    assert [(row.label, row.place) for row in rows] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 0), (1, 0), (1, 1)]
    assert [row.place for row in open_images(source, schema()).rows()] == [row.place for row in rows]
    single = schema(image={"height": 8, "width": 8}, privacy_unit="row")
    assert len(list(open_images(source, single).rows())) == 4


def test_a_parquet_file_may_hold_such_files(tmp_path: Path, dicom_of: FileOf) -> None:
    pictures = [{"bytes": frames(dicom_of, 1, 2)}, None, {"bytes": frames(dicom_of, 3)}]
    kind = pa.struct([("bytes", pa.binary())])
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": pa.array(pictures, kind), "label": [0, 1, 1], "patient": [7, 8, 9]}), path)
    opened = open_images(Source(path=path), schema())
    assert [value for batch in opened.persons() for value in batch.to_pylist()] == [7, 7, 8, 9]
    assert [row.place for row in opened.rows()] == [0, 1, 0, 0]


@pytest.mark.parametrize("most", [1, 5])
def test_no_person_has_more_pictures_than_declared(source: Source, tmp_path: Path, most: int) -> None:
    declared = schema(max_rows_per_person=most)
    paths = {"destination": tmp_path / "codes", "sample": tmp_path / "sample"}
    outside = encode_source(source, declared, Transform(declared.image, limit=4), **paths)
    seen = Counter((load(read_content(tmp_path / "sample"))["pixels"][:, 0, 0, 0]).tolist())
    assert sum(seen.values()) == min(most, 4) + min(most, 3)
    assert sum(seen[value] for value in (10, 20, 30, 40)) == min(most, 4) and set(seen.values()) == {1}
    if most == 5:
        assert outside.places == {Why.UNKNOWN: [(3, 1)]} and set(seen) == {10, 20, 30, 40, 0, 50, 60}


def test_positions_are_rows_and_pictures(tmp_path: Path, dicom_of: FileOf) -> None:
    content = bytearray(frames(dicom_of, 10, 20, 30))[:-70]  # the last frame is cut short
    files = {"1": frames(dicom_of, 1, 2), "2": bytes(content)}
    source, declared = folder(tmp_path / "scans", files, ["1,0,P1", "2,1,P2"]), schema(max_rows_per_person=9)
    paths = {"destination": tmp_path / "codes", "sample": tmp_path / "sample"}
    outside = encode_source(source, declared, Transform(declared.image, limit=4), **paths)
    assert outside.pictures == len(outside.places[Why.DAMAGED]) > 0
    assert (2, 3) in outside.places[Why.DAMAGED] and {row for row, _ in outside.places[Why.DAMAGED]} == {2}


def test_files_that_change_between_two_looks(source: Source, dicom_of: FileOf) -> None:
    assert source.folder is not None
    opened = open_images(source, schema())
    persons = [value for batch in opened.persons() for value in batch.to_pylist()]
    (source.folder / "1").write_bytes(frames(dicom_of, 1, 2, 3, 4, 5))
    assert len(list(opened.rows())) == len(persons), "rows stay with their persons"
    table = source.path.read_text()
    source.path.write_text(table + "1,0,P9\n")
    for look in (opened.rows, opened.persons):
        with pytest.raises(InvalidSource, match="changed"):
            list(look())
    source.path.write_text(table[: table.index("4,b")])
    for look in (opened.rows, opened.persons):
        with pytest.raises(InvalidSource, match="changed"):
            list(look())


def test_why_no_picture_could_be_read_is_said_when_all_agree(tmp_path: Path, file_of: FileOf) -> None:
    declared = schema(image={"height": 8, "width": 8}, privacy_unit="row")
    paths = {"destination": tmp_path / "codes", "sample": tmp_path / "sample"}
    both = {"1": b"zq-canary", "2": file_of(np.zeros((8, 8), np.uint8))[:40]}
    for name, labels, words in (
        ("same", ["1,0,x", "1,1,x"], f"; each is: {Why.UNKNOWN}$"),
        ("two", ["1,0,x", "2,1,x"], "from that folder on$"),
    ):
        source = folder(tmp_path / name, both, labels)
        with pytest.raises(InvalidSource, match=words) as raised:
            encode_source(source, declared, Transform(declared.image, limit=4), **paths)
        assert "canary" not in str(raised.value)
