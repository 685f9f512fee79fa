"""A tiny bundle, its ledger, and stewards with keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from synth.files import canonical_json
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import Ledger
from synth.release import REQUIRED, SigningKey, Word, decide, new_key, seal, signing_key

EVENT = GaussianEvent(name="all", sensitivity=1, replace_one_sensitivity=math.sqrt(2), noise_scale=4)
NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
SCHEMA = "dataset: toy\npopulation: people\ncolumns:\n- {name: age, kind: integer, bounds: [0, 99]}\n"


class Steward:
    """Somebody with a key."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.file = folder / f"{name}.key"
        self.public_file = folder / f"{name}.key.pub"
        new_key(self.file)

    @property
    def key(self) -> SigningKey:
        return signing_key(self.file, {})

    def approves(self, bundle: Path, **options: Any) -> Any:
        return decide(bundle, Word(state="approved", by=self.name, **options), self.key, now=NOW)

    def rejects(self, bundle: Path, **options: Any) -> Any:
        return decide(bundle, Word(state="rejected", by=self.name, **options), self.key, now=NOW)


def documents(head: str) -> dict[str, Any]:
    """The documents that are read again, as values; a test changes what it needs."""
    return {
        "privacy.json": {
            "x_synth": {
                "run": "toy-1",
                "created": "2025-01-31T10:15:00Z",
                "population": {"name": "people", "epsilon": 0.5, "delta": 1e-5, "cap": None, "candidates": 1},
                "epsilon": 0.5,
                "delta": 1e-5,
                "privacy_unit": "row",
                "max_rows_per_person": 1,
                "not_covered": [],
                "output_rows": {"rows": 10, "chosen_by": "config"},
                "ledger_head": head,
            }
        },
        "datasheet.json": {
            "title": "Toy",
            "gaps": ["uses.comments"],
            "sections": [
                {
                    "id": "motivation",
                    "questions": [
                        {
                            "id": "motivation.funding",
                            "answers": [{"subject": "both", "origin": "steward", "text": "Nobody."}],
                        },
                        {
                            "id": "motivation.creators",
                            "answers": [{"subject": "synthetic", "origin": "automatic", "text": "Run toy-1."}],
                        },
                    ],
                }
            ],
        },
        "quality.json": {
            "valid_rows": 10,
            "mean_one_way_distance": 0.1,
            "mean_one_way_noise": 0.2,
            "one_way": [{"columns": ["age"], "distance": 0.1, "noise": 0.2}],
            "two_way": [],
        },
        "model/config.json": {"format": "toy", "members": 1, "schema": {"columns": ["age"]}},
    }


def build(folder: Path, values: dict[str, Any], schema: str = SCHEMA) -> Path:
    """Write and seal a bundle."""
    for name in (*REQUIRED, "data/part-00000.parquet"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    (folder / "schema.yaml").write_text(schema)
    for name, value in values.items():
        (folder / name).write_bytes(canonical_json(value))
    seal(folder)
    return folder


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.reserve(population="people", dataset="toy", run_id="toy-1", events=[EVENT], delta=1e-5)
    ledger.spend("toy-1", EVENT)
    ledger.settle("toy-1")
    return ledger


@pytest.fixture
def values() -> dict[str, Any]:
    """Documents of a bundle whose ledger nobody asks for."""
    return documents("9f" * 32)


@pytest.fixture
def bundle(tmp_path: Path, values: dict[str, Any]) -> Path:
    """A candidate."""
    return build(tmp_path / "bundle", values)


@pytest.fixture
def charged(tmp_path: Path, ledger: Ledger) -> Path:
    """A candidate that the ledger knows."""
    return build(tmp_path / "charged", documents(ledger.head()))


@pytest.fixture
def make() -> Callable[..., Path]:
    """`build`, for tests that make bundles of their own."""
    return build


@pytest.fixture
def event() -> GaussianEvent:
    return EVENT


@pytest.fixture
def steward(tmp_path: Path) -> Steward:
    return Steward(tmp_path, "Ada")


@pytest.fixture
def stranger(tmp_path: Path) -> Steward:
    return Steward(tmp_path, "Eve")


@pytest.fixture
def approved(bundle: Path, steward: Steward) -> Path:
    """A bundle that the steward has approved."""
    assert steward.approves(bundle).approved
    return bundle
