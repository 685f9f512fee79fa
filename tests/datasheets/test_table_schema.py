"""tableschema.json, read and applied by Frictionless' own library."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from frictionless import Resource, Schema

from datasheets import Answers, FileDigest, document
from synth.facts import PublicFacts

ROW: dict[str, Any] = {
    "patient_nbr": "s1",
    "age": 40.5,
    "num_comorbidities": None,
    "sex": "female",
    "stage": 1,
    "dose group": 0.5,
    "admitted": datetime(1990, 1, 1),
    "died": True,
}


@pytest.fixture
def schema(facts: PublicFacts, files: dict[str, FileDigest]) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(document(facts, Answers(), files)["tableschema.json"])
    return written


def problems(schema: dict[str, Any], *rows: dict[str, Any]) -> list[tuple[str, str]]:
    """What Frictionless finds: the kind of each error and its column."""
    data = [row | {"patient_nbr": f"s{i}"} for i, row in enumerate(rows)]
    report = Resource(data=data, schema=Schema.from_descriptor(schema)).validate()
    return [(kind, name) for kind, name in report.flatten(["type", "fieldName"])]


def test_it_is_a_table_schema_of_every_column(schema: dict[str, Any]) -> None:
    assert Schema.from_descriptor(schema).field_names == list(ROW)
    by_name = {field["name"]: field for field in schema["fields"]}
    assert by_name["age"] == {
        "name": "age",
        "type": "number",
        "unit": "years",
        "constraints": {"required": True, "minimum": 18, "maximum": 110},
    }
    assert by_name["num_comorbidities"]["constraints"] == {"required": False, "minimum": 0, "maximum": 9}
    assert by_name["sex"]["categories"] == [
        {"value": "female", "label": "Female | F"},
        {"value": "male", "label": "Male"},
    ]
    assert by_name["stage"]["type"] == "integer" and by_name["stage"]["constraints"]["enum"] == [1, 2, 3]
    assert by_name["dose group"]["type"] == "number"
    assert by_name["admitted"]["constraints"]["maximum"] == "1995-01-01T00:00:00"
    assert by_name["patient_nbr"]["constraints"] == {"required": True, "unique": True}


def test_rows_that_fit_are_accepted(schema: dict[str, Any]) -> None:
    edges = ROW | {"age": 110.0, "num_comorbidities": 9, "sex": "male", "stage": 3, "admitted": datetime(1995, 1, 1)}
    assert problems(schema, ROW, edges | {"died": False}) == []


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("age", 110.5, "constraint-error"),
        ("age", None, "constraint-error"),
        ("age", "old", "type-error"),
        ("num_comorbidities", -1, "constraint-error"),
        ("num_comorbidities", 2.5, "type-error"),
        ("sex", "other", "constraint-error"),
        ("stage", 4, "constraint-error"),
        ("dose group", 0.7, "constraint-error"),
        ("admitted", datetime(1988, 12, 31), "constraint-error"),
        ("died", "perhaps", "type-error"),
    ],
)
def test_a_cell_that_does_not_fit_is_found(schema: dict[str, Any], column: str, value: Any, problem: str) -> None:
    assert problems(schema, ROW, ROW | {column: value}) == [(problem, column)]


def test_an_empty_level_is_not_missing(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    columns = (*facts.data.columns[:3], {"name": "sex", "kind": "categorical", "categories": ["", "male"]})
    data = facts.data.model_copy(update={"columns": columns, "target": None})
    written = json.loads(document(facts.model_copy(update={"data": data}), Answers(), files)["tableschema.json"])
    assert written["missingValues"] == []
    row = {name: ROW[name] for name in ("patient_nbr", "age", "num_comorbidities")}
    assert problems(written, row | {"sex": ""}) == []


def test_pictures_and_their_labels(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    form = {"height": 8, "width": 8, "channels": 1, "bits": 8, "value_range": [0, 255]}
    columns = (
        {"name": "image", "kind": "image", **form},
        {"name": "label", "kind": "categorical", "categories": [0, 7], "labels": {"0": "normal", "7": "ill"}},
    )
    data = facts.data.model_copy(update={"columns": columns, "target": "label"})
    schema = json.loads(document(facts.model_copy(update={"data": data}), Answers(), files)["tableschema.json"])
    assert schema["fields"][1]["categories"] == [{"value": 0, "label": "normal"}, {"value": 7, "label": "ill"}]
    picture = {"bytes": b"png", "path": None}
    rows = [{"image": picture, "label": label} for label in (0, 7)]
    described = Schema.from_descriptor(schema)
    assert Resource(data=rows, schema=described).validate().valid
    assert not Resource(data=[*rows, {"image": picture, "label": 1}], schema=described).validate().valid
