"""The whole report: one page and one JSON, for the steward's eyes, without any real value."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synth.evaluate.internal import models
from synth.evaluate.internal.detection import Telltale
from synth.evaluate.internal.page import full_page
from synth.evaluate.internal.report import (
    JSON_NAME,
    PAGE_NAME,
    Report,
    Subject,
    alarms,
    full_report,
    unlike,
    write_report,
)
from synth.evaluate.internal.rows import Rows
from synth.schema import Schema
from synth.tables.codec import codecs_of

Draw = Callable[[int, int], np.ndarray]
SUBJECT = Subject(
    run="<b>run</b>", epsilon=1.0, delta=1e-5, mu=0.268, intact=True, real="test.parquet", training="train.parquet"
)
VOID = {"meta", "link", "br", "img", "input", "hr"}
SHAPES = {"rect", "path", "line", "polyline"}


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(codecs: Any, people: Draw, rows_of: Callable[[np.ndarray], Rows]) -> Report:
    training = people(300, 1)
    fake = people(300, 3)
    fake[:80] = training[:80]
    with pytest.MonkeyPatch.context() as patch:
        forest = models.RandomForestClassifier
        patch.setattr(models, "RandomForestClassifier", lambda _, **options: forest(5, **options))
        return full_report(
            SUBJECT,
            rows_of(people(300, 2)),
            rows_of(fake),
            rows_of(training),
            codecs,
            target="died",
            created="2026-01-01T00:00:00Z",
            clock=lambda: 0.0,
        )


def test_planted_copies_ring_on_the_page(report: Report, tmp_path: Path) -> None:
    page = write_report(report, tmp_path)
    assert page == tmp_path / PAGE_NAME
    found = json.loads((tmp_path / JSON_NAME).read_text())
    assert found["disclosure"]["copies"]["alarm"] is True
    assert found["alarms"] == alarms(report)
    assert any(alarm.startswith("Copies: 80 synthetic rows") for alarm in found["alarms"])
    assert any("more is won than the privacy statement leaves possible" in alarm for alarm in found["alarms"])
    text = page.read_text()
    assert "Alarm." in text and "a smoke alarm, never a pass mark" in text and "2505.01524" in text
    assert {path.name for path in tmp_path.iterdir()} == {PAGE_NAME, JSON_NAME}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_the_page_stands_alone(report: Report) -> None:
    text = full_page(report, alarms(report))
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "b>run<"}
    for _, attributes in page.tags:
        assert not {"src", "href", "onclick", "onload"} & attributes.keys()
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    assert "For the steward only" in text and "&lt;b&gt;run" in text
    assert len(text) < 400_000


def test_every_number_drawn_is_finite(report: Report) -> None:
    shapes = [attributes for tag, attributes in Page(full_page(report, [])).tags if tag in SHAPES]
    assert len(shapes) > 200
    for attributes in shapes:
        for key in ("x", "y", "width", "height", "x1", "x2", "y1", "y2", "d", "points"):
            for number in re.findall(r"[^\sMVH,]+", attributes.get(key) or "0"):
                assert abs(float(number)) < 1e4


def test_a_bar_goes_from_zero_to_its_value(report: Report) -> None:
    """A column whose shuffling raises the AUC by chance is drawn on the other side of zero."""
    drops = (Telltale("steep", 0.06), Telltale("flat", 0.0), Telltale("chance", -0.02), Telltale("not drawn", -9.0))
    shown = replace(report, detection=replace(report.detection, telltales=drops[:3] + drops[1:2] * 7 + drops[3:]))
    card = full_page(shown, []).split("What gives the synthetic rows away")[1].split("</table>")[0]
    shapes = [attributes for tag, attributes in Page(card.split("</p>")[1] + "</table>").tags if tag == "rect"]
    bars = [(float(a["x"] or 0), float(a["width"] or 0)) for a in shapes if a["class"] == "value synthetic"]
    zero = {float(a["x"] or 0) for a in shapes if a["class"] == "zero"}.pop()
    assert zero == pytest.approx(100 * 0.02 / 0.0816, abs=0.01)
    assert bars[0] == (zero, pytest.approx(100 * 0.06 / 0.0816, abs=0.02))
    assert bars[1] == (zero, 0)
    assert bars[2] == (0, zero)
    assert len(bars) == 10


def test_no_value_of_a_person_is_told(report: Report, people: Draw) -> None:
    """Incomes and dates are all but unique; the bars begin where the public grid says."""
    text = full_page(report, alarms(report)) + json.dumps(asdict(report))
    numbers = set(re.findall(r"[\d,]+\.\d", text))
    incomes = {f"{value / 10:,.1f}" for value in people(300, 1)[:, 1] if not np.isnan(value) and value % 10}
    told = numbers & {income for income in incomes if float(income.replace(",", "")) > 101}  # beyond any percentage
    assert told == set()


def test_same_input_same_report(report: Report, codecs: Any, people: Draw, rows_of: Any) -> None:
    """Apart from utility, which is slow."""
    fake = people(300, 3)
    fake[:80] = people(300, 1)[:80]
    again = full_report(
        SUBJECT,
        rows_of(people(300, 2)),
        rows_of(fake),
        rows_of(people(300, 1)),
        codecs,
        target=None,
        created="2026-01-01T00:00:00Z",
        clock=lambda: 0.0,
    )
    assert again.notes == ("Utility was left out: the schema declares no target. Name a column with --target.",)
    assert replace(again, utility=report.utility, notes=report.notes) == report


def test_a_control_group_unlike_the_learned_rows_is_named(people: Draw, rows_of: Any) -> None:
    whole, half = rows_of(people(200, 1)), rows_of(np.repeat(people(100, 2), 2, axis=0))
    assert unlike(whole, rows_of(people(300, 2))) == []
    (words,) = unlike(whole, half)
    assert "50% of them repeat another, and 0% of the rows that were learned" in words


def test_the_smallest_tables(schema_of: Callable[..., Schema], rows_of: Any, tmp_path: Path) -> None:
    """One column, a few rows, nothing missing, no training rows."""
    codecs = codecs_of(schema_of("died"))
    real, fake = rows_of(np.array([[0.0], [1.0], [1.0]] * 2)), rows_of(np.array([[1.0], [0.0], [1.0]] * 2))
    found = full_report(SUBJECT, real, fake, None, codecs, target="died", created="now")
    assert alarms(found) == []
    assert found.notes == ("Utility was left out: the target is the only column.",)
    assert found.disclosure.left_out is not None
    Page(write_report(found, tmp_path).read_text())
