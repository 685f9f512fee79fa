"""The report that every run leaves: quick scores against the rows it was learned from, from the working file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.evaluate.distance import total_variation
from synth.evaluate.histograms import histograms
from synth.evaluate.internal.copies import copies_within
from synth.evaluate.internal.fidelity import some_triples
from synth.evaluate.internal.overlays import Overlay, overlay
from synth.evaluate.internal.page import quick_page
from synth.evaluate.internal.rows import Fingerprints, fingerprints
from synth.files import write_whole
from synth.tables.codec import Codec
from synth.tables.count import Codes
from synth.tables.measurements import Measurements

IntArray = npt.NDArray[np.int64]

MAX_TRIPLES = 64
TRIED_TRIPLES = 4 * MAX_TRIPLES
"""Of which some may have too many cells."""
MAX_SCORED_PAIRS = 2_000
MAX_TRIPLE_CELLS = 2_000_000
MAX_COPY_ROWS = 200_000


def internal_scores(
    measured: Measurements,
    codecs: Mapping[str, Codec],
    read: Callable[[Sequence[str]], Iterable[Codes]],
    synthetic: Callable[[Sequence[str]], Iterable[Codes]],
    outside: Mapping[str, int],
    *,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Exact distances between real and synthetic rows on the pair stage's bins, overlays, and a look for copies.

    Args:
        measured: supplies the bins.
        codecs: codecs of the learned columns.
        read: opens the encoded real rows.
        synthetic: opens the encoded synthetic rows.
        outside: per column, how many source values lay outside the declared domain.
        rng: picks which triples are scored.
    """
    lookup = {
        name: measured.bin_of_cell.get(name, np.arange(codec.size)).astype(np.int64) for name, codec in codecs.items()
    }
    names = list(codecs)
    pairs = list(itertools.combinations(names, 2))
    triples = [tuple(names[i] for i in triple) for triple in some_triples(len(names), TRIED_TRIPLES, rng)]
    pairs = [pairs[i] for i in sorted(rng.permutation(len(pairs))[:MAX_SCORED_PAIRS])]
    size = {name: int(table.max()) + 1 for name, table in lookup.items()}
    triples = [t for t in triples if size[t[0]] * size[t[1]] * size[t[2]] <= MAX_TRIPLE_CELLS]
    triples = [triples[i] for i in sorted(rng.permutation(len(triples))[:MAX_TRIPLES])]
    groups: list[tuple[str, ...]] = [*((name,) for name in names), *pairs, *triples]
    keys = [f"cells:{name}" for name in names]
    real, fake = (histograms(source(keys), lookup, groups) for source in (read, synthetic))
    distance = {group: total_variation(real[group], fake[group]) for group in groups}
    rows = int(next(iter(real.values())).sum())
    in_cells, prints = _cells_and_prints(read, codecs)
    fake_in_cells, fake_prints = _cells_and_prints(synthetic, codecs)
    alarm = copies_within(fake_prints, prints, rng=rng)
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
        "overlays": [
            _plain(overlay(codecs[name], in_cells[name], fake_in_cells[name]))
            for name in sorted(names, key=lambda name: -distance[(name,)])
        ],
        "copies": asdict(alarm) | {"rows_compared": len(prints)},
        "pairs": sorted(({"columns": list(p), "distance": distance[p]} for p in pairs), key=lambda e: -e["distance"]),
    }


def _cells_and_prints(
    read: Callable[[Sequence[str]], Iterable[Codes]], codecs: Mapping[str, Codec]
) -> tuple[dict[str, IntArray], Fingerprints]:
    """Counts of every column's cells over all rows, and fingerprints of the first MAX_COPY_ROWS rows."""
    counts = {name: np.zeros(codec.size, dtype=np.int64) for name, codec in codecs.items()}
    prints: list[Fingerprints] = []
    held = 0
    for batch in read([f"cells:{name}" for name in codecs]):
        cells = {name: np.asarray(batch[f"cells:{name}"]) for name in codecs}
        for name, found in cells.items():
            counts[name] += np.bincount(found, minlength=len(counts[name]))
        if held < MAX_COPY_ROWS:
            prints.append(fingerprints(_matrix(cells, list(codecs))[: MAX_COPY_ROWS - held]))
            held += len(prints[-1])
    return counts, np.concatenate(prints)


def _plain(drawn: Overlay) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(drawn).items()}


def _matrix(cells: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> IntArray:
    return np.column_stack([cells[name] for name in names]).astype(np.int64)


def write_internal_report(scores: dict[str, Any], folder: Path) -> None:
    """Write report.json and report.html to the run's internal folder."""
    write_whole(folder / "report.json", json.dumps(scores, indent=1))
    write_whole(folder / "report.html", quick_page(scores))
