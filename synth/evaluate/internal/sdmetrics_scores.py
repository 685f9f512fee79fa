"""SDMetrics' diagnostic and quality reports, on a stated number of rows: their pair scores are slow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.evaluate.internal.rows import frame_of
from synth.schema import BooleanColumn
from synth.tables.codec import Codec, OrderedCodec

FloatArray = npt.NDArray[np.float64]

MOST_ROWS = 5_000
MOST_COLUMNS = 60


@dataclass(frozen=True)
class LibraryScore:
    """One score of SDMetrics in [0, 1], 1 is best; of a column, or of a pair."""

    columns: tuple[str, ...]
    metric: str
    score: float


@dataclass(frozen=True)
class LibraryScores:
    """SDMetrics' two reports.

    Attributes:
        rows: rows of either table that were used; columns: how many of the columns.
        properties: its summary scores by name, such as "Column Shapes"; None where it gives none.
        worst: the lowest scores of columns and pairs, worst first.
    """

    version: str
    rows: int
    columns: int
    properties: dict[str, float | None]
    worst: tuple[LibraryScore, ...]


def library_scores(real: FloatArray, synthetic: FloatArray, codecs: Mapping[str, Codec]) -> LibraryScores:
    """Run both reports on the first MOST_ROWS sampled rows and MOST_COLUMNS columns.

    NOTE: SDMetrics 0.32 cuts the numbers of a mixed pair on each table's own range, so that one extreme value more or
    less moves every cut. The page says so.
    """
    import sdmetrics
    from sdmetrics.reports import DiagnosticReport, QualityReport

    kept = dict(list(codecs.items())[:MOST_COLUMNS])
    rows = min(MOST_ROWS, len(real), len(synthetic))
    tables = [{"table": frame_of(matrix[:rows, : len(kept)], kept)} for matrix in (real, synthetic)]
    metadata = {"tables": {"table": {"columns": {name: {"sdtype": _kind(codec)} for name, codec in kept.items()}}}}
    properties: dict[str, float | None] = {}
    scores: list[LibraryScore] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant columns, and of what pandas will change
        for report, shown in (
            (DiagnosticReport(), ("Data Validity", "Data Structure")),
            (QualityReport(), ("Column Shapes", "Column Pair Trends")),
        ):
            report.generate(*tables, metadata, verbose=False)
            summary = report.get_properties().set_index("Property")["Score"]
            properties |= {name: _finite(summary.get(name)) for name in shown}
            for name in shown:
                details = report.get_details(name)
                sides = [side for side in ("Column", "Column 1", "Column 2") if side in details]
                for _, line in details.iterrows():
                    score = _finite(line["Score"])
                    if sides and score is not None:
                        where = tuple(str(line[side]) for side in sides)
                        scores.append(LibraryScore(where, str(line["Metric"]), score))
    return LibraryScores(
        version=sdmetrics.__version__,
        rows=rows,
        columns=len(kept),
        properties=properties,
        worst=tuple(sorted(scores, key=lambda s: s.score)[:12]),
    )


def _kind(codec: Codec) -> str:
    if isinstance(codec, OrderedCodec):
        return "numerical"
    return "boolean" if isinstance(codec.column, BooleanColumn) else "categorical"


def _finite(value: object) -> float | None:
    number = float(value) if isinstance(value, (int, float, np.floating)) else math.nan
    return number if math.isfinite(number) else None
