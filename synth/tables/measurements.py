"""Measurements: all that a run has learned about the people, noised, and how it is kept between stages."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from synth.files import write_whole

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Pair = tuple[str, str]
Triple = tuple[str, str, str]

GROUPS = ("fine", "run_of_cell", "coarse", "details", "bin_of_cell", "share", "one_way", "profiles", "group_of_bin")
"""What is kept by column, or by block."""


@dataclass(frozen=True)
class PairTable:
    """A noised two-way table on bins.

    `by_class` [classes, bins a, bins b] with its noise scale, `summed` [bins a, bins b] with its own; None where
    the plan does not release it.
    """

    by_class: FloatArray | None
    by_class_noise: float
    summed: FloatArray | None
    summed_noise: float

    def best(self) -> tuple[FloatArray, float]:
        """The best noised table over all classes [bins a, bins b], and its noise scale."""
        if self.by_class is None:
            assert self.summed is not None
            return self.summed, self.summed_noise
        added, variance = self.by_class.sum(axis=0), len(self.by_class) * self.by_class_noise**2
        if self.summed is None:
            return added, math.sqrt(variance)
        weight = variance / (variance + self.summed_noise**2)
        noise = math.sqrt(weight) * self.summed_noise
        return weight * self.summed + (1 - weight) * added, noise


@dataclass(frozen=True)
class TripleTable:
    """A noised table of three columns over all classes, on groups of their bins [groups a, groups b, groups c]."""

    noised: FloatArray
    noise: float


@dataclass(frozen=True)
class Measurements:
    """All that a run has learned about the people, noised.

    Attributes:
        class_of_cell: class of each of the target's cells ([0] without a target).
        class_sizes: estimated people in each class, ≥ 0, [classes].
        class_size_noise: noise scale of a class size.
        fine: column → noised fine histogram over all classes [cells].
        fine_noise: column → noise scale of its cells.
        run_of_cell: column → run of each cell, NONE of the missing cell, for columns of many ordered cells [cells].
        coarse: column → noised histogram of those runs over all classes [runs].
        coarse_noise: column → noise scale of its runs.
        details: block key → noised histogram [size].
        detail_noise: noise scale of its cells; 0 without details.
        bin_of_cell: column → bin of each cell [cells].
        share: column → estimated share of each cell within its bin [cells].
        one_way: column → noised histogram of the bins within classes [classes, bins].
        one_way_noise: column → noise scale of its bins.
        profiles: column → estimated share of each bin within each class [classes, bins]; rows sum to 1.
        pairs: measured pairs.
        group_of_bin: column → group of each bin in tables of three columns [bins]; empty where none is measured.
        triples: measured triples.
    """

    class_of_cell: IntArray
    class_sizes: FloatArray
    class_size_noise: float
    fine: dict[str, FloatArray]
    fine_noise: dict[str, float]
    run_of_cell: dict[str, IntArray]
    coarse: dict[str, FloatArray]
    coarse_noise: dict[str, float]
    details: dict[str, FloatArray]
    detail_noise: float
    bin_of_cell: dict[str, IntArray]
    share: dict[str, FloatArray]
    one_way: dict[str, FloatArray]
    one_way_noise: dict[str, float]
    profiles: dict[str, FloatArray]
    pairs: dict[Pair, PairTable]
    group_of_bin: dict[str, IntArray] = field(default_factory=dict)
    triples: dict[Triple, TripleTable] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Estimated number of people, at least 1."""
        return max(1.0, float(self.class_sizes.sum()))


def save_measurements(measured: Measurements, folder: Path) -> None:
    """Write measurements to `folder` (safetensors and JSON), the JSON last: its presence says they are whole."""
    arrays = {"class_of_cell": measured.class_of_cell, "class_sizes": measured.class_sizes}
    for group in GROUPS:
        arrays |= {f"{group}:{name}": value for name, value in getattr(measured, group).items()}
    for i, table in enumerate(measured.pairs.values()):
        if table.by_class is not None:
            arrays[f"by_class:{i}"] = table.by_class
        if table.summed is not None:
            arrays[f"summed:{i}"] = table.summed
    arrays |= {f"triple:{i}": table.noised for i, table in enumerate(measured.triples.values())}
    whole = save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    write_whole(folder / "measurements.safetensors", whole)
    described = {
        "columns": list(measured.bin_of_cell),
        "class_size_noise": measured.class_size_noise,
        "fine_noise": measured.fine_noise,
        "coarse_noise": measured.coarse_noise,
        "detail_noise": measured.detail_noise,
        "one_way_noise": measured.one_way_noise,
        "pairs": [
            {"columns": list(p), "by_class_noise": t.by_class_noise, "summed_noise": t.summed_noise}
            for p, t in measured.pairs.items()
        ],
        "triples": [{"columns": list(columns), "noise": t.noise} for columns, t in measured.triples.items()],
    }
    write_whole(folder / "measurements.json", json.dumps(described))


def load_measurements(folder: Path) -> Measurements:
    """Read what `save_measurements` wrote."""
    described = json.loads((folder / "measurements.json").read_text())
    arrays = load_file(folder / "measurements.safetensors")

    def group(name: str) -> dict[str, npt.NDArray[Any]]:
        prefix = f"{name}:"
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    def column_group(name: str) -> dict[str, npt.NDArray[Any]]:
        values = group(name)
        return {column: values[column] for column in described["columns"]}

    by_class, summed = group("by_class"), group("summed")
    return Measurements(
        class_of_cell=arrays["class_of_cell"],
        class_sizes=arrays["class_sizes"],
        class_size_noise=described["class_size_noise"],
        fine=column_group("fine"),
        fine_noise=described["fine_noise"],
        run_of_cell=group("run_of_cell"),
        coarse=group("coarse"),
        coarse_noise=described["coarse_noise"],
        details=group("details"),
        detail_noise=described["detail_noise"],
        bin_of_cell=column_group("bin_of_cell"),
        share=column_group("share"),
        one_way=column_group("one_way"),
        one_way_noise=described["one_way_noise"],
        profiles=column_group("profiles"),
        pairs={
            (p["columns"][0], p["columns"][1]): PairTable(
                by_class=by_class.get(str(i)),
                by_class_noise=p["by_class_noise"],
                summed=summed.get(str(i)),
                summed_noise=p["summed_noise"],
            )
            for i, p in enumerate(described["pairs"])
        },
        group_of_bin=group("group_of_bin"),
        triples={
            (a, b, c): TripleTable(arrays[f"triple:{i}"], t["noise"])
            for i, t in enumerate(described["triples"])
            for a, b, c in [t["columns"]]
        },
    )
