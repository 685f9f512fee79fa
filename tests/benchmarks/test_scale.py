from __future__ import annotations

import csv
from pathlib import Path
from typing import Any


def line(source: str, rows: int, stage: str, seconds: float, drawn: int | None = None) -> dict[str, Any]:
    settings = {"source": source, "rows": rows, "steps": 40, "drawn": drawn}
    return settings | {"stage": stage, "cpu_seconds": seconds, "seconds": 2 * seconds, "peak_mb": 400}


def stages(source: str, rows: int, seconds: float, drawn: int | None = None) -> list[dict[str, Any]]:
    return [line(source, rows, stage, seconds, drawn) for stage in ("encode", "measure", "sample")]


def test_a_size_replaces_what_was_there_of_it_and_nothing_else(tmp_path: Path) -> None:
    from scale import write

    for lines in (stages("Parquet", 2000, 9.0), stages("PostgreSQL", 1000, 7.0), stages("Parquet", 1000, 1.0)):
        write(lines, tmp_path)
    write(stages("Parquet", 2000, 2.0), tmp_path)
    with (tmp_path / "scale.csv").open(newline="") as stream:
        found = [(row["source"], row["rows"], row["cpu_seconds"]) for row in csv.DictReader(stream)]
    assert (
        found
        == [("Parquet", "1000", "1.0")] * 3 + [("Parquet", "2000", "2.0")] * 3 + [("PostgreSQL", "1000", "7.0")] * 3
    )


def test_the_projection_is_a_straight_line_through_sizes_that_drew_alike(tmp_path: Path) -> None:
    """A millisecond a row: 100,000 seconds for 100,000,000 rows."""
    from scale import write

    for rows, drawn in ((1000, None), (2000, None), (3000, 10)):
        lines = stages("Parquet", rows, rows / 1000, drawn)
        write([one | {"cpu_seconds": 0.1} if drawn and one["stage"] == "sample" else one for one in lines], tmp_path)
    page = (tmp_path / "scale.md").read_text()
    assert "| encode | 1.0, 2 | 2.0, 4 | 3.0, 6 | 100,000 |" in page
    assert "| sample | 1.0, 2 | 2.0, 4 | 0.1, 6 | 100,000 |" in page
    assert "| synthetic rows | 1,000 | 2,000 | 10 | |" in page
    assert "At 3,000 rows encoding does 1,000 rows a CPU second" in page
