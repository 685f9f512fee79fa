"""From bins back to values of the exact declared types."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.schema import Schema, parse_schema
from synth.tables.codec import Codec, LevelCodec, OrderedCodec, codec_of, codecs_of
from synth.tables.decode import ColumnDecoder, arrow_schema, decoder_of, values_at
from synth.tables.measurements import Measurements
from synth.tables.spread import pieces_of

EMPTY = np.empty(0)


def codec(**column: Any) -> Codec:
    schema = parse_schema({"dataset": "t", "columns": [{"name": "a", **column}]}, file="s")
    return codec_of(schema.columns[0])


def exact(of: Codec) -> ColumnDecoder:
    """Each cell is a bin."""
    return ColumnDecoder(np.arange(of.size), np.ones(of.size), EMPTY, EMPTY, EMPTY)


def decode_column(of: Codec, decoder: ColumnDecoder, drawn: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """Values of drawn bins."""
    return values_at(of, pieces_of(of, decoder).draw(drawn, rng))


COLUMNS = [
    {"kind": "integer", "bounds": [-3, 30], "nullable": True},
    {"kind": "integer", "bounds": [-(10**6), 10**6]},
    {"kind": "integer", "bounds": [-(2**53) + 1, 2**53 - 1]},
    {"kind": "continuous", "bounds": [0.15, 0.95], "decimals": 1},
    {"kind": "continuous", "bounds": [-1000, 1000], "decimals": 3, "nullable": True},
    {"kind": "continuous", "bounds": [2.5, 250]},
    {"kind": "continuous", "bounds": [0, 1e12], "scale": "log", "nullable": True},
    {"kind": "continuous", "bounds": [5, 5]},
    {"kind": "boolean", "nullable": True},
    {"kind": "categorical", "categories": ["no", "yes"]},
    {"kind": "categorical", "categories": [1, 2.0], "nullable": True},
    {"kind": "categorical", "categories": [0.5, 1]},
    {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"], "resolution": "day"},
    {"kind": "datetime", "bounds": ["1960-06-01", "2030-01-01"], "nullable": True},
    {"kind": "datetime", "bounds": ["1989-01-01T10:30", "1989-01-03T10:30"], "resolution": "hour"},
]


@pytest.mark.parametrize("column", COLUMNS, ids=str)
class TestEveryKind:
    def test_has_its_exact_type_and_lies_in_its_domain(self, column: dict[str, Any]) -> None:
        of = codec(**column)
        rng = np.random.default_rng(0)
        values = decode_column(of, exact(of), rng.integers(0, of.size, 500), rng)
        assert values.type == of.arrow_type
        assert of.valid(values).all()
        if isinstance(of, OrderedCodec):
            known = values.drop_null().to_pylist()
            low, high = of.column.bounds
            assert low <= min(known) <= max(known) <= high

    def test_encoding_finds_the_cells_again(self, column: dict[str, Any]) -> None:
        of = codec(**column)
        rng = np.random.default_rng(1)
        drawn = rng.integers(0, of.size, 500)
        encoded = of.encode(decode_column(of, exact(of), drawn, rng), rng)
        assert encoded.outside == 0
        assert encoded.codes["cells:a"].tolist() == drawn.tolist()

    def test_no_rows(self, column: dict[str, Any]) -> None:
        of = codec(**column)
        values = decode_column(of, exact(of), np.empty(0, dtype=np.int64), np.random.default_rng(0))
        assert (len(values), values.type) == (0, of.arrow_type)


class TestWithinABin:
    def test_cells_follow_their_shares(self) -> None:
        of = codec(kind="categorical", categories=["a", "b", "c", "d"])
        decoder = ColumnDecoder(np.array([0, 1, 0, 1]), np.array([0.25, 1.0, 0.75, 0.0]), EMPTY, EMPTY, EMPTY)
        rng = np.random.default_rng(0)
        drawn = np.repeat([0, 1], 4000)
        found = Counter(zip(drawn.tolist(), decode_column(of, decoder, drawn, rng).to_pylist(), strict=True))
        assert set(found) == {(0, "a"), (0, "c"), (1, "b")}
        assert found[0, "a"] == pytest.approx(1000, abs=150)

    @given(data=st.data(), size=st.integers(1, 40))
    def test_a_value_never_leaves_its_bin(self, data: st.DataObject, size: int) -> None:
        of = codec(kind="integer", bounds=[0, size - 1])
        bins = np.unique(data.draw(st.lists(st.integers(0, 5), min_size=size, max_size=size)), return_inverse=True)[1]
        weight = np.array(data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))) + 1e-12
        share = weight / np.bincount(bins, weights=weight)[bins]
        decoder = ColumnDecoder(bins, share, EMPTY, EMPTY, EMPTY)
        drawn = np.repeat(np.arange(bins.max() + 1), 20)
        values = decode_column(of, decoder, drawn, np.random.default_rng(0)).to_numpy()
        assert np.array_equal(bins[values], drawn)

    def test_single_values_come_out_as_often_as_they_were_held(self) -> None:
        of = codec(kind="integer", bounds=[0, 9999])
        assert isinstance(of, OrderedCodec)
        cell = int(of.lattice.cell_of(np.array([5000.0]))[0])
        singles = of.lattice.edges[cell] + np.array([1.0, 2.0])
        decoder = ColumnDecoder(np.arange(of.size), np.ones(of.size), singles, np.array([0.5, 0.3]), EMPTY)
        values = decode_column(of, decoder, np.full(4000, cell), np.random.default_rng(0)).to_numpy()
        assert (values == singles[0]).mean() == pytest.approx(0.5, abs=0.05)
        assert (values == singles[1]).mean() == pytest.approx(0.3, abs=0.05)
        assert set(of.lattice.cell_of(values.astype(float)).tolist()) == {cell}

    def test_values_are_as_round_as_the_people_wrote_them(self) -> None:
        of = codec(kind="integer", bounds=[0, 99_999])
        decoder = ColumnDecoder(np.zeros(of.size, dtype=np.int64), np.full(of.size, 1 / of.size), EMPTY, EMPTY, EMPTY)
        rng = np.random.default_rng(0)
        for digits, size in (([1.0, 0, 0, 0], 1000), ([0, 0, 1.0, 0], 10)):
            rounding = ColumnDecoder(decoder.bin_of_cell, decoder.share, EMPTY, EMPTY, np.array(digits))
            values = decode_column(of, rounding, np.zeros(500, dtype=np.int64), rng).to_numpy()
            # Beyond the last thousand there is no rounder number within the bounds.
            assert np.all(values[values < 99_500] % size == 0)

    @pytest.mark.parametrize(("unit", "decimals"), [(1, 1), (2, 2), (4, 4)])
    def test_rounded_real_numbers_are_the_numbers_as_written(self, unit: int, decimals: int) -> None:
        of = codec(kind="continuous", bounds=[0, 100])
        assert isinstance(of, OrderedCodec)
        digits = np.eye(len(of.lattice.units) + 1)[unit]
        decoder = ColumnDecoder(np.zeros(of.size, dtype=np.int64), np.full(of.size, 1 / of.size), EMPTY, EMPTY, digits)
        values = decode_column(of, decoder, np.zeros(500, dtype=np.int64), np.random.default_rng(0)).to_pylist()
        assert all(value == float(f"{value:.{decimals}f}") for value in values)
        singles = of.lattice.position_of_single(np.arange(of.lattice.singles)[:2000]).tolist()
        assert all(value == float(f"{value:.6f}") for value in singles)


class TestDecoders:
    def test_find_the_value_that_people_share(self, hospital_run: tuple[Any, Measurements]) -> None:
        run, measured = hospital_run
        decoder = decoder_of(measured, run.codecs["income"])
        assert 10_000.0 in decoder.singles  # 1000.0 in units of its last decimal
        assert np.all((decoder.single_share > 0) & (decoder.single_share <= 1))

    def test_shares_sum_to_one_in_every_bin(self, hospital_run: tuple[Any, Measurements]) -> None:
        run, measured = hospital_run
        for name in run.layout.columns:
            decoder = decoder_of(measured, run.codecs[name])
            assert len(decoder.share) == run.codecs[name].size
            assert np.bincount(decoder.bin_of_cell, weights=decoder.share) == pytest.approx(1)

    def test_missing_is_a_bin_of_its_own(self, hospital_run: tuple[Any, Measurements]) -> None:
        run, measured = hospital_run
        for name in ("income", "city", "smoker"):
            of, decoder = run.codecs[name], decoder_of(measured, run.codecs[name])
            assert (decoder.bin_of_cell == decoder.bin_of_cell[of.missing]).sum() == 1
            drawn = np.full(20, decoder.bin_of_cell[of.missing])
            assert decode_column(of, decoder, drawn, np.random.default_rng(0)).null_count == 20

    def test_every_value_is_valid_after_noise_alone(self, toy_run: Any, hospital: Schema) -> None:
        run = toy_run(hospital, epsilon=0.05)
        empty = [run.codes_of(("5", None, "3", "Rome", "1", None, "1990-01-01", "true"), 0)]
        _, measured = run.measure(empty)
        rng = np.random.default_rng(0)
        for name in run.layout.columns:
            of, decoder = run.codecs[name], decoder_of(measured, run.codecs[name])
            drawn = rng.integers(0, decoder.bin_of_cell.max() + 1, 300)
            values = decode_column(of, decoder, drawn, rng)
            assert of.valid(values).all()


class TestArrowSchema:
    def test_declared_columns_in_their_declared_order(self, schema_of: Callable[..., Schema]) -> None:
        names = ("number", "age", "income", "dose", "stage", "city", "died", "seen")
        schema = schema_of(*names)
        arrow = arrow_schema(schema, codecs_of(schema))
        assert arrow.names == list(names)
        assert [str(kind) for kind in arrow.types] == [
            "string",
            "int64",
            "double",
            "double",
            "int64",
            "string",
            "bool",
            "timestamp[us]",
        ]
        assert [arrow.field(name).nullable for name in names] == [False, False, True, False, False, True, False, True]

    def test_times_carry_no_zone(self, schema_of: Callable[..., Schema]) -> None:
        of = codecs_of(schema_of("seen"))["seen"]
        assert isinstance(of, OrderedCodec) and not isinstance(of, LevelCodec)
        (moment,) = of.decode_positions(np.array([1_577_836_801.0]), np.array([False])).to_pylist()
        assert moment == datetime.datetime(2020, 1, 1, 0, 0, 1)
        assert pa.timestamp("us") == of.arrow_type
