"""croissant.json, read back by the format's own library."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasheets import Answers, FileDigest, document
from datasheets.croissant import NO_LICENCE
from synth.facts import PublicFacts

TABLE = pa.table(
    {
        "patient_nbr": ["s1", "s2", "s3"],
        "age": [40.5, 60.0, 71.2],
        "num_comorbidities": pa.array([1, None, 3], pa.int64()),
        "sex": ["female", "male", "male"],
        "stage": pa.array([1, 2, 3], pa.int64()),
        "dose group": [0.5, 1.0, 0.5],
        "admitted": pa.array([datetime.datetime(1990, 1, day) for day in (1, 2, 3)], pa.timestamp("us")),
        "died": [True, False, True],
    }
)
ANSWERS = Answers(
    licence="https://spdx.org/licenses/CC-BY-4.0.html",
    citation="A hospital (2025), SUPPORT2, synthetic.",
    curator="A hospital",
    keywords=("health",),
    texts={"uses.impact": "Few young people.", "collection.impact": "Assessed in 2024."},
)


def bundle(root: Path, facts: PublicFacts, answers: Answers, parts: int = 1) -> Path:
    """A folder with data files, a schema, and croissant.json; returns the latter's path."""
    names = tuple(f"data/part-{part:05d}.parquet" for part in range(parts))
    (root / "data").mkdir()
    for name in names:
        pq.write_table(TABLE, root / name)
    (root / "schema.yaml").write_text("dataset: support2\n", encoding="utf-8")
    digests = {
        name: FileDigest(
            sha256=hashlib.sha256((root / name).read_bytes()).hexdigest(), bytes=(root / name).stat().st_size
        )
        for name in (*names, "schema.yaml")
    }
    data = facts.data.model_copy(update={"files": names})
    written = document(facts.model_copy(update={"data": data}), answers, digests)
    path = root / "croissant.json"
    path.write_bytes(written["croissant.json"])
    return path


# rdflib, used by mlcroissant, warns about its own use of a deprecated class.
pytestmark = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")


@pytest.mark.parametrize("parts", [1, 2])
def test_records_are_read_back(tmp_path: Path, facts: PublicFacts, parts: int) -> None:
    dataset = mlcroissant.Dataset(jsonld=str(bundle(tmp_path, facts, ANSWERS, parts)))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    records = list(dataset.records("rows"))
    assert len(records) == 3 * parts
    second = records[1]
    assert second["rows/age"] == 60.0
    assert second["rows/num_comorbidities"] is None
    assert second["rows/sex"] == b"male"
    assert second["rows/stage"] == 2
    assert second["rows/dose%20group"] == 1.0
    assert second["rows/admitted"] == datetime.datetime(1990, 1, 2)
    assert second["rows/died"] is False


def test_a_changed_file_is_noticed(tmp_path: Path, facts: PublicFacts) -> None:
    metadata: dict[str, Any] = json.loads(bundle(tmp_path, facts, ANSWERS).read_bytes())
    stated = {entry["name"]: entry["sha256"] for entry in metadata["distribution"]}
    name = "data/part-00000.parquet"
    assert stated[name] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_responsible_ai_terms_and_field_types(tmp_path: Path, facts: PublicFacts) -> None:
    metadata = json.loads(bundle(tmp_path, facts, ANSWERS).read_bytes())
    assert metadata["conformsTo"][1] == "http://mlcommons.org/croissant/RAI/1.0"
    assert metadata["rai:hasSyntheticData"] is True
    assert "About the source: Few young people." in metadata["rai:dataBiases"]
    assert metadata["rai:dataSocialImpact"] == "Assessed in 2024."
    assert "epsilon = 1 " in metadata["rai:personalSensitiveInformation"][0]
    assert "Not covered: The decision to release." in metadata["rai:personalSensitiveInformation"]
    assert metadata["keywords"] == ["health", "synthetic data", "differential privacy"]
    assert {field["name"]: field["dataType"] for field in metadata["recordSet"][0]["field"]} == {
        "patient_nbr": "sc:Text",
        "age": "sc:Float",
        "num_comorbidities": "sc:Integer",
        "sex": "sc:Text",
        "stage": "sc:Integer",
        "dose group": "sc:Float",
        "admitted": "sc:DateTime",
        "died": "sc:Boolean",
    }


def test_absent_licence_is_stated_as_a_gap(tmp_path: Path, facts: PublicFacts) -> None:
    path = bundle(tmp_path, facts, Answers())
    metadata = json.loads(path.read_bytes())
    assert "license" not in metadata
    assert metadata["conditionsOfAccess"] == NO_LICENCE
    assert "citeAs" not in metadata
    assert not mlcroissant.Dataset(jsonld=str(path)).metadata.ctx.issues.errors


def test_data_files_need_digests(facts: PublicFacts) -> None:
    with pytest.raises(ValueError, match="no digest"):
        document(facts, Answers(), {})
