"""privacy.json: the registry's shape, and the whole statement."""

from __future__ import annotations

from typing import Any

import pytest

from datasheets import Answers, deployment
from datasheets.registry import EXTENSION, NOT_STATED
from synth.facts import PublicFacts
from synth.files import canonical_json

# Field names of the registry's deployments schema (no others are allowed there).
SCHEMA: dict[str, set[str]] = {
    "basic": {
        "name",
        "data_curators",
        "intended_use",
        "data_product_type",
        "data_product_region",
        "description",
        "publication_date",
        "data_product_sector",
    },
    "dp_variant": {"variant_name", "data_domain", "unprotected_quantities"},
    "privacy_loss": {
        "privacy_unit",
        "privacy_unit_details",
        "privacy_parameters",
        "privacy_parameters_details",
    },
    "deployment_model": {
        "model_name",
        "model_name_details",
        "actors",
        "release_type",
        "release_type_details",
        "data_source_type",
        "data_source_type_details",
        "access_type",
        "access_type_details",
    },
    "accounting": {"post_processing", "composition"},
    "implementation": {"preprocessing_and_hyperparameter_tuning", "mechanisms", "justification"},
    "administrative": {"sources", "notes", "registry_authors"},
}


@pytest.fixture
def record(facts: PublicFacts) -> dict[str, Any]:
    return deployment(facts, Answers())


def test_fields_are_those_of_the_registry(record: dict[str, Any]) -> None:
    assert set(record) == {"url_slug", "status", "tier", "deployment", EXTENSION}
    assert set(record["deployment"]) == set(SCHEMA)
    for group, fields in record["deployment"].items():
        assert set(fields) <= SCHEMA[group]
    assert record["url_slug"] == "support2-20250131t101500-4f2a"
    assert record["tier"] in {1, 2, 3}


def test_values_are_those_of_the_registry(record: dict[str, Any]) -> None:
    entry = record["deployment"]
    assert entry["basic"]["publication_date"] == "2025-01-31"
    assert entry["basic"]["data_product_type"] == "Synthetic data"
    assert entry["dp_variant"]["variant_name"] == "Approximate DP"
    assert entry["privacy_loss"]["privacy_parameters"] == {"epsilon": 1.0, "delta": 1e-5}
    assert entry["deployment_model"]["model_name"] == "Central"
    assert entry["deployment_model"]["release_type"] == "One release"
    assert entry["deployment_model"]["access_type"] == "Non-interactive"
    assert "The decision to release." in entry["dp_variant"]["unprotected_quantities"]


def test_what_the_steward_did_not_say_is_not_invented(facts: PublicFacts) -> None:
    basic = deployment(facts, Answers())["deployment"]["basic"]
    assert basic["data_curators"] == [NOT_STATED]
    assert basic["data_product_region"] == NOT_STATED
    basic = deployment(facts, Answers(curator="A hospital", region="Utopia"))["deployment"]["basic"]
    assert basic["data_curators"] == ["A hospital"]
    assert basic["data_product_region"] == "Utopia"


def test_statement_is_whole(record: dict[str, Any], facts: PublicFacts) -> None:
    statement, privacy = record[EXTENSION], facts.privacy
    assert statement["epsilon"] == 1.0
    assert statement["delta"] == 1e-5
    assert statement["privacy_unit"] == "row"
    assert statement["neighboring_relation"] == "add-or-remove-one"
    assert statement["replace_one"] == {"epsilon": 1.460213, "delta": 1e-5}
    assert statement["row_count"] == "private"
    assert statement["not_covered"] == list(privacy.not_covered)
    assert statement["ledger_head"] == privacy.ledger_head
    assert statement["population"] == {
        "name": "support2-patients",
        "epsilon": 1.835,
        "delta": 1e-5,
        "overlaps": ["hospital-staff"],
        "cap": 4.0,
        "candidates": 3,
    }
    assert statement["noise_protection"] == privacy.noise_protection
    assert statement["accountant"] == privacy.accountant
    assert [event["name"] for event in statement["events"]] == [event.name for event in privacy.events]
    for written, event in zip(statement["events"], privacy.events, strict=True):
        assert written["sensitivity"] == event.sensitivity
        assert written["noise_scale"] == event.noise_scale
        assert written["mu"] == event.mu
    assert len(statement["path_covered"]) == 9


def test_record_is_canonical_json(record: dict[str, Any]) -> None:
    assert canonical_json(record)
