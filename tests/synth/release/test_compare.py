"""Compare: what changed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from synth.errors import UserError, VerificationFailed
from synth.release import compare, seal

NEWER_SCHEMA = """\
dataset: toy
population: others
columns:
- {name: age, kind: integer, bounds: [0, 110]}
- {name: admitted, kind: datetime, bounds: [2015-01-01, 2020-01-01]}
"""


@pytest.fixture
def two(tmp_path: Path, make: Callable[..., Path], values: dict[str, Any]) -> tuple[Path, Path]:
    newer = deepcopy(values)
    newer["privacy.json"]["x_synth"].update(run="toy-2", epsilon=1.0, output_rows={"rows": 12, "chosen_by": "config"})
    newer["privacy.json"]["x_synth"]["population"].update(epsilon=1.2, candidates=2)
    newer["datasheet.json"]["sections"][0]["questions"][0]["answers"][0]["text"] = "The state."
    newer["datasheet.json"]["sections"][0]["questions"][1]["answers"][0]["text"] = "Run toy-2."
    newer["datasheet.json"]["gaps"] = []
    newer["quality.json"]["one_way"].append({"columns": ["admitted"], "distance": 0.3, "noise": 0.2})
    newer["model/config.json"].update(members=2, schema={})
    b = make(tmp_path / "b", newer, NEWER_SCHEMA)
    (b / "model" / "generator.safetensors").write_text("another fit")
    (b / "data" / "part-00001.parquet").write_text("more")
    seal(b)
    return make(tmp_path / "a", values), b


def test_everything_that_changed(two: tuple[Path, Path]) -> None:
    found = compare(*two)
    assert [found[name]["run"] for name in ("a", "b")] == ["toy-1", "toy-2"]
    assert found["privacy"]["epsilon"] == {"a": 0.5, "b": 1}
    assert found["privacy"]["population_epsilon"] == {"a": 0.5, "b": 1.2}
    assert found["privacy"]["population_candidates"] == {"a": 1, "b": 2}
    assert found["rows"] == {"a": 10, "b": 12}
    assert found["schema"] == {
        "added": ["admitted"],
        "removed": [],
        "changed": {"age": {"bounds": {"a": [0, 99], "b": [0, 110]}}},
        "declarations": {"population": {"a": "people", "b": "others"}},
    }
    assert found["model"] == {"changed": {"members": {"a": 1, "b": 2}}, "same_weights": False}
    assert found["scores"]["columns"]["admitted"] == {"a": None, "b": {"distance": 0.3, "noise": 0.2}}
    assert found["scores"]["overall"]["mean_one_way_distance"] == {"a": 0.1, "b": 0.1}
    assert found["answers"] == {
        "changed": {"motivation.funding": {"a": "Nobody.", "b": "The state."}},  # the run's own answers are not told
        "gaps": {"a": ["uses.comments"], "b": []},
    }
    assert found["files"]["added"] == ["data/part-00001.parquet"]
    assert found["files"]["removed"] == []
    assert "model/generator.safetensors" in found["files"]["changed"]
    assert "dictionary.md" in found["files"]["same"]
    assert json.loads(json.dumps(found)) == found


def test_the_same_words_given_to_a_question_itself_are_a_change(
    tmp_path: Path, make: Callable[..., Path], values: dict[str, Any]
) -> None:
    shared = deepcopy(values)
    shared["datasheet.json"]["sections"][0]["questions"][0]["answers"][0]["for_section"] = True
    found = compare(make(tmp_path / "a", shared), make(tmp_path / "b", values))
    told = {"a": "Nobody. [one text for the whole section]", "b": "Nobody."}
    assert found["answers"]["changed"] == {"motivation.funding": told}


def test_the_other_way_round(two: tuple[Path, Path]) -> None:
    there, back = compare(*two), compare(*reversed(two))
    assert back["schema"]["removed"] == there["schema"]["added"]
    assert back["files"]["removed"] == there["files"]["added"]
    assert back["rows"] == {"a": 12, "b": 10}


def test_a_bundle_with_itself(two: tuple[Path, Path]) -> None:
    found = compare(two[0], two[0])
    assert found["schema"] == {"added": [], "removed": [], "changed": {}, "declarations": {}}
    assert found["model"] == {"changed": {}, "same_weights": True}
    assert found["answers"]["changed"] == {}
    assert [found["files"][name] for name in ("added", "removed", "changed")] == [[], [], []]


def test_decisions_show(two: tuple[Path, Path], steward: Any) -> None:
    a, b = two
    steward.rejects(a)
    found = compare(a, b)
    assert (found["a"]["state"], found["a"]["by"], found["b"]["state"]) == ("rejected", "Ada", "candidate")


def test_a_damaged_bundle_is_not_compared(two: tuple[Path, Path]) -> None:
    a, b = two
    (b / "schema.yaml").write_text("columns: []")
    with pytest.raises(VerificationFailed, match=f"{b}: schema.yaml: has been changed"):
        compare(a, b)
    with pytest.raises(UserError, match="no such folder"):
        compare(a, b / "nowhere")
    (b / "quality.json").write_text("{}")
    (b / "schema.yaml").write_text(NEWER_SCHEMA)
    seal(b)
    with pytest.raises(VerificationFailed, match="not of this software"):
        compare(a, b)
