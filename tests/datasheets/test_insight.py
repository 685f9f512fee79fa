"""What the quality page and its JSON say of pairs, contrasts and the latent map."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

from datasheets import Answers, FileDigest, document
from datasheets.insight import percent, shift_in_words, strongest_first
from datasheets.pictures import MOST_COLUMNS, contrast_view, map_view, pairs_view
from synth.facts import (
    AxisFacts,
    ContrastFacts,
    GroupFacts,
    InsightFacts,
    MapFacts,
    PairFacts,
    PublicFacts,
    ShiftFacts,
)

HOSTILE = "</svg><script>alert('x')</script>\"&"


def pair(a: str, b: str, **changes: Any) -> PairFacts:
    values = {"cells": 8, "noise": 10.0, "share_error": 0.002, "dependence": 0.2, "dependence_z": 8.0}
    return PairFacts(columns=(a, b), **(values | {"residual": 1.0, "residual_z": 0.2} | changes))


def shift(column: str, **changes: Any) -> ShiftFacts:
    values: dict[str, Any] = {"distance": 0.3, "error": 0.02, "z": 9.0, "what": "mean", "level": ""}
    return ShiftFacts(column=column, **(values | {"values": (51.25, 64.0), "value_error": 1.1} | changes))


def insight_of(a: str = "age", b: str = "sex") -> InsightFacts:
    told = shift(b, what="share", level="male", values=(0.5, 0.912), value_error=0.01)
    return InsightFacts(
        pairs=(pair(a, b, residual=2.1, residual_z=7.0), pair("died", a), pair("died", b, dependence_z=1.0)),
        unmeasured=12,
        contrast=ContrastFacts(by="died", groups=("false", "true"), shares=(0.7, 0.3), shifts=(shift(a), told)),
        map=MapFacts(
            by="died",
            classes=("false", "true"),
            axes=(
                AxisFacts(part=0.4, low=(f"{a} low",), high=(f"{a} high",)),
                AxisFacts(part=0.2, low=(f"{b} = male",), high=(f"{b} = female",)),
            ),
            points=((-1.0, 0.5, 0, 0), (0.25, -0.5, 1, 1)),
            groups=(
                GroupFacts(share=0.75, members=(1.0, 0.0), apart=(told,)),
                GroupFacts(share=0.25, members=(0.0, 1.0), apart=(shift(a),)),
            ),
        ),
    )


def with_insight(facts: PublicFacts, insight: InsightFacts | None) -> PublicFacts:
    return facts.model_copy(update={"quality": facts.quality.model_copy(update={"insight": insight})})


@pytest.fixture
def written(facts: PublicFacts, files: Mapping[str, FileDigest]) -> dict[str, bytes]:
    return document(with_insight(facts, insight_of()), Answers(), files)


class Page(HTMLParser):
    """Its texts and ids, and whether every tag is closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.named: list[str] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        found = dict(attrs)
        self.ids += [str(found["id"])] if "id" in found else []
        if found.get("role") == "img":
            self.named.append(str(found.get("aria-label")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(" ".join(data.split()))


def test_the_json_says_all_of_it(written: Mapping[str, bytes]) -> None:
    found = json.loads(written["quality.json"])
    assert [p["columns"] for p in found["pairs"]["measured"]] == [["age", "sex"], ["died", "age"], ["died", "sex"]]
    assert found["pairs"]["unmeasured"] == 12
    assert found["contrast"]["by"] == "died" and len(found["contrast"]["shifts"]) == 2
    assert found["latent_map"]["points"] == [[-1.0, 0.5, 0, 0], [0.25, -0.5, 1, 1]]
    assert all(found[part]["reading"] for part in ("pairs", "contrast", "latent_map"))


def test_the_page_shows_all_of_it(written: Mapping[str, bytes]) -> None:
    page = Page(written["quality.html"])
    assert not page.open
    assert {"contrast", "map", "pairs"} <= set(page.ids)
    assert len(page.named) == 2 and all(page.named)
    text = " ".join(page.texts)
    assert "What changes with died" in text and "mean: 51.25 → 64 years (± 2.2)" in text
    assert "male: 50 % → 91 % (± 2)" in text
    assert "sex = male: 91 % (all: 50 %)" in text and "age: mean 64 years (all: 51.25)" in text
    assert "2 of the 3 measured pairs show a dependence" in text
    assert "In 1 of them the model is farther from the measurement than noise explains" in text
    assert "12 pairs of columns were not measured" in text
    assert "↑ sex = female" in text and "← age low" in text


def test_the_datasheet_says_what_it_comes_to(facts: PublicFacts, written: Mapping[str, bytes], files: Any) -> None:
    told = (
        "Of 3 measured pairs of columns (the target with each other column among them) 2 show a dependence beyond noise"
    )
    for name in ("datasheet.md", "datasheet.html", "croissant.json"):
        assert told in written[name].decode() and "how each column changes with died" in written[name].decode()
        assert (
            "measured pairs of columns (the" not in document(with_insight(facts, None), Answers(), files)[name].decode()
        )


def test_nothing_is_said_without_it(facts: PublicFacts, files: Mapping[str, FileDigest]) -> None:
    written = document(with_insight(facts, None), Answers(), files)
    assert not {"pairs", "contrast", "latent_map"} & set(json.loads(written["quality.json"]))
    assert not {"contrast", "map", "pairs"} & set(Page(written["quality.html"]).ids)


def test_parts_that_are_missing_are_left_out(facts: PublicFacts, files: Mapping[str, FileDigest]) -> None:
    bare = InsightFacts(pairs=(), unmeasured=3, contrast=None, map=None)
    written = document(with_insight(facts, bare), Answers(), files)
    assert not {"contrast", "map", "pairs"} & set(Page(written["quality.html"]).ids)
    found = json.loads(written["quality.json"])
    assert (found["contrast"], found["latent_map"], found["pairs"]["unmeasured"]) == (None, None, 3)


def test_where_noise_hides_everything_it_says_so(facts: PublicFacts, files: Mapping[str, FileDigest]) -> None:
    hidden = insight_of().model_copy(update={"pairs": (pair("age", "sex", dependence_z=1.0),)})
    page = document(with_insight(facts, hidden), Answers(), files)["quality.html"].decode()
    assert "None of the 1 measured pair shows a dependence" in page and "read none into the rows" in page


def test_hostile_names_become_text(facts: PublicFacts, files: Mapping[str, FileDigest]) -> None:
    columns = ({"name": HOSTILE, "kind": "boolean", "unit": HOSTILE}, {"name": "sex", "kind": "boolean"})
    data = facts.data.model_copy(update={"columns": columns})
    hostile = with_insight(facts.model_copy(update={"data": data}), insight_of(a=HOSTILE))
    page = document(hostile, Answers(), files)["quality.html"]
    assert not Page(page).open and b"<script" not in page and b"alert('x')" not in page


def test_pairs_stand_by_strength_once_they_are_seen() -> None:
    pairs = [pair("a", "b", dependence=0.1), pair("a", "c", dependence=0.9, dependence_z=1.0), pair("b", "c")]
    assert [p.columns for p in strongest_first(pairs)] == [("b", "c"), ("a", "b"), ("a", "c")]


def test_the_matrix_numbers_columns_in_the_order_of_the_schema() -> None:
    view = pairs_view(insight_of(), ["sex", "died", "age", "not measured"])
    assert view is not None
    assert view.matrix.names == ("sex", "died", "age")
    squares = {square.colour: square.path for square in view.matrix.squares}
    # Below the diagonal x < y, above it x > y: sex is 0, died 1, age 2.
    assert squares == {
        "clear": "M0 2h1v1h-1zM1 2h1v1h-1z",
        "none": "M0 1h1v1h-1z",
        "off": "M2 0h1v1h-1z",
        "fits": "M2 1h1v1h-1zM1 0h1v1h-1z",
    }
    assert [p.columns for p in view.farthest] == [("age", "sex")]


@pytest.mark.parametrize(
    ("changes", "colours"),
    [
        ({"dependence_z": 2.9}, {"none", "fits"}),
        ({"dependence": 0.09}, {"weak", "fits"}),
        ({"dependence": 0.3}, {"strong", "fits"}),
        ({"residual_z": 3.0, "residual": 1.4}, {"clear", "near"}),
        ({"residual_z": 30.0, "residual": 3.0}, {"clear", "far"}),
    ],
)
def test_colours(changes: dict[str, float], colours: set[str]) -> None:
    insight = insight_of().model_copy(update={"pairs": (pair("a", "b", **changes),)})
    view = pairs_view(insight, ["a", "b"])
    assert view is not None and {square.colour for square in view.matrix.squares} == colours


def test_of_a_wide_table_the_columns_that_go_together_most() -> None:
    pairs = tuple(pair(f"c{i}", f"c{i + 1}", dependence=0.9 if i < 5 else 0.1) for i in range(200))
    order = [f"c{i}" for i in range(201)]
    view = pairs_view(insight_of().model_copy(update={"pairs": pairs}), order)
    assert view is not None
    assert len(view.matrix.names) == MOST_COLUMNS and view.matrix.of == 201
    assert view.matrix.names[:6] == tuple(order[:6])


def test_bars_stay_on_their_scale() -> None:
    contrast = ContrastFacts(
        by="died",
        groups=("false", "true"),
        shares=(0.5, 0.5),
        shifts=(
            shift("a", distance=0.98, error=0.1),
            shift("b", distance=0.05, error=0.1, z=0.5),
            shift("c", error=None, z=None),
        ),
    )
    view = contrast_view(contrast, {"a": "mm"})
    for line in view.shifts:
        assert 0 <= line.low <= line.width <= line.high <= 100
    assert [line.within_noise for line in view.shifts] == [False, True, False]
    assert view.within_noise == 1 and view.hidden == 0
    assert view.groups == "false (50\u00a0%), true (50\u00a0%)"


def test_letters_stand_among_their_dots() -> None:
    found = insight_of().map
    assert found is not None
    view = map_view(found, {})
    assert [(g.letter, g.x, g.y) for g in view.groups] == [("A", view.dots[0].x, view.dots[0].y), ("B", 123.5, 147.0)]
    assert all(0 < dot.x < 200 and 0 < dot.y < 200 for dot in view.dots)
    assert re.search("From left to right: age low, to age high", view.summary)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (shift("a"), "mean: 51.25 → 64 mm (± 2.2)"),
        (shift("a", value_error=None), "mean: 51.25 → 64 mm"),
        (shift("a", groups=(0, 2)), "mean: 51.25 → 64 mm (± 2.2), x against z"),
        (
            shift("a", values=("2020-01-01", "2021-01-01"), value_error=30.0),
            "mean: 2020-01-01 → 2021-01-01 mm (± 60 days)",
        ),
        (
            shift("a", what="share", level="b", values=(0.0004, 1.0), value_error=0.004),
            "b: 0.04\u00a0% → 100\u00a0% (± 0.8)",
        ),
    ],
)
def test_shifts_in_words(told: ShiftFacts, words: str) -> None:
    assert shift_in_words(told, "mm", ("x", "y", "z")) == words


@pytest.mark.parametrize(("share", "words"), [(0, "0"), (0.0123, "1.2"), (0.0996, "10"), (0.5, "50"), (1, "100")])
def test_percent(share: float, words: str) -> None:
    assert percent(share) == f"{words}\u00a0%"
