"""schema.yaml of images: what may be declared, and what is refused in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.config import load_run
from synth.errors import InvalidConfig
from synth.image_schema import ImageSchema, load_any_schema, parse_image_schema
from synth.schema import Schema, public_yaml

RAW: dict[str, Any] = {
    "dataset": "scans",
    "kind": "image",
    "image": {"height": 28, "width": 20},
    "target": {"name": "finding", "classes": {0: "normal", 1: "pneumonia"}},
}


def image(**sections: Any) -> dict[str, Any]:
    return {"image": {"height": 28, "width": 20} | sections}


def parse(**changes: Any) -> ImageSchema:
    return parse_image_schema(RAW | changes, file="schema.yaml")


def test_defaults() -> None:
    schema = parse()
    assert (schema.ledger_population, schema.unit, schema.row_count) == ("scans", "row", "private")
    form = schema.image
    assert form.shape == (28, 20, 1) and (form.low, form.high, form.resize) == (0, 255, "pad")
    assert parse(image={"height": 4, "width": 4, "bits": 16}).image.high == 65535
    assert schema.target.values == (0, 1)
    image, label = schema.described_columns
    assert image["value_range"] == [0, 255] and label["labels"] == {"0": "normal", "1": "pneumonia"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": {"height": 28}}, "image.width: is required"),
        ({"image": {"height": 2, "width": 28}}, "image.height"),
        ({"image": {"height": 28, "width": 5000}}, "image.width"),
        ({"image": {"height": 28, "width": 28, "channels": 4}}, "image.channels"),
        ({"image": {"height": 28, "width": 28, "bits": 12}}, "image.bits"),
        ({"image": {"height": 28, "width": 28, "value_range": [0, 256]}}, "value_range"),
        ({"image": {"height": 28, "width": 28, "value_range": [9, 9]}}, "value_range"),
        ({"image": {"height": 28, "width": 28, "resize": "squash"}}, "image.resize"),
        ({"image": {"height": 28, "width": 28, "hight": 28}}, r"did you mean height\?"),
        ({"image": {"height": True, "width": 28}}, "not true or false"),
        (image(dicom={"window": [40]}), r"image.dicom.window: should be file, stored or \[centre, width\]"),
        (image(dicom={"window": [40, 0.5]}), "image.dicom.window: .*width of at least 1"),
        (image(dicom={"window": [float("nan"), 9]}), "image.dicom.window"),
        (image(dicom={"window": "header"}), "image.dicom.window"),
        (image(dicom={"frames": "last"}), "image.dicom.frames: should be first, middle, all"),
        (image(dicom={"frames": {"index": -1}}), "image.dicom.frames: should be"),
        (image(dicom={"frames": {"every": 0}}), "image.dicom.frames: should be"),
        (image(dicom={"frame": "first"}), r"did you mean frames\?"),
        (image(dicom={"frames": "all"}), "image.dicom.frames: several pictures of one file need the person column"),
        (image(nifti={"value_range": [0, 9], "slices": {"every": 2}}), "image.nifti.slices: several pictures"),
        (image(tiff={"pages": "all"}), "image.tiff.pages: several pictures"),
        (image(nifti={}), "image.nifti.value_range: is required"),
        (image(nifti={"value_range": [9, 0]}), r"image.nifti.value_range: should be \[lowest, highest\]"),
        (image(nifti={"value_range": [0, 9], "axis": 3}), "image.nifti.axis"),
        ({"target": None}, "target"),
        ({"target": {"name": "finding", "classes": {}}}, "1 to 256 entries"),
        ({"target": {"name": "finding", "classes": {0: "a", 1: "a "}}}, "same name"),
        ({"target": {"name": "finding", "classes": {"one": "a"}}}, "target.classes.one"),
        ({"target": {"name": "image", "classes": {0: "a"}}}, "three different columns"),
        ({"privacy_unit": "finding"}, "three different columns"),
        ({"max_rows_per_person": 3}, "person column"),
        ({"columns": []}, "columns: a schema of images"),
        ({"kind": "images"}, "kind"),
        ({"populaton": "x"}, r"did you mean population\?"),
    ],
)
def test_mistakes_are_one_plain_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words) as raised:
        parse(**changes)
    assert "\n" not in str(raised.value)


@given(
    st.integers(4, 1024),
    st.integers(4, 1024),
    st.sampled_from([1, 3]),
    st.dictionaries(st.integers(-(2**40), 2**40), st.uuids().map(str), min_size=1, max_size=6),
)
def test_the_bundles_schema_reads_back_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, channels: int, classes: dict[int, str]
) -> None:
    schema = parse(image={"height": height, "width": width, "channels": channels}, target={"classes": classes})
    path = tmp_path_factory.mktemp("schema") / "schema.yaml"
    path.write_text(public_yaml(schema))
    again = load_any_schema(path)
    assert isinstance(again, ImageSchema)
    assert again.described_columns == schema.described_columns
    assert again.target.values == tuple(classes)


def test_sections_of_other_files_come_back(tmp_path: Path) -> None:
    sections = {
        "dicom": {"window": [40, 400], "frames": "all"},
        "nifti": {"value_range": [-100, 900.5], "axis": 1, "slices": {"every": 8}},
        "tiff": {"pages": {"index": 2}},
    }
    schema = parse(privacy_unit="patient", **image(**sections))
    assert schema.image.several == ("dicom.frames", "nifti.slices")
    path = tmp_path / "schema.yaml"
    path.write_text(public_yaml(schema))
    again = load_any_schema(path)
    assert isinstance(again, ImageSchema)
    assert all(getattr(again.image, name) == getattr(schema.image, name) for name in sections)
    assert parse().image.several == () and "dicom" not in public_yaml(parse())


def test_tables_are_still_tables(tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text("dataset: t\ncolumns:\n- {name: died, kind: boolean}\n")
    assert isinstance(load_any_schema(path), Schema)


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ("synthesizer: {critic_share: 1}", InvalidConfig, "critic_share: should be below 1"),
        ("synthesizer: {members: 2}", InvalidConfig, "synthesizer.members: is for tables"),
    ],
)
def test_settings_of_tables_are_refused(tmp_path: Path, more: str, error: type[Exception], words: str) -> None:
    (tmp_path / "schema.yaml").write_text(public_yaml(parse()))
    run = tmp_path / "run.yaml"
    run.write_text(f"source: {{path: x.parquet}}\nschema: schema.yaml\nprivacy: {{epsilon: 1, delta: 1e-5}}\n{more}\n")
    with pytest.raises(error, match=words):
        load_run(run)


def test_a_folder_and_its_labels_are_found_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "schema.yaml").write_text(public_yaml(parse()))
    run, rest = tmp_path / "run.yaml", "\nschema: schema.yaml\nprivacy: {epsilon: 1, delta: 1e-5}\n"
    run.write_text("source: {folder: scans, labels: labels.csv}" + rest)
    source = load_run(run).config.source
    assert (source.folder, source.path) == (tmp_path / "scans", tmp_path / "labels.csv")
    for wrong in ("{folder: scans}", "{labels: l.csv}", "{folder: scans, labels: l.csv, path: x}"):
        run.write_text(f"source: {wrong}{rest}")
        with pytest.raises(InvalidConfig, match="source"):
            load_run(run)
