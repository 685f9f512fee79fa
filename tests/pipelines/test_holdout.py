"""Runs with a score on held-out people: what they cost, what they publish, and whom they learn from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synth.privacy import budget
from synth.privacy.accounting import epsilon_of
from synth.privacy.ledger import Ledger

EPSILON = 30.0
SCORE = budget.ACCURACY


def read(bundle: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / name).read_text())
    return document


def internal(bundle: Path) -> dict[str, Any]:
    return read(bundle.parent / "internal", "report.json")


def believable(score: dict[str, Any], exact: dict[str, int]) -> None:
    """The noised pair is the exact one and its noise. Seven deviations are passed once in 10^11 runs."""
    for key in ("correct", "wrong"):
        assert abs(score[key] - exact[key]) < 7 * score["noise_scale"]
    assert 0 <= score["low"] <= score["accuracy"] <= score["high"] <= 1
    assert score["accuracy"] == pytest.approx(score["correct"] / (score["correct"] + score["wrong"]))


def test_people_held_out_by_coins(clinic: Any, synth: Any) -> None:
    """Four hundred rows of two hundred people, of whom about a third are held out, whole."""
    rows = clinic.table.num_rows
    clinic.put("patient_nbr", [f"P{i // 2}" for i in range(rows)])
    clinic.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 2}
    clinic.run["privacy"]["epsilon"] = EPSILON
    clinic.run["evaluation"] = {"holdout": 0.35}
    clinic.write()
    planned = synth("plan", clinic.run_yaml).out
    assert "accuracy on held-out people (each person with probability 0.35)" in planned
    done = synth("run", clinic.run_yaml)
    bundle = done.bundle
    assert "score: right and wrong predictions" in done.err
    assert synth("verify", bundle, "--ledger", clinic.ledger_url).code == 0

    statement = read(bundle, "privacy.json")["x_synth"]
    assert statement["epsilon"] == EPSILON  # the score costs nothing beyond the training
    *training, score = statement["events"]
    assert (score["name"], score["mechanism"], score["holdout"]) == (SCORE, "gaussian-on-held-out", 0.35)
    mu = math.sqrt(math.fsum(event["mu"] ** 2 for event in training))
    assert mu == pytest.approx(statement["mu"]) and mu * (1 - 1e-8) < score["mu"] <= mu
    assert (score["sensitivity"], score["replace_one_mu"]) == (2, pytest.approx(math.sqrt(2) * score["mu"]))
    assert "the larger of the two, not their sum" in statement["accountant"]
    assert any(step.startswith("Score on held-out people: ") for step in statement["path_covered"])
    account = Ledger.open(clinic.ledger_url).population("clinic-patients")
    assert account is not None and account.open == () and account.epsilon == EPSILON
    assert sorted(e.name for e in account.charged[0].spent) == sorted(e["name"] for e in statement["events"])
    assert f"ε = {EPSILON:g} at" in synth("budget", "history", "--ledger", clinic.ledger_url).out

    held_out, report = read(bundle, "quality.json")["held_out"], internal(bundle)
    believable(held_out, report["held_out"])
    assert sum(report["held_out"].values()) + report["real_rows"] == rows
    assert "<h3>Held-out people</h3>" in (bundle.parent / "internal" / "report.html").read_text()
    assert report["real_rows"] % 2 == 0  # people are on one side whole
    # Bin(200, .35) people are held out: fewer than 26 or more than 119 once in 10^10 runs.
    assert 26 <= sum(report["held_out"].values()) / 2 <= 119
    noised = pq.ParquetFile(bundle / "data" / "part-00000.parquet").metadata.num_rows
    assert noised == pytest.approx(report["real_rows"] / 0.65, abs=40)
    for name in ("datasheet.md", "quality.html"):
        text = (bundle / name).read_text()
        assert "was held out of everything else by a coin of its own with probability 0.35" in text, name
    assert "No score here was computed" not in read(bundle, "quality.json")["reading"]
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", "internal"}


def test_people_of_a_file(clinic: Any, quick_run: Any, synth: Any) -> None:
    """They may be in the source too: their score takes its share, and training keeps everybody."""
    others = clinic.table.slice(0, 150)
    pq.write_table(others, clinic.folder / "zq-others.parquet")
    clinic.run["privacy"]["epsilon"] = EPSILON
    clinic.run["evaluation"] = {"holdout": "zq-others.parquet"}
    clinic.write()
    assert "accuracy on held-out people (people of a file)" in synth("plan", clinic.run_yaml).out
    bundle = quick_run(clinic.run_yaml)
    statement = read(bundle, "privacy.json")["x_synth"]
    *training, score = statement["events"]
    assert (score["name"], score["mechanism"]) == (SCORE, "gaussian")
    assert statement["mu"] ** 2 == pytest.approx(math.fsum(event["mu"] ** 2 for event in training) + score["mu"] ** 2)
    assert score["mu"] == pytest.approx(statement["mu"] * math.sqrt(budget.HOLDOUT_FILE_SHARE))
    assert epsilon_of(statement["mu"], 1e-5) == statement["epsilon"] == EPSILON
    assert "the larger of the two" not in statement["accountant"]
    held_out, report = read(bundle, "quality.json")["held_out"], internal(bundle)
    assert held_out["holdout"] is None
    believable(held_out, report["held_out"])
    assert (sum(report["held_out"].values()), report["real_rows"]) == (150, clinic.table.num_rows)
    for path in bundle.rglob("*"):
        assert not path.is_file() or b"zq-others" not in path.read_bytes(), path


def test_a_numeric_target_a_declared_count_and_a_pair_drawn_once(
    clinic: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declared rows are not those that coins have left: how many these are stays noised."""
    from synth.tables import stages

    real, save, log, totals = stages.score, stages.save_measurements, [], []

    def twice(folder: Any, charge: Any) -> None:
        for _ in range(2):
            real(folder, lambda event: log.append(event.name) or charge(event))

    class Watched(stages.NoiseSource):
        def add_to(self, exact: Any, noise_scale: float) -> Any:
            if exact.shape == (2,):
                log.append("draw")
            return super().add_to(exact, noise_scale)

    monkeypatch.setattr(stages, "score", twice)
    monkeypatch.setattr(stages, "NoiseSource", Watched)
    monkeypatch.setattr(stages, "save_measurements", lambda *its: totals.append(its[0].total) or save(*its))
    clinic.schema |= {"target": "age", "row_count": 1000}
    clinic.run["privacy"]["epsilon"] = EPSILON
    clinic.run["evaluation"] = {"holdout": 0.5}
    bundle = quick_run(clinic.write().run_yaml)
    assert log.count(SCORE) == 1 and log[-2:] == [SCORE, "draw"]  # pairs of digits are drawn before
    assert len(totals) == 1 and totals[0] < 300  # of 400 rows; Bin(400, .5) passes 280 once in 10^15 runs
    assert pq.ParquetFile(bundle / "data" / "part-00000.parquet").metadata.num_rows == 1000
    held_out = read(bundle, "quality.json")["held_out"]
    believable(held_out, internal(bundle)["held_out"])
    assert held_out["base_rate"] < 0.5  # of five classes of about equal size
    assert internal(bundle)["real_rows"] < 300  # of 400; Bin(400, .5) passes 300 with probability below 1e-23


def test_everybody_held_out_is_no_error(clinic: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one row, a coin leaves nobody to learn from: noise alone is measured, and nothing tells that it is so."""
    import numpy as np

    monkeypatch.setattr("synth.privacy.holdout.coins", lambda count, _: np.ones(count, dtype=bool))
    clinic.table = clinic.table.slice(0, 1)
    clinic.put("died", [True], pa.bool_())
    clinic.run["privacy"]["epsilon"] = EPSILON
    clinic.run["evaluation"] = {"holdout": 0.5}
    bundle = quick_run(clinic.write().run_yaml)
    assert read(bundle, "privacy.json")["x_synth"]["epsilon"] == EPSILON
    assert pq.ParquetFile(bundle / "data" / "part-00000.parquet").metadata.num_rows >= 1
