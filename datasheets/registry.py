"""privacy.json: the full statement, in the shape of OpenDP's Differential Privacy Deployments Registry.

Field names and enumerations follow the registry's deployments schema. What the schema has no field for
stands under one key of our own, `EXTENSION`; without that key the record fits the schema.
"""

from __future__ import annotations

import re
from typing import Any

from datasheets.answers import Answers
from datasheets.automatic import images
from datasheets.automatic.lifecycle import intended_uses
from datasheets.reading import Reading, column_names, listed, plural
from datasheets.statements import (
    audit_in_words,
    events_in_words,
    neighbours_in_words,
    noise_unit,
    not_covered_in_words,
    path_covered,
    population_in_words,
    promise_in_words,
    replace_one_in_words,
    row_count_in_words,
    total_in_words,
    unit_in_words,
)
from synth.facts import PublicFacts
from synth.privacy.events import Event, GdpEvent, HeldOutEvent

EXTENSION = "x_synth"
NOT_STATED = "Not stated by the steward."


def deployment(facts: PublicFacts, answers: Answers) -> dict[str, Any]:
    """The registry record of this run, with the full statement under `EXTENSION`."""
    read = Reading(facts)
    return {
        "url_slug": _slug(f"{facts.run.name}-{facts.run.run_id}"),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": _basic(facts, answers),
            "dp_variant": _variant(read),
            "privacy_loss": _privacy_loss(read),
            "deployment_model": _model(read),
            "accounting": _accounting(read),
            "implementation": _implementation(read),
            "administrative": {
                "notes": f"A draft for the steward, written from the public facts of run {facts.run.run_id}.",
                "registry_authors": [facts.run.software],
            },
        },
        EXTENSION: _statement(facts),
    }


def _basic(facts: PublicFacts, answers: Answers) -> dict[str, Any]:
    return {
        "name": answers.title or facts.run.name,
        "data_curators": [answers.curator or NOT_STATED],
        "intended_use": " ".join(intended_uses(Reading(facts))),
        "data_product_type": "Synthetic data",
        "data_product_region": answers.region or NOT_STATED,
        "description": answers.description or f"Differentially private synthetic table of {facts.run.dataset}.",
        # The day it was made: the bundle is sealed before anyone decides when to hand it out.
        "publication_date": facts.run.created[:10],
    }


def _variant(read: Reading) -> dict[str, Any]:
    names = [str(column["name"]) for column in read("data.columns")]
    return {
        "variant_name": "Approximate DP",
        "data_domain": (
            "All tables with the columns and domains of the public schema"
            f" ({plural(len(names), 'column')}: {listed(names)}), of any number of rows."
            f" {row_count_in_words(read)}"
        ),
        "unprotected_quantities": "\n".join(f"- {item}" for item in not_covered_in_words(read)),
    }


def _privacy_loss(read: Reading) -> dict[str, Any]:
    return {
        "privacy_unit": str(read("privacy.privacy_unit")),
        "privacy_unit_details": f"{unit_in_words(read)} {neighbours_in_words(read)}",
        "privacy_parameters": {"epsilon": read("privacy.epsilon"), "delta": read("privacy.delta")},
        "privacy_parameters_details": f"{promise_in_words(read)} {replace_one_in_words(read)}",
    }


def _model(read: Reading) -> dict[str, Any]:
    return {
        "model_name": "Central",
        "model_name_details": (
            "The steward holds the source and runs the software; noise is added before anything leaves the run."
        ),
        "actors": (
            "The steward, who sees the source and the internal report, is trusted. Anyone who receives"
            " the bundle, alone or together with others and with any other knowledge, is not."
        ),
        "release_type": "One release",
        "release_type_details": f"A bundle never changes. {population_in_words(read)}",
        "access_type": "Non-interactive",
        "access_type_details": "Rows and model are handed out; the source cannot be queried.",
    }


def _accounting(read: Reading) -> dict[str, Any]:
    return {
        "post_processing": images.POST_PROCESSING
        if read.of_images
        else (
            "Projection and merging of noised histograms into bins, fitting of the generator, drawing"
            f" and refining of rows, decoding, the audit, public scores{_but_one(read)}, documents."
        ),
        "composition": (f"{read('privacy.accountant')} {total_in_words(read)} {population_in_words(read)}"),
    }


def _but_one(read: Reading) -> str:
    return " but the one on held-out people, which is charged" if read("quality.held_out") is not None else ""


def _implementation(read: Reading) -> dict[str, Any]:
    ids = column_names(read("data.columns"), "id")
    by_row = read("privacy.privacy_unit") == "row"
    outside = "Pictures and labels" if read.of_images else "Cells"
    kept_out = f" Identifier columns ({listed(ids)}) were not read." if ids and by_row else ""
    return {
        "preprocessing_and_hyperparameter_tuning": (
            f"{outside} outside their declared domain are mapped by a declared rule; nothing about how many"
            f" is published.{kept_out} Hyperparameters come from the configuration or from noised"
            " numbers; none was chosen by a score on the source."
        ),
        "mechanisms": (
            f"{events_in_words(read)}\n\nProtection of the noise itself: {read('privacy.noise_protection')}"
        ),
    }


def _statement(facts: PublicFacts) -> dict[str, Any]:
    privacy, read = facts.privacy, Reading(facts)
    return {
        "version": 1,
        "run": facts.run.run_id,
        "created": facts.run.created,
        "dataset": facts.run.dataset,
        "software": facts.run.software,
        "promise": promise_in_words(read),
        "path_covered": list(images.path_covered(read) if read.of_images else path_covered(read)),
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "mu": privacy.mu,
        "renyi_epsilon": privacy.renyi_epsilon,
        "privacy_unit": privacy.privacy_unit,
        "max_rows_per_person": privacy.max_rows_per_person,
        "neighboring_relation": privacy.neighboring_relation,
        "replace_one": {"epsilon": privacy.replace_one_epsilon, "delta": privacy.delta},
        "row_count": privacy.row_count,
        "output_rows": {"rows": facts.data.rows, "chosen_by": facts.data.rows_chosen_by},
        "events": [_event(event) for event in privacy.events],
        "noise_protection": privacy.noise_protection,
        "accountant": privacy.accountant,
        "not_covered": list(not_covered_in_words(read)),
        "population": {
            "name": facts.run.population,
            "epsilon": privacy.population_epsilon,
            "delta": privacy.population_delta,
            "overlaps": list(privacy.population_overlaps),
            "cap": privacy.population_cap,
            "candidates": privacy.population_candidates,
        },
        "ledger_head": privacy.ledger_head,
        "audit": None
        if facts.audit is None
        else {**facts.audit.model_dump(mode="json"), "reading": audit_in_words(read)},
    }


def _event(event: Event) -> dict[str, Any]:
    if isinstance(event, HeldOutEvent):
        return {**_event(event.alone), **event.model_dump()}
    if not isinstance(event, GdpEvent):
        return event.model_dump()
    return {
        **event.model_dump(),
        "unit": noise_unit(event),
        "mu": event.mu,
        "replace_one_mu": event.replace_one_mu,
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")
