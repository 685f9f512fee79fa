"""Values in and values out: every kind, every rule for what lies outside, and exact types."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import InvalidSource
from synth.schema import parse_schema
from synth.tables.blocks import NONE
from synth.tables.codec import Codec, LevelCodec, OrderedCodec, codec_of

RNG = np.random.default_rng(0)
DAY = {"kind": "datetime", "bounds": ["1989-01-01", "1995-01-01"], "resolution": "day"}
SECOND = {"kind": "datetime", "bounds": ["1960-01-01", "2020-12-31T23:59:59"]}
EPOCH = datetime.datetime(1970, 1, 1)


def codec(**column: Any) -> Codec:
    schema = parse_schema({"dataset": "t", "columns": [{"name": "a", **column}]}, file="s")
    return codec_of(schema.columns[0])


def array(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, kind)


def cells(of: Codec, values: pa.Array) -> list[int]:
    return of.encode(values, np.random.default_rng(1)).codes["cells:a"].tolist()


def levels(of: Codec, values: pa.Array) -> list[Any]:
    """The levels that values are read as."""
    assert isinstance(of, LevelCodec)
    return of.decode(np.array(cells(of, values), dtype=np.int64)).to_pylist()


def through(of: Codec, values: pa.Array) -> pa.Array:
    """Values after a round trip through positions."""
    assert isinstance(of, OrderedCodec)
    positions, null = of.positions(values)
    return of.decode_positions(np.where(null, 0, positions), null)


class TestLevels:
    @pytest.mark.parametrize(
        "values",
        [
            array([5, 6], pa.int8()),
            array([5.0, 6.0]),
            array(["5", "6.0"]),
            array([" 5 ", "6e0"]),
            array([Decimal("5.00"), Decimal("6.00")]),
            array(["5", "6"]).dictionary_encode(),
            array([5.0, 6.0], pa.float32()),
            array([5, 6], pa.uint64()).dictionary_encode(),
        ],
        ids=str,
    )
    def test_numbers_match_by_value(self, values: pa.Array) -> None:
        of = codec(kind="categorical", categories=[6, 5])
        assert levels(of, values) == [5, 6]
        assert of.encode(values, RNG).outside == 0

    @pytest.mark.parametrize(
        ("categories", "arrow", "out"),
        [
            ([1, 2.0], pa.int64(), [1, 2]),
            ([0.5, 1], pa.float64(), [0.5, 1.0]),
            (["a", "b"], pa.string(), ["a", "b"]),
            (["1", "2"], pa.string(), ["1", "2"]),
            ([1, "x"], pa.string(), ["1", "x"]),
            (["no", "yes"], pa.string(), ["no", "yes"]),
        ],
    )
    def test_exact_types(self, categories: list[Any], arrow: pa.DataType, out: list[Any]) -> None:
        of = codec(kind="categorical", categories=categories)
        decoded = of.decode(np.array([0, 1]))
        assert decoded.type == of.arrow_type == arrow
        assert decoded.to_pylist() == out
        assert [type(v) for v in decoded.to_pylist()] == [type(v) for v in out]

    def test_text_matches_as_it_is(self) -> None:
        of = codec(kind="categorical", categories=["Rome", "rome", "1"], nullable=True)
        assert levels(of, array(["Rome", "rome", "ROME", " Rome", None])) == ["Rome", "rome", None, None, None]
        assert levels(of, array([1, 2])) == ["1", None]

    def test_booleans_as_words(self) -> None:
        of = codec(kind="categorical", categories=["true", "false"])
        assert levels(of, array([True, False])) == ["true", "false"]

    @pytest.mark.parametrize("missing", [None, math.nan])
    @pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
    def test_nan_is_missing(self, missing: float | None, kind: pa.DataType) -> None:
        of = codec(kind="categorical", categories=[1, 2], nullable=True)
        encoded = of.encode(array([missing, 2.0], kind), RNG)
        assert encoded.codes["cells:a"].tolist() == [2, 1]
        assert encoded.outside == 0
        assert cells(of, array([missing, 2.0], kind).dictionary_encode()) == [2, 1]

    def test_a_null_inside_a_dictionary_is_missing(self) -> None:
        of = codec(kind="categorical", categories=["None", "b"], nullable=True)
        values = pa.DictionaryArray.from_arrays(array([0, 1, None]), array([None, "b"]))
        assert levels(of, values) == [None, "b", None]

    @pytest.mark.parametrize("values", [[], [None, None]])
    def test_nothing_and_all_null(self, values: list[None]) -> None:
        of = codec(kind="categorical", categories=["a", "b"], nullable=True)
        for kind in (pa.string(), pa.null()):
            assert cells(of, array(values, kind)) == [2] * len(values)

    @given(st.lists(st.sampled_from([0.5, 1, 2, 1000]) | st.none(), max_size=30))
    def test_round_trip(self, values: list[float | None]) -> None:
        of = codec(kind="categorical", categories=[0.5, 1, 2, 1000], nullable=True)
        assert levels(of, array(values, pa.float64())) == values

    @given(st.lists(st.text(max_size=6), min_size=1, max_size=20, unique=True))
    def test_round_trip_of_any_text(self, words: list[str]) -> None:
        of = codec(kind="categorical", categories=words)
        assert levels(of, array(words)) == words


class TestBooleans:
    @pytest.mark.parametrize(
        "values",
        [
            array([True, False]),
            array([1, 0]),
            array([1.0, 0.0]),
            array(["yes", "no"]),
            array(["TRUE", " false "]),
            array(["1.0", "0"]),
            array(["T", "F"]).dictionary_encode(),
            array([Decimal("1.00"), Decimal("0.00")]),
        ],
        ids=str,
    )
    def test_spellings(self, values: pa.Array) -> None:
        of = codec(kind="boolean")
        assert levels(of, values) == [True, False]
        assert of.arrow_type == pa.bool_()

    def test_what_is_neither(self) -> None:
        encoded = codec(kind="boolean", nullable=True).encode(array(["maybe", "2", None]), RNG)
        assert (encoded.codes["cells:a"].tolist(), encoded.outside) == ([2, 2, 2], 2)


class TestNumbers:
    @given(st.lists(st.integers(-500, 2000) | st.none(), max_size=20))
    def test_integers_round_trip(self, values: list[int | None]) -> None:
        of = codec(kind="integer", bounds=[-500, 2000], nullable=True)
        for kind in (pa.int64(), pa.float64()):
            assert through(of, array(values, kind)) == array(values, pa.int64())
        assert through(of, array([None if v is None else str(v) for v in values], pa.string())).to_pylist() == values

    @given(st.integers(0, 6), st.lists(st.integers(-999, 999), max_size=20))
    def test_decimals_come_back_exactly(self, decimals: int, steps: list[int]) -> None:
        of = codec(kind="continuous", bounds=[-1000, 1000], decimals=decimals)
        values = [float(f"{step}e-{decimals}") for step in steps]
        assert through(of, array(values, pa.float64())).to_pylist() == values
        assert through(of, array([repr(v) for v in values], pa.string())).to_pylist() == values

    @given(st.lists(st.floats(-1e300, 1e300), max_size=20))
    def test_real_numbers_are_kept(self, values: list[float]) -> None:
        of = codec(kind="continuous", bounds=[-1e300, 1e300])
        assert through(of, array(values, pa.float64())).to_pylist() == values
        assert through(of, array(values, pa.float64())).type == pa.float64()

    def test_values_are_rounded_to_the_declared_decimals(self) -> None:
        of = codec(kind="continuous", bounds=[0, 1], decimals=1)
        assert through(of, array([0.26, 0.04, 0.96])).to_pylist() == [0.3, 0.0, 1.0]

    @pytest.mark.parametrize("decimals", [None, 2])
    def test_zero_has_no_sign(self, decimals: int | None) -> None:
        of = codec(kind="continuous", bounds=[-1, 1], decimals=decimals)
        (zero,) = of.decode_positions(np.array([-0.0]), np.array([False])).to_pylist()
        assert math.copysign(1, zero) == 1

    @pytest.mark.parametrize("kind", [pa.decimal128(9, 2), pa.float16(), pa.float32(), pa.uint8(), pa.int64()])
    def test_physical_types(self, kind: pa.DataType) -> None:
        values = array(np.array([3, 5]), pa.int64()).cast(pa.float32()).cast(kind)
        assert through(codec(kind="integer", bounds=[0, 9]), values).to_pylist() == [3, 5]

    def test_numbers_beyond_double_precision(self) -> None:
        encoded = codec(kind="integer", bounds=[0, 9]).encode(
            array([2**63 - 1, -(2**63), 2**64 - 1], pa.decimal128(25, 0)), RNG
        )
        assert (encoded.codes["cells:a"].tolist(), encoded.outside) == ([9, 0, 9], 3)


class TestMoments:
    @pytest.mark.parametrize(
        "values",
        [
            array([datetime.date(1990, 5, 17)], pa.date32()),
            array([datetime.date(1990, 5, 17)], pa.date64()),
            *(array([datetime.datetime(1990, 5, 17)], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
            array([datetime.datetime(1990, 5, 16, 22, tzinfo=datetime.UTC)], pa.timestamp("us", tz="UTC")).cast(
                pa.timestamp("us", tz="UTC")
            ),
            array(["1990-05-17"]),
            array(["1990-05-17 13:30:00"]),
            array([" 1990-05-17T23:59:59.999 "]),
            array(["1990-05-18T01:00:00+02:00"]),
            array(["1990-05-17"]).dictionary_encode(),
        ],
        ids=lambda v: f"{v.type} {v[0]}",
    )
    def test_every_physical_type(self, values: pa.Array) -> None:
        expected = 16 if "UTC" in str(values.type) else 17
        decoded = through(codec(**DAY), values)
        assert decoded.type == pa.timestamp("us")
        assert decoded.to_pylist() == [datetime.datetime(1990, 5, expected)]

    def test_a_zone_is_read_in_utc(self) -> None:
        noon = datetime.datetime(1990, 5, 17, 12, tzinfo=datetime.UTC)
        for zone in ("UTC", "America/New_York", "+05:30"):
            values = array([noon], pa.timestamp("ns", tz=zone))
            assert through(codec(**SECOND), values).to_pylist() == [noon.replace(tzinfo=None)]

    @pytest.mark.parametrize(("resolution", "kept"), [("second", 59), ("minute", 0), ("hour", 0), ("day", 0)])
    def test_resolution_floors(self, resolution: str, kept: int) -> None:
        of = codec(**{**SECOND, "resolution": resolution})
        for year in (1965, 1990):
            (out,) = through(of, array([datetime.datetime(year, 5, 17, 23, 59, 59, 999_999)])).to_pylist()
            assert out.second == kept
            assert out <= datetime.datetime(year, 5, 17, 23, 59, 59, 999_999)
            assert (out.minute, out.hour)[: 1 + (resolution == "hour")] == {
                "second": (59,),
                "minute": (59,),
                "hour": (0, 23),
                "day": (0,),
            }[resolution]

    @given(st.lists(st.datetimes(datetime.datetime(1960, 1, 1), datetime.datetime(2020, 12, 31)), max_size=10))
    def test_round_trip_in_every_unit(self, moments: list[datetime.datetime]) -> None:
        of = codec(**SECOND)
        seconds = [moment.replace(microsecond=0) for moment in moments]
        for unit in ("us", "ns"):
            assert through(of, array(moments, pa.timestamp(unit))).to_pylist() == seconds
        assert through(of, array([m.isoformat() for m in moments], pa.string())).to_pylist() == seconds

    @given(st.integers(-(2**63), 2**63 - 1))
    def test_the_last_nanosecond_does_not_reach_the_next_second(self, tick: int) -> None:
        of = codec(kind="datetime", bounds=["1677-09-22", "2262-04-10"])
        positions, _ = of.positions(array([tick], pa.timestamp("ns")))
        assert positions[0] == tick // 10**9

    @pytest.mark.parametrize(
        "values",
        [
            array([2**31 - 1, -(2**31)], pa.date32()),
            array([2**62, -(2**62)], pa.date64()),
            array([2**62, -(2**62)], pa.timestamp("s")),
            array([2**62, -(2**62)], pa.timestamp("ms", tz="Europe/Berlin")),
            array(["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]),
        ],
        ids=lambda v: str(v.type),
    )
    def test_moments_that_no_timestamp_can_hold_are_clipped(self, values: pa.Array) -> None:
        of = codec(**DAY)
        encoded = of.encode(values, RNG)
        assert encoded.codes["cells:a"].tolist() == [of.size - 1, 0]
        assert encoded.outside == 2

    def test_text_that_is_no_date(self) -> None:
        encoded = codec(**DAY, nullable=True).encode(array(["soon", "", "1990-13-01", "17.5.1990"]), RNG)
        assert encoded.outside == 4


NUMBER = {"kind": "integer", "bounds": [10, 19]}
VALUES = array(["5", "12", "99", "junk", None])


class TestOutside:
    """Every rule for a value that its domain does not hold."""

    def test_numbers_clip_and_what_is_no_number_becomes_missing(self) -> None:
        encoded = codec(**NUMBER, nullable=True).encode(VALUES, RNG)
        assert (encoded.codes["cells:a"].tolist(), encoded.outside) == ([0, 2, 9, 10, 10], 3)

    def test_missing(self) -> None:
        encoded = codec(**NUMBER, nullable=True, outside="missing").encode(VALUES, RNG)
        assert (encoded.codes["cells:a"].tolist(), encoded.outside) == ([10, 2, 10, 10, 10], 3)

    @pytest.mark.parametrize("values", [["5"], ["20"], ["junk"], ["inf"], [None]])
    def test_refuse(self, values: list[str | None]) -> None:
        with pytest.raises(InvalidSource, match="column a holds a value outside its declared domain") as caught:
            codec(**NUMBER, outside="refuse").encode(array(values, pa.string()), RNG)
        assert "junk" not in str(caught.value)
        assert codec(**NUMBER, outside="refuse").encode(array(["10", "19"]), RNG).outside == 0

    def test_refuse_accepts_a_declared_null(self) -> None:
        assert cells(codec(**NUMBER, outside="refuse", nullable=True), array([None, "12"])) == [10, 2]

    @pytest.mark.parametrize(
        "column",
        [
            NUMBER,
            {"kind": "continuous", "bounds": [2.5, 7.25]},
            {"kind": "continuous", "bounds": [0.05, 0.95], "decimals": 1},
            {"kind": "integer", "bounds": [-(10**6), 10**6]},
            DAY,
            {"kind": "boolean"},
            {"kind": "categorical", "categories": ["a", "b", "c"]},
            {"kind": "categorical", "categories": [1, 2]},
        ],
    )
    def test_without_null_what_has_no_value_becomes_any_value(self, column: dict[str, Any]) -> None:
        of = codec(**column)
        encoded = of.encode(array([None, "junk"] * 200, pa.string()), np.random.default_rng(3))
        assert encoded.outside == 200
        found = encoded.codes["cells:a"]
        assert ((found >= 0) & (found < of.size)).all()
        assert len(np.unique(found)) > min(of.size, 8) / 2
        if isinstance(of, LevelCodec):
            assert np.bincount(found, minlength=of.size).min() > 50

    @pytest.mark.parametrize("nullable", [True, False])
    def test_other(self, nullable: bool) -> None:
        of = codec(kind="categorical", categories=["a", "Other", "b"], outside="other", nullable=nullable)
        encoded = of.encode(array(["a", "z", "other", None]), RNG)
        assert encoded.codes["cells:a"].tolist()[:3] == [0, 1, 1]
        assert encoded.outside == 2
        assert encoded.codes["cells:a"][3] == 3 or not nullable

    def test_other_by_declaration(self) -> None:
        of = codec(kind="categorical", categories=[1, 2, 9], other=9, outside="other")
        assert levels(of, array([1, 7, 2])) == [1, 9, 2]

    def test_levels_refuse(self) -> None:
        for column in ({"kind": "categorical", "categories": ["a"]}, {"kind": "boolean"}):
            for value in ("z", None):
                with pytest.raises(InvalidSource, match="column a") as caught:
                    codec(**column, outside="refuse").encode(array([value], pa.string()), RNG)
                assert "'z'" not in str(caught.value)

    def test_by_default_levels_become_missing_when_they_may(self) -> None:
        of = codec(kind="categorical", categories=["a", "b"], nullable=True)
        encoded = of.encode(array(["z", "a", None]), RNG)
        assert (encoded.codes["cells:a"].tolist(), encoded.outside) == ([2, 0, 2], 1)


ANYTHING = st.one_of(
    st.lists(st.none() | st.text(max_size=8), max_size=8).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.sampled_from(["5", "nan", "-inf", "1e400", "0x5", "1_0", "٣"])).map(
        lambda v: pa.array(v, pa.large_string())
    ),
    st.lists(st.none() | st.floats(), max_size=8).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=8).map(lambda v: pa.array(v, pa.int64())),
    st.integers(0, 4).map(pa.nulls),
)


class TestEncodingNeverFails:
    @pytest.mark.parametrize(
        "column",
        [
            {"kind": "integer", "bounds": [0, 9]},
            {"kind": "integer", "bounds": [-(10**9), 10**9], "nullable": True},
            {"kind": "continuous", "bounds": [-1, 1e6]},
            {"kind": "continuous", "bounds": [3, 3]},
            {"kind": "continuous", "bounds": [0, 9], "decimals": 3, "scale": "log"},
            {"kind": "categorical", "categories": [1, 2.5]},
            {"kind": "categorical", "categories": ["a", "other"], "outside": "other"},
            {"kind": "boolean", "nullable": True},
        ],
        ids=str,
    )
    @given(values=ANYTHING)
    def test_every_row_gets_one_code_a_block(self, column: dict[str, Any], values: pa.Array) -> None:
        of = codec(**column)
        encoded = of.encode(values, RNG)
        assert set(encoded.codes) == {block.key for block in of.blocks}
        for block in of.blocks:
            code = encoded.codes[block.key]
            assert code.shape == (len(values),)
            lowest = 0 if block.role == "cells" else NONE
            assert np.all((code >= lowest) & (code < block.size))

    @given(values=st.lists(st.none() | st.text(max_size=8), max_size=8))
    def test_dates_too(self, values: list[str | None]) -> None:
        encoded = codec(**SECOND).encode(array(values, pa.string()), RNG)
        assert all(len(code) == len(values) for code in encoded.codes.values())


class TestValid:
    @pytest.mark.parametrize(
        ("column", "values", "valid"),
        [
            ({"kind": "integer", "bounds": [0, 9]}, [0, 9, 10, -1, None], [1, 1, 0, 0, 0]),
            ({"kind": "integer", "bounds": [0, 9], "nullable": True}, [None, 5], [1, 1]),
            ({"kind": "continuous", "bounds": [0, 1]}, [0.5, 1.01, math.nan], [1, 0, 0]),
            ({"kind": "categorical", "categories": ["a"]}, ["a", "b", None], [1, 0, 0]),
            ({"kind": "categorical", "categories": ["a"], "nullable": True}, ["b", None], [0, 1]),
            ({"kind": "boolean"}, [True, False], [1, 1]),
            (DAY, [datetime.datetime(1990, 1, 1), datetime.datetime(2000, 1, 1)], [1, 0]),
        ],
    )
    def test_which_values_lie_in_the_domain(self, column: dict[str, Any], values: list[Any], valid: list[int]) -> None:
        of = codec(**column)
        assert of.valid(array(values, of.arrow_type)).tolist() == [bool(v) for v in valid]
        assert of.valid(array([], of.arrow_type)).tolist() == []


def test_ids_are_never_encoded() -> None:
    schema = parse_schema(
        {"dataset": "t", "columns": [{"name": "i", "kind": "id"}, {"name": "b", "kind": "boolean"}]}, file="s"
    )
    with pytest.raises(TypeError, match="not learned"):
        codec_of(schema.columns[0])
