from __future__ import annotations

from pathlib import Path

import pytest


def test_the_slope_of_a_straight_line_has_no_error() -> None:
    from soak import slope

    rows = [{"run": float(run), "memory_mb": 400 + 0.5 * run} for run in range(1, 21)]
    assert slope(rows, "memory_mb", 5, 20).startswith("+0.5 ± ")
    assert float(slope(rows, "memory_mb", 5, 20).rpartition(" ")[2]) < 1e-9
    assert slope(rows, "memory_mb", 19, 20) == "–"
    assert slope([row | {"memory_mb": 7.0} for row in rows], "memory_mb", 1, 20) == "0"


def test_the_sum_by_hand_is_the_ledgers(tmp_path: Path) -> None:
    """Three runs of two events: μ² = 3 (0.04 + 0.09)."""
    from soak import exact, is_exact

    from synth.privacy.events import GaussianEvent
    from synth.privacy.ledger import Ledger

    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    events = [
        GaussianEvent(name=name, sensitivity=1.0, replace_one_sensitivity=1.5, noise_scale=scale)
        for name, scale in (("one", 5.0), ("other", 1 / 0.3))
    ]
    for run in "abc":
        ledger.reserve(population="people", dataset="table", run_id=run, events=events, delta=1e-5)
    sums = exact(tmp_path)
    assert (sums["runs"], sums["entries"]) == (3, 3)
    assert sums["mu"] == pytest.approx((3 * 0.13) ** 0.5, rel=1e-12)
    assert is_exact(sums)
    assert not is_exact(sums | {"ledger": sums["ledger"] + 1e-5})
