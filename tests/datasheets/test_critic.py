"""What a bundle says of a critic trained by DP-SGD, and that it says nothing of one where there was none."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from datasheets import Answers, FileDigest, document
from synth.facts import PublicFacts, TableCriticFacts
from synth.privacy import budget
from synth.privacy.events import PoissonGaussianEvent

CRITIC = TableCriticFacts(
    share=0.3,
    steps=417,
    sample_rate=0.02,
    noise_multiplier=3.125,
    max_grad_norm=1.5,
    expected_batch_size=182.5,
    fakes=1024,
    hidden_size=96,
    parameters=54_321,
    learning_rate=3e-3,
    weight=0.75,
    chi=1.17,
)
EVENT = PoissonGaussianEvent(name=budget.CRITIC, sample_rate=0.02, noise_multiplier=3.125, steps=417)


@pytest.fixture
def refined(facts: PublicFacts) -> PublicFacts:
    """The same run, with a critic."""
    privacy = {"events": (*facts.privacy.events, EVENT), "mu": None, "renyi_epsilon": 1.093458}
    return facts.model_copy(
        update={
            "privacy": facts.privacy.model_copy(update=privacy),
            "model": facts.model.model_copy(update={"critic": CRITIC}),
        }
    )


@pytest.fixture
def written(refined: PublicFacts, files: Mapping[str, FileDigest]) -> dict[str, bytes]:
    return document(refined, Answers(), files)


def test_facts_survive_json(refined: PublicFacts) -> None:
    for group in (refined.privacy, refined.model):
        assert type(group).model_validate_json(group.model_dump_json()) == group


def test_the_procedure_can_be_repeated(written: Mapping[str, bytes]) -> None:
    sheet = written["datasheet.md"].decode()
    refinement = sheet[sheet.index("Refinement.") :].split("\n")[0]
    for number in (
        "54,321",
        "96",
        "30 %",
        "417 steps",
        "0.02",
        "1.5",
        "3.125",
        "182.5",
        "1,024",
        "0.75",
        "0.003",
        "1.17",
    ):
        assert number in refinement
    for words in ("417 steps of the Poisson", "second accountant", "1.093458", "noised steps of the critic"):
        assert words in sheet
    assert "mu =" not in sheet


def test_the_statement_holds_both_kinds_of_event(written: Mapping[str, bytes]) -> None:
    record = json.loads(written["privacy.json"])
    statement = record["x_synth"]
    assert statement["events"][-1] == EVENT.model_dump()
    assert all(event["mechanism"] == "gaussian" and event["mu"] > 0 for event in statement["events"][:-1])
    assert (statement["mu"], statement["renyi_epsilon"]) == (None, 1.093458)
    assert "compose to epsilon" in record["deployment"]["accounting"]["composition"]
    assert "DP-SGD" in record["deployment"]["implementation"]["mechanisms"]
    assert any("critic" in step for step in statement["path_covered"])


def test_without_a_critic_nothing_is_said_of_one(facts: PublicFacts, files: dict[str, FileDigest]) -> None:
    written = document(facts, Answers(), files)
    assert b"Refinement." not in written["datasheet.md"] and b"DP-SGD" not in written["privacy.json"]
    assert "mu =" in json.loads(written["privacy.json"])["deployment"]["accounting"]["composition"]
