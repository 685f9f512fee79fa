"""What documents say of a score on held-out people: everything that makes it unsure; nothing where there is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from datasheets import Answers, document
from datasheets.reading import Reading
from datasheets.statements import held_out_in_words
from synth.facts import HeldOutFacts, PublicFacts
from synth.privacy.budget import ACCURACY
from synth.privacy.events import HeldOutEvent

SCORE = HeldOutFacts(
    holdout=0.125,
    target="died",
    recipe="gradient boosting",
    training_rows=5000,
    correct=812.25,
    wrong=201.5,
    noise_scale=3.75,
    accuracy=0.8012,
    low=0.7949,
    high=0.8075,
    confidence=0.95,
    sampling_error=0.0125,
    base_rate=0.6543,
)
EVENT = HeldOutEvent(
    name=ACCURACY, holdout=0.125, sensitivity=1, replace_one_sensitivity=2**0.5, noise_scale=SCORE.noise_scale
)


def scored(facts: PublicFacts, **changes: Any) -> PublicFacts:
    quality = facts.quality.model_copy(update={"held_out": SCORE.model_copy(update=changes)})
    privacy = facts.privacy.model_copy(update={"events": (*facts.privacy.events, EVENT)})
    return facts.model_copy(update={"quality": quality, "privacy": privacy})


@pytest.fixture
def documents(facts: PublicFacts, files: Any) -> dict[str, str]:
    return {name: content.decode() for name, content in document(scored(facts), Answers(), files).items()}


def test_every_document_that_has_scores_tells_it(documents: dict[str, str]) -> None:
    for name in ("datasheet.md", "datasheet.html", "quality.html"):
        text = documents[name].replace("\\", "")
        assert "by a coin of its own with probability 0.125" in text, name
        for figure in ("80.12 %", "79.49 %", "80.75 %", "95 % interval", "1.25 %", "65.43 %", "3.75 rows"):
            assert figure in text, (name, figure)
    assert "divided by the public share" in documents["datasheet.md"]
    quality = json.loads(documents["quality.json"])
    assert quality["held_out"]["low"] == 0.7949 and "no other score here" in quality["reading"]


def test_the_statement_names_the_event_and_whom_it_is_about(documents: dict[str, str]) -> None:
    record = json.loads(documents["privacy.json"])
    event = record["x_synth"]["events"][-1]
    assert (event["mechanism"], event["holdout"], event["unit"]) == ("gaussian-on-held-out", 0.125, "rows")
    assert event["mu"] == pytest.approx(1 / 3.75)
    mechanisms = record["deployment"]["implementation"]["mechanisms"]
    assert f"{ACCURACY}: Gaussian mechanism, L2 sensitivity 1" in mechanisms
    assert "whom coins of their own, with probability 0.125, had held out" in mechanisms
    assert "public scores but the one on held-out people" in record["deployment"]["accounting"]["post_processing"]
    assert any(step.startswith("Score on held-out people") for step in record["x_synth"]["path_covered"])


def test_an_accuracy_that_the_noise_drowns_is_not_told(facts: PublicFacts, files: Any) -> None:
    drowned = scored(facts, accuracy=None, sampling_error=None, low=0.0, high=1.0)
    assert "too large to tell an accuracy" in held_out_in_words(Reading(drowned))
    found = document(drowned, Answers(), files)
    assert "not told" in found["quality.html"].decode() and "None" not in found["quality.html"].decode()


def test_people_of_a_file(facts: PublicFacts, files: Any) -> None:
    found = {
        name: content.decode() for name, content in document(scored(facts, holdout=None), Answers(), files).items()
    }
    assert "who may be in the source too" in found["quality.html"]
    assert "divided by the public share" not in found["datasheet.md"]
    assert "of the separate file of held-out people, or of both" in found["datasheet.md"]


def test_without_one_nothing_is_said(facts: PublicFacts, files: Any) -> None:
    found = {name: content.decode() for name, content in document(facts, Answers(), files).items()}
    assert json.loads(found["quality.json"])["held_out"] is None
    assert "No score here was computed on source rows" in found["quality.html"]
    assert all("by a coin of its own" not in text for text in found.values())
