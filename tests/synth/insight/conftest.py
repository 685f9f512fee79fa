"""Models whose distributions a test writes down itself, and measurements to go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from synth.schema import parse_schema
from synth.tables.codec import codecs_of
from synth.tables.decode import ColumnDecoder
from synth.tables.measurements import Measurements, Pair, PairTable
from synth.tables.model import TableModel, new_generator
from synth.tables.targets import Encoding

NONE = np.empty(0)
COLUMNS: list[dict[str, Any]] = [
    {"name": "sex", "kind": "categorical", "categories": ["female", "male"]},
    {
        "name": "grade",
        "kind": "categorical",
        "categories": [1, 2, 3],
        "nullable": True,
        "labels": {1: "mild", 2: "a label that is far too long to stand in a table"},
    },
    {"name": "age", "kind": "integer", "bounds": [0, 5], "nullable": True},
    {"name": "seen", "kind": "datetime", "bounds": ["2020-01-01", "2020-01-04"], "resolution": "day"},
    {"name": "died", "kind": "boolean"},
]
BINS = {"sex": [0, 1], "grade": [0, 0, 1, 2], "age": [0, 0, 0, 1, 2, 2, 3], "seen": [0, 0, 1, 1], "died": [0, 1]}
"""Bin of each cell: grades 1 and 2 share one; ages are 0 to 2, 3, 4 to 5, missing; days two and two."""


class Hand:
    """What tests write by hand."""

    columns = COLUMNS
    bins = BINS

    @staticmethod
    def model(
        points: Mapping[str, Any],
        *,
        class_share: Sequence[float] = (0.75, 0.25),
        target: str | None = "died",
        rules: Sequence[Any] = (),
        columns: Sequence[dict[str, Any]] = COLUMNS,
        bins: Mapping[str, Sequence[int]] = BINS,
    ) -> TableModel:
        """A model with the given shares: column → [classes, latent points, bins]."""
        raw = {"dataset": "hand", "target": target, "columns": [c for c in columns if c["name"] in {*points, target}]}
        schema = parse_schema({**raw, "rules": list(rules)}, file="s")
        codecs = codecs_of(schema)
        names = tuple(name for name in codecs if name in points)
        shares = np.concatenate([np.asarray(points[name], dtype=np.float32) for name in names], axis=2)
        decoders = {}
        for name in names:
            home = np.array(bins[name])
            decoders[name] = ColumnDecoder(home, 1 / np.bincount(home)[home], NONE, NONE, NONE)
        sizes = tuple(int(max(bins[name])) + 1 for name in names)
        some = new_generator(classes=1, sizes=sizes, latent_points=1, latent_size=1, hidden_size=2, seed=0)
        classes = len(shares)
        model = TableModel(
            schema=schema,
            encoding=Encoding(names, sizes),
            target=target,
            class_share=np.array(class_share[:classes]) if classes > 1 else np.ones(1),
            class_of_cell=np.array(bins[target]) if target else np.zeros(1, dtype=np.int64),
            decoders=decoders,
            members=(some,),
            rows=1000,
        )
        model.__dict__["shares"] = shares  # what the generators would have made
        return model

    @staticmethod
    def measured(
        model: TableModel,
        *,
        total: float = 1000.0,
        noise: float = 2.0,
        pairs: Mapping[Pair, np.ndarray] | None = None,
        one_way: Mapping[str, np.ndarray] | None = None,
    ) -> Measurements:
        """Measurements of so many people: one-ways are the model's own unless given, pairs those that are given."""
        sizes = total * model.class_share
        own = {
            name: model.shares[:, :, model.encoding.place(name)].mean(axis=1).astype(float) * sizes[:, None]
            for name in model.encoding.names
        }
        return Measurements(
            class_of_cell=model.class_of_cell,
            class_sizes=sizes,
            class_size_noise=noise,
            fine={},
            fine_noise={},
            run_of_cell={},
            coarse={},
            coarse_noise={},
            details={},
            detail_noise=0.0,
            bin_of_cell={name: model.decoders[name].bin_of_cell for name in model.encoding.names},
            share={name: model.decoders[name].share for name in model.encoding.names},
            one_way=own | dict(one_way or {}),
            one_way_noise=dict.fromkeys(own, noise),
            profiles={},
            pairs={pair: PairTable(None, 0.0, np.asarray(table), noise) for pair, table in (pairs or {}).items()},
        )


@pytest.fixture(scope="session")
def hand() -> type[Hand]:
    return Hand
