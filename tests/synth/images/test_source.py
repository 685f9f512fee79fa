"""Parquet and folders as sources: what is read, what is refused, and what a bad row turns into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load

from synth.config import Source
from synth.errors import InvalidSource
from synth.image_schema import ImageSchema, ImageTarget
from synth.images.encode import encode, read_coefficients
from synth.images.source import class_of, open_images
from synth.images.transform import Transform
from synth.images.unreadable import Why
from synth.working_file import read_content

SchemaOf = Callable[..., ImageSchema]
FileOf = Callable[..., bytes]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def parquet(path: Path, files: list[bytes | None], labels: list[Any], **more: Any) -> Path:
    pictures = pa.array([{"bytes": file, "path": "SECRET"} for file in files], IMAGE)
    pq.write_table(pa.table({"image": pictures, "label": labels, **more}), path)
    return path


def folder(path: Path, files: dict[str, bytes], labels: str) -> Source:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(content)
    table = path.parent / "labels.csv"
    table.write_text(labels)
    return Source.model_validate({"folder": path, "labels": table})


def test_both_sources_give_the_same_rows(tmp_path: Path, image_schema: SchemaOf, file_of: FileOf) -> None:
    files = [file_of(np.full((8, 8), 40 * i, dtype=np.uint8)) for i in range(5)]
    first = Source(path=parquet(tmp_path / "x.parquet", files, [0, 1, 2, 1, 0]))
    second = folder(
        tmp_path / "scans",
        {f"{'abc'[i % 3]}/{i}.png": file for i, file in enumerate(files)},
        "label,file\n"
        + "".join(f"{label},{'abc'[i % 3]}/{i}.png\n" for i, label in enumerate([0, "class 1", 2.0, 1, 0])),
    )
    schema = image_schema()
    rows = [list(open_images(source, schema).rows()) for source in (first, second)]
    assert rows[0] == rows[1]
    assert [row.label for row in rows[0]] == [0, 1, 2, 1, 0]
    assert [row.content for row in rows[0]] == files


@pytest.mark.parametrize("separator", [";", "\t"])
def test_labels_as_spreadsheets_write_them(
    tmp_path: Path, image_schema: SchemaOf, file_of: FileOf, separator: str
) -> None:
    picture = file_of(np.zeros((8, 8), dtype=np.uint8))
    labels = "\ufefffile,label\r\n0.png,1\r\n0.png,2\r\n\r\n".replace(",", separator)
    rows = open_images(folder(tmp_path / "scans", {"0.png": picture}, labels), image_schema()).rows()
    assert [(row.content, row.label) for row in rows] == [(picture, 1), (picture, 2)]


def test_what_is_missing_or_elsewhere_is_a_row_without_a_picture(
    tmp_path: Path, image_schema: SchemaOf, file_of: FileOf
) -> None:
    (tmp_path / "outside.png").write_bytes(file_of(np.zeros((8, 8), dtype=np.uint8)))
    names = ["gone.png", "../outside.png", str(tmp_path / "outside.png"), "bad\0name", ".", ""]
    source = folder(tmp_path / "scans", {}, "file,label\n" + "".join(f'"{name}",7\n' for name in names))
    found = list(open_images(source, image_schema()).rows())
    assert [(row.content, row.label) for row in found] == [(None, None)] * len(names)


def test_bad_rows_are_mapped_and_counted(tmp_path: Path, image_schema: SchemaOf, file_of: FileOf) -> None:
    schema = image_schema(value_range=[20, 255])
    good = file_of(np.full((8, 8), 200, dtype=np.uint8))
    path = parquet(tmp_path / "x.parquet", [good, b"not a picture", None, good[:40], good], [0, 1, 9, None, 2])
    transform = Transform(schema.image, limit=4)
    rows = open_images(Source(path=path), schema).rows()
    outside = encode(rows, schema, transform, tmp_path / "codes", sample=tmp_path / "sample")
    assert (outside.pictures, outside.labels) == (3, 2)
    assert outside.places == {Why.UNKNOWN: [(2, 1)], Why.ABSENT: [(3, 1)], Why.DAMAGED: [(4, 1)]}
    assert outside.noticed == dict.fromkeys(outside.places, 1)
    ((labels, coefficients),) = read_coefficients(tmp_path / "codes")
    assert labels[[0, 1, 4]].tolist() == [0, 1, 2] and set(labels[[2, 3]]) <= {0, 1, 2}
    assert (coefficients[1:4] == 0).all(), "a blank picture holds the lowest value everywhere"
    assert coefficients[0, 0] == pytest.approx(8 * 180 / 235 * 4096, abs=1)
    sample = load(read_content(tmp_path / "sample"))
    assert sample["pixels"].shape == (5, 8, 8, 1) and sample["labels"].tolist() == labels.tolist()
    for name in ("codes", "sample"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_only_rows_that_stay_are_encoded(tmp_path: Path, image_schema: SchemaOf, file_of: FileOf) -> None:
    schema, stays = image_schema(), np.array([True, False, True])
    files = [file_of(np.full((8, 8), v, dtype=np.uint8)) for v in (10, 20, 30)]
    source = Source(path=parquet(tmp_path / "x.parquet", files, [0, 1, 2]))
    transform = Transform(schema.image, limit=1)
    paths = {"destination": tmp_path / "codes", "sample": tmp_path / "sample"}
    encode(open_images(source, schema).rows(), schema, transform, **paths, stays=stays)
    ((labels, coefficients),) = read_coefficients(tmp_path / "codes")
    assert labels.tolist() == [0, 2] and np.diff(coefficients[:, 0]) > 0
    with pytest.raises(InvalidSource, match="changed while"):
        encode(open_images(source, schema).rows(), schema, transform, **paths, stays=stays[:2])
    with pytest.raises(InvalidSource, match="no rows that belong to a person"):
        encode(open_images(source, schema).rows(), schema, transform, **paths, stays=stays & False)


def test_a_source_without_any_picture_is_refused(tmp_path: Path, image_schema: SchemaOf) -> None:
    schema = image_schema()
    source = Source(path=parquet(tmp_path / "x.parquet", [b"x", None], [0, 1]))
    with pytest.raises(InvalidSource, match="none of its pictures"):
        encode(
            open_images(source, schema).rows(), schema, Transform(schema.image), tmp_path / "c", sample=tmp_path / "s"
        )


def test_persons_of_both_sources(tmp_path: Path, image_schema: SchemaOf, file_of: FileOf) -> None:
    file = file_of(np.zeros((8, 8), dtype=np.uint8))
    schema = image_schema().model_copy(update={"privacy_unit": "patient"})
    first = Source(path=parquet(tmp_path / "x.parquet", [file] * 3, [0, 0, 1], patient=["a", "a", "b"]))
    second = folder(tmp_path / "scans", {"1.png": file}, "file,label,patient\n1.png,0,a\n1.png,0,a\n\n1.png,1,b\n")
    for source in (first, second):
        persons = [value for batch in open_images(source, schema).persons() for value in batch.to_pylist()]
        assert persons == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"image": pa.array([], IMAGE), "label": pa.array([], pa.int64())}, "has no rows"),
        ({"image": pa.array([b"x"]), "label": [0]}, "should be struct<bytes"),
        ({"image": pa.array([{"bytes": "x"}]), "label": [0]}, "should be struct<bytes"),
        ({"image": pa.array([{"bytes": b"x"}])}, "column label is missing"),
        ({"image": pa.array([{"bytes": b"x"}]), "lable": [0]}, r"did you mean lable\?"),
        ({"image": pa.array([{"bytes": b"x"}]), "label": [[0]]}, "cannot hold a class"),
    ],
)
def test_parquet_that_does_not_fit(tmp_path: Path, image_schema: SchemaOf, table: Any, words: str) -> None:
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(InvalidSource, match=words) as raised:
        open_images(Source(path=tmp_path / "x.parquet"), image_schema())
    assert "\n" not in str(raised.value)


def test_sources_that_are_not_there(tmp_path: Path, image_schema: SchemaOf) -> None:
    schema = image_schema()
    (tmp_path / "x.csv").write_text("file,label\n")
    (tmp_path / "no-label.csv").write_text("file,kind\nSECRET.png,1\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    cases: list[tuple[dict[str, str], str]] = [
        ({"path": "gone.parquet"}, "no such file"),
        ({"path": "."}, "is a folder"),
        ({"path": "x.csv"}, "not a Parquet file"),
        ({"path": "bad.parquet"}, "damaged"),
        ({"folder": "gone", "labels": "x.csv"}, "no such folder"),
        ({"folder": ".", "labels": "gone.csv"}, "no such file"),
        ({"folder": ".", "labels": "x.csv"}, "no rows"),
        ({"folder": ".", "labels": "no-label.csv"}, "column label is missing"),
        ({"folder": ".", "labels": "binary.csv"}, "not UTF-8"),
    ]
    for source, words in cases:
        placed = Source.model_validate({key: tmp_path / value for key, value in source.items()})
        with pytest.raises(InvalidSource, match=words) as raised:
            open_images(placed, schema)
        assert "SECRET" not in str(raised.value)
    (tmp_path / "ragged.csv").write_text("file,label\nSECRET.png,1,2\n")
    ragged = open_images(Source.model_validate({"folder": tmp_path, "labels": tmp_path / "ragged.csv"}), schema)
    with pytest.raises(InvalidSource, match="equal rows") as raised:
        list(ragged.rows())
    assert "SECRET" not in str(raised.value)


@given(st.integers(-50, 50))
def test_labels_match_by_value_and_by_name(value: int) -> None:
    target = ImageTarget(classes={-3: "low", 7: "high", 12: "12 of something"})
    expected = {-3: 0, 7: 1, 12: 2}.get(value)
    for written in (value, float(value), str(value), f" {value}.0 "):
        assert class_of(written, target) == expected
    assert class_of("high", target) == 1
    for other in (None, True, 7.5, float("nan"), float("inf"), "seven", "", b"7", 2**80):
        assert class_of(other, target) is None
