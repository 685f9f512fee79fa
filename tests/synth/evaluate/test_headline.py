"""The head of the quick report: short, worst first, and alarmed where it should be."""

from __future__ import annotations

import re
from typing import Any

from synth.evaluate.internal.headline import headline
from synth.evaluate.internal.page import quick_page


def scores(*, outside: int = 0, alarm: bool = False, rules: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    names = [f"a_rather_long_name_{i}" for i in range(6)]
    return {
        "real_rows": 1_234_567,
        "synthetic_rows": 1_200_000,
        "mean_distance": {"one_way": 0.1, "two_way": 0.2, "three_way": None},
        "columns": [{"column": n, "distance": 0.6 - i / 10, "outside": outside * i} for i, n in enumerate(names)],
        "overlays": [],
        "pairs": [],
        "copies": {
            "copied": 90,
            "by_chance": 7,
            "share": 0.5,
            "synthetic_rows": 95,
            "compared_with": "other rows of the same table",
            "p_value": 1e-9,
            "alarm": alarm,
            "rows_compared": 200_000,
        },
        "rules": [
            {"rule": f"a{i} >= b", "source_breaks": broken, "source_rows": rows, "model_share": 0.1}
            for i, (broken, rows) in enumerate(rules)
        ],
    }


def test_nothing_to_see() -> None:
    lines = headline(scores())
    assert [(line.about, line.alarm) for line in lines] == [
        ("Copies", False),
        ("Outside the declared domain", False),
        ("Furthest from the source", False),
    ]
    assert lines[1].text == "no cell."
    assert lines[2].text.startswith(
        "a_rather_long_name_0 0.60, a_rather_long_name_1 0.50, a_rather_long_name_2 0.40 (0 is equal, 1 disjoint)"
    )


def test_what_speaks_against_the_bundle_is_named() -> None:
    copies, outside, rules, _ = headline(scores(outside=10, alarm=True, rules=((0, 5), (3, 100), (2, 10))))
    assert copies.alarm and "90 distinct rows, 7 by chance" in copies.text
    assert outside.alarm and outside.text.startswith(
        "a_rather_long_name_5 (50 of 1,234,567 cells), a_rather_long_name_4 (40 of 1,234,567 cells), "
        "a_rather_long_name_3 (30 of 1,234,567 cells) and 2 columns more. "
    )
    assert not rules.alarm and rules.text.startswith("2, the worst in 2 of 10 rows")


def test_what_estimated_bounds_cut_off_is_no_fault_of_the_schema() -> None:
    names = [f"a_rather_long_name_{i}" for i in (5, 3, 0)]
    bounds = [{"column": name, "low": 0, "high": 200, "are": "estimated"} for name in names]
    _, outside, cut, _ = headline(scores(outside=10) | {"bounds": bounds})
    assert outside.alarm and outside.text.startswith("a_rather_long_name_4 (40 of 1,234,567 cells)")
    assert not cut.alarm and cut.text == (
        "a_rather_long_name_5 0 to 200 (cuts off 50 cells), a_rather_long_name_3 0 to 200 (cuts off 30 cells), "
        "a_rather_long_name_0 0 to 200."
    )


def test_it_is_read_in_a_minute_and_stands_first() -> None:
    worst = quick_page(scores(outside=10, alarm=True, rules=((3, 100),)))
    body = worst.split("</header>")[1]
    box, rest = body.split("</section>", 1)
    words = re.sub(r"<[^>]+>", " ", box).split()
    assert words[:3] == ["Before", "you", "decide"]
    assert len(words) <= 150
    assert "Columns, worst first" in rest and box.count('class="rung"') == 2
