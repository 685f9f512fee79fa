"""The internal report: scores measured against the real rows. For the steward alone, never published.

A similarity score computed on real rows is not private, and can be used to rebuild outliers (arXiv 2312.05114).
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.evaluate.distance import total_variation
from synth.files import write_whole
from synth.tables.codec import Codec
from synth.tables.count import Codes
from synth.tables.measure import Measurements

IntArray = npt.NDArray[np.int64]

MAX_TRIPLES = 64
MAX_SCORED_PAIRS = 2_000
MAX_TRIPLE_CELLS = 2_000_000


def internal_scores(
    measured: Measurements,
    codecs: Mapping[str, Codec],
    read: Callable[[Sequence[str]], Iterable[Codes]],
    synthetic: Mapping[str, IntArray],
    outside: Mapping[str, int],
    *,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Exact distances between real and synthetic rows on the pair stage's bins.

    Args:
        measured: supplies the bins.
        codecs: codecs of the learned columns.
        read: opens the encoded real rows.
        synthetic: cells of the synthetic rows.
        outside: per column, how many source values lay outside the declared domain.
        rng: picks which triples are scored.
    """
    lookup = {
        name: measured.bin_of_cell.get(name, np.arange(codec.size)).astype(np.int64) for name, codec in codecs.items()
    }
    names = list(codecs)
    pairs = list(itertools.combinations(names, 2))
    triples = list(itertools.combinations(names, 3))
    pairs = [pairs[i] for i in sorted(rng.permutation(len(pairs))[:MAX_SCORED_PAIRS])]
    size = {name: int(table.max()) + 1 for name, table in lookup.items()}
    triples = [t for t in triples if size[t[0]] * size[t[1]] * size[t[2]] <= MAX_TRIPLE_CELLS]
    triples = [triples[i] for i in sorted(rng.permutation(len(triples))[:MAX_TRIPLES])]
    groups: list[tuple[str, ...]] = [*((name,) for name in names), *pairs, *triples]
    real = _histograms(
        ({n: b[f"cells:{n}"] for n in names} for b in read([f"cells:{n}" for n in names])), lookup, groups
    )
    fake = _histograms([synthetic], lookup, groups)
    distance = {group: total_variation(real[group], fake[group]) for group in groups}
    rows = int(next(iter(real.values())).sum())
    columns = []
    for name in names:
        codec = codecs[name]
        entry: dict[str, Any] = {
            "column": name,
            "distance": distance[(name,)],
            "outside": outside.get(name, 0),
        }
        if codec.missing is not None:
            bin_ = lookup[name][codec.missing]
            entry["missing_real"] = float(real[(name,)][bin_] / rows)
            entry["missing_synthetic"] = float(fake[(name,)][bin_] / fake[(name,)].sum())
        columns.append(entry)
    return {
        "real_rows": rows,
        "synthetic_rows": int(next(iter(fake.values())).sum()),
        "mean_distance": {
            "one_way": float(np.mean([distance[(n,)] for n in names])),
            "two_way": float(np.mean([distance[p] for p in pairs])) if pairs else None,
            "three_way": float(np.mean([distance[t] for t in triples])) if triples else None,
        },
        "columns": sorted(columns, key=lambda e: -e["distance"]),
        "pairs": sorted(({"columns": list(p), "distance": distance[p]} for p in pairs), key=lambda e: -e["distance"]),
    }


def _histograms(
    batches: Iterable[Mapping[str, npt.NDArray[Any]]],
    lookup: Mapping[str, IntArray],
    groups: Sequence[tuple[str, ...]],
) -> dict[tuple[str, ...], IntArray]:
    size = {name: int(table.max()) + 1 for name, table in lookup.items()}
    dense = {g: np.zeros(int(np.prod([size[n] for n in g])), dtype=np.int64) for g in groups}
    for batch in batches:
        code = {name: table[batch[name]] for name, table in lookup.items()}
        for group, counts in dense.items():
            key = np.zeros(len(code[group[0]]), dtype=np.int64)
            for name in group:
                key = key * size[name] + code[name]
            counts += np.bincount(key, minlength=len(counts))
    return dense


def write_internal_report(scores: dict[str, Any], folder: Path) -> None:
    """Write report.json and report.html to the run's internal folder."""
    write_whole(folder / "report.json", json.dumps(scores, indent=1))
    write_whole(folder / "report.html", _page(scores))


def _page(scores: dict[str, Any]) -> str:
    mean = scores["mean_distance"]

    def row(cells: Iterable[object]) -> str:
        return "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>"

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f} %"

    columns = "".join(
        row(
            [
                entry["column"],
                f"{entry['distance']:.4f}",
                share(entry.get("missing_real")),
                share(entry.get("missing_synthetic")),
                entry["outside"] or "",
            ]
        )
        for entry in scores["columns"]
    )
    pairs = "".join(row([" × ".join(e["columns"]), f"{e['distance']:.4f}"]) for e in scores["pairs"][:40])
    means = "".join(
        row([name.replace("_", "-"), "" if value is None else f"{value:.4f}"]) for name, value in mean.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Internal report</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; margin: 1rem 0 2rem; }}
td, th {{ padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: left; }}
.warning {{ background: #fdecea; border-left: 4px solid #b3261e; padding: .75rem 1rem; }}
</style></head><body>
<h1>Internal report</h1>
<p class="warning"><strong>For the steward only.</strong> These scores were computed on the real rows and are not
covered by the privacy guarantee. Do not publish them, and do not choose between runs by them without stating so.</p>
<p>{scores["real_rows"]} real rows, {scores["synthetic_rows"]} synthetic rows. Distances are total variation distances
between the real and the synthetic table (0 is equal, 1 is disjoint).</p>
<h2>Mean distance</h2><table><tr><th>marginals</th><th>distance</th></tr>{means}</table>
<h2>Columns, worst first</h2><table><tr><th>column</th><th>distance</th><th>missing, real</th>
<th>missing, synthetic</th><th>source values outside the domain</th></tr>{columns}</table>
<h2>Pairs, worst first</h2><table><tr><th>pair</th><th>distance</th></tr>{pairs}</table>
</body></html>
"""
