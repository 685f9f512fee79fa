"""In which order a run is refused: its own files first, then privacy, and only then the source is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.errors import SynthError

SOURCES: dict[str, Callable[[Path], Any]] = {
    "whole": lambda source: None,
    "absent": lambda source: source.unlink(),
    "a folder": lambda source: (source.unlink(), source.mkdir()),
    "garbage": lambda source: source.write_bytes(b"\xff\xfe" * 50),
    "a link to nowhere": lambda source: (source.unlink(), source.symlink_to(source.with_name("nowhere"))),
    "a link to itself": lambda source: (source.unlink(), source.symlink_to(source)),
}


@pytest.fixture
def capped(clinic: Any, synth: Any) -> Any:
    """A clinic with room for less than one run."""
    assert synth("budget", "cap", "clinic-patients", "0.9", "--ledger", clinic.ledger_url).code == 0
    return clinic


def refused(outcome: Any, code: int, word: str) -> None:
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    assert outcome.err.count("\n") == 1 and word in outcome.err


@pytest.mark.parametrize("spoil", SOURCES.values(), ids=SOURCES.keys())
def test_over_the_cap_whatever_the_source_is(
    capped: Any, synth: Any, spoil: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> None:
        raise SynthError("the source was opened")

    spoil(capped.source)
    before = capped.files(), capped.ledger.read_bytes()
    monkeypatch.setattr("synth.prepare.check_header", opened)
    refused(synth("run", capped.run_yaml), 3, "its cap is epsilon 0.9")
    assert (capped.files(), capped.ledger.read_bytes()) == before


@pytest.mark.parametrize("spoil", [spoil for name, spoil in SOURCES.items() if name != "whole"])
def test_under_the_cap_the_source_is_looked_at(clinic: Any, synth: Any, spoil: Callable[[Path], Any]) -> None:
    spoil(clinic.source)
    refused(synth("run", clinic.run_yaml), 2, "source ")


def test_a_smaller_epsilon_fits_the_cap(capped: Any, synth: Any) -> None:
    capped.run["privacy"]["epsilon"] = 0.9
    capped.write()
    capped.source.unlink()
    refused(synth("run", capped.run_yaml), 2, "no such file")


def test_mistakes_in_files_come_before_the_cap(capped: Any, synth: Any) -> None:
    (capped.folder / "answers.yaml").write_text("title: 3")
    refused(synth("run", capped.run_yaml), 2, "title")
    capped.column("age")["bounds"] = [90, 18]
    capped.write()
    refused(synth("run", capped.run_yaml), 2, "reversed")


def test_unconfirmed_domains_come_before_the_cap_and_after_mistakes(capped: Any, synth: Any) -> None:
    capped.column("age")["domain"] = "unconfirmed"
    capped.write()
    refused(synth("run", capped.run_yaml), 3, "domain of age")
    capped.run["privacy"]["delta"] = 2
    capped.write()
    refused(synth("run", capped.run_yaml), 2, "privacy.delta")


def test_a_damaged_ledger_stops_a_run(capped: Any, synth: Any) -> None:
    content = capped.ledger.read_bytes()
    capped.ledger.write_bytes(content.replace(b'{"delta":0.00001,"epsilon":0.9}', b'{"delta":0.00001,"epsilon":9.9}'))
    assert capped.ledger.read_bytes() != content
    refused(synth("run", capped.run_yaml), 4, "changed after it was written")
    assert not capped.out.exists()


def test_another_population_is_not_capped(capped: Any, synth: Any) -> None:
    capped.schema["population"] = "others"
    capped.write()
    capped.source.unlink()
    refused(synth("run", capped.run_yaml), 2, "no such file")


def test_a_prefect_that_does_not_start_costs_nothing(clinic: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: object) -> None:
        raise SynthError("Prefect's server did not start")

    monkeypatch.setattr("pipelines.server._wait", give_up)
    outcome = synth("run", clinic.run_yaml)
    assert (outcome.code, outcome.out) == (1, "")
    prepared, told = outcome.err.splitlines()
    assert prepared.startswith("prepare: ") and told == "synth: Prefect's server did not start"
    assert list(clinic.out.iterdir()) == []
    assert not clinic.ledger.exists()


def test_a_delta_that_protects_nobody_is_refused(clinic: Any, synth: Any) -> None:
    clinic.run["privacy"] = {"epsilon": 1.0, "delta": 0.5}
    clinic.write()
    assert synth("run", clinic.run_yaml).code == 3
