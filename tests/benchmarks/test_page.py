from __future__ import annotations

import csv
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


def row(method: str, status: str = "ok", epsilon: str = "1", run: str = "1", **scores: float | str) -> dict[str, str]:
    known = {"table": "adult", "epsilon": epsilon, "method": method, "run": run, "tuned": "yes", "status": status}
    return {"reason": "", **known, **{name: str(value) for name, value in scores.items()}}


def of(tvd: float, auc: float, c2st: float, cpu: float) -> dict[str, float]:
    return {"tvd2": tvd, "tvd3": tvd, "auc_gbm": auc, "auc_lr": auc, "c2st": c2st, "cpu_seconds": cpu}


REAL = row("real", epsilon="", auc_gbm=0.93, auc_lr=0.93, c2st=0.5, tvd2=0, tvd3=0)
MST = row("mst", **of(0.10, 0.85, 0.9, 100))
GIFT = row("mst-gift", **of(0.05, 0.83, 0.7, 100))
AIM = row("aim", **of(0.06, 0.80, 0.8, 2400))


def judged(*rows: dict[str, str]) -> dict[str, Any]:
    verdicts = importlib.import_module("verdicts")
    return {each.score: each for each in verdicts.verdicts(verdicts.summarize(rows, "adult", "1"))}


def test_targets_met() -> None:
    found = judged(REAL, MST, GIFT, AIM, row("ours", **of(0.03, 0.90, 0.6, 120)))
    assert {score: verdict.met for score, verdict in found.items()} == dict.fromkeys(found, True)
    assert set(found) == {"tvd2", "tvd3", "gap_gbm", "gap_lr", "off_c2st", "cpu_seconds"}
    assert found["tvd2"].peer == "SmartNoise MST, bins given" and found["tvd2"].ratio == pytest.approx(0.6)
    assert found["gap_gbm"].peer == "SmartNoise MST" and found["gap_gbm"].ratio == pytest.approx(0.03 / 0.08)
    assert found["cpu_seconds"].ratio == pytest.approx(120 / 2400)


def test_missed_targets_say_why() -> None:
    found = judged(REAL, MST, GIFT, AIM, row("ours", **of(0.04, 0.88, 0.7, 240)))
    assert not any(verdict.met for verdict in found.values())
    assert found["tvd2"].reason == (
        "0.80 times the best peer's, 0.6 is wanted; that peer is given something free, beside SmartNoise AIM it is 0.67"
    )
    assert found["gap_lr"].reason == "0.62 times the best peer's, 0.5 is wanted"
    assert found["cpu_seconds"].reason == "10.0 times faster, 20 is wanted"
    drawn = row("resampled", epsilon="", auc_gbm=0.92, auc_lr=0.91, c2st=0.51, tvd2=0.031, tvd3=0.031)
    found = judged(REAL, drawn, MST, row("ours", **of(0.07, 0.88, 0.7, 240)))
    assert found["tvd2"].reason.endswith("0.6 is wanted; as many rows drawn from the training rows have .031")
    assert found["gap_lr"].reason.endswith("0.5 is wanted; as many rows drawn from the training rows have .020")
    found = judged(REAL, row("others", epsilon="", tvd2=0.044), drawn, MST, row("ours", **of(0.07, 0.88, 0.7, 240)))
    people = "; as many other people have .044; as many rows drawn from the training rows have .031"
    assert found["tvd2"].reason.endswith(people)
    assert "other people" not in found["gap_lr"].reason


def test_an_aim_that_was_stopped_is_a_lower_bound() -> None:
    stopped = row("aim", "timeout", cpu_seconds=2400)
    ours = row("ours", **of(0.03, 0.90, 0.6, 60))
    assert judged(REAL, MST, stopped, ours)["cpu_seconds"].met
    slow = judged(REAL, MST, stopped, row("ours", **of(0.03, 0.90, 0.6, 240)))["cpu_seconds"]
    assert slow.reason == "10.0 times faster at least, 20 is wanted"
    assert "cpu_seconds" not in judged(REAL, MST, ours)


def test_medians_and_nothing_to_judge() -> None:
    verdicts = importlib.import_module("verdicts")
    rows = [row("ours", run=str(i), tvd2=value) for i, value in enumerate((0.3, 0.1, 0.2), 1)]
    rows.append(row("ours", "failed", run="4"))
    (only,) = verdicts.summarize(rows, "adult", "1")
    assert only.scores["tvd2"] == 0.2 and only.runs == 3 and only.problem == "failed: "
    assert verdicts.verdicts([only]) == []
    assert judged(row("ours", **of(0.03, 0.9, 0.6, 60)), MST).keys() == {"tvd2", "tvd3", "off_c2st"}


def test_the_page_marks_what_is_missed() -> None:
    page = importlib.import_module("page")
    failed = row("dpmm-mst", "failed") | {"reason": "it broke"}
    text = page.page([REAL, MST, GIFT, AIM, failed, row("ours", **of(0.04, 0.90, 0.6, 120))], "x.csv")
    assert "| adult | yes | 1 | **.80** | **.80** | .38 | .38 | .50 | .05 |" in text
    assert "**missed**: 0.80 times the best peer's" in text and "| met |" in text
    assert "- dpmm MST: failed: it broke" in text and "![adult: scores of every method](x-adult.svg)" in text
    assert "| dp-synth | 1 | – | .040 | .040 | .900 | .900 | .600 | – | 120 | – | – |" in text


def test_plots_are_well_formed_and_show_every_good_run() -> None:
    plots = importlib.import_module("plots")
    rows: Sequence[dict[str, str]] = [REAL, MST, row("ours", **of(0.04, 0.9, 0.6, 1)), row("aim", "timeout")]
    tree = ElementTree.fromstring(plots.plot(rows, "adult"))
    circles = tree.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 3 * 4 + 1  # three good runs in four panels, and one ε in the legend
    assert all(190 <= float(circle.attrib["cx"]) <= 1100 for circle in circles[:-1])


def test_the_committed_page_and_plots_say_what_the_committed_figures_say() -> None:
    page, plots = importlib.import_module("page"), importlib.import_module("plots")
    with (BENCHMARKS / "peers.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert (BENCHMARKS / "peers.md").read_text(encoding="utf-8") == page.page(rows, "peers.csv")
    for table in page.tables(rows):
        assert (BENCHMARKS / page.plot_name("peers.csv", table)).read_text(encoding="utf-8") == plots.plot(rows, table)
