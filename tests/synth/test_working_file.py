"""Working files give back what was written; sealed ones tell nothing without their key, and are not changed unseen."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth import working_file
from synth.errors import UserError
from synth.working_file import VARIABLE, read_content, reading, working_key, write_content, writing

KEY, OTHER = "0badc0de" * 8, "ab" * 32
SCHEMA = pa.schema([("cells:ward", pa.int32()), ("person", pa.int64()), ("coefficients", pa.list_(pa.int32(), 3))])


def batch(rows: int, start: int = 0) -> pa.RecordBatch:
    numbers = np.arange(start, start + rows)
    flat = pa.array(np.arange(3 * rows, dtype=np.int32))
    arrays = [numbers.astype(np.int32), numbers.astype(np.int64), pa.FixedSizeListArray.from_arrays(flat, 3)]
    return pa.record_batch([pa.array(array) for array in arrays], schema=SCHEMA)


@pytest.fixture(params=["plain", "sealed"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, KEY if request.param == "sealed" else "")
        yield request.param


@given(sizes=st.lists(st.integers(0, 40), max_size=5), chosen=st.lists(st.sampled_from(SCHEMA.names), unique=True))
@pytest.mark.parametrize("key", ["", KEY])
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, key: str, sizes: list[int], chosen: list[str]
) -> None:
    path = tmp_path_factory.mktemp("files") / "codes"
    batches = [batch(size, 1000 * i) for i, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, key)
        with writing(path, SCHEMA) as file:
            for one in batches:
                file.write_batch(one)
        with reading(path) as file:
            assert [file.get_batch(i) for i in range(file.num_record_batches)] == batches
        with reading(path, chosen) as file:
            for i, one in enumerate(batches):
                assert [file.get_batch(i).column(name) for name in chosen] == [one.column(name) for name in chosen]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_content_comes_back(kind: str, tmp_path: Path) -> None:
    for content in (b"", b"canary" * 9):
        write_content(tmp_path / "file", content)
        assert read_content(tmp_path / "file") == content
        assert (b"canary" in (tmp_path / "file").read_bytes()) is (kind == "plain" and bool(content))


def test_a_sealed_file_tells_neither_names_nor_values(kind: str, tmp_path: Path) -> None:
    with writing(tmp_path / "file", SCHEMA) as file:
        file.write_batch(batch(1000))
    lying = (tmp_path / "file").read_bytes()
    names = [name.encode() in lying for name in SCHEMA.names]
    values = np.arange(100, 140, dtype=np.int32).tobytes() in lying
    assert (all(names), any(names), values) == ((True,) * 3 if kind == "plain" else (False,) * 3)
    assert KEY.encode() not in lying and bytes.fromhex(KEY) not in lying


def test_each_file_has_keys_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    for name in "ab":
        write_content(tmp_path / name, bytes(5000))
    one, other = ((tmp_path / name).read_bytes() for name in "ab")
    same = sum(x == y for x, y in zip(one, other, strict=False))
    assert len(one) == len(other) and same < 500  # as many as chance has: 20, and the frame


@pytest.mark.parametrize("key", [OTHER, ""])
def test_without_its_key_it_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    write_content(tmp_path / "file", b"canary")
    monkeypatch.setenv(VARIABLE, key)
    with pytest.raises(UserError, match="sealed with another SYNTH_WORKING_KEY") as caught:
        read_content(tmp_path / "file")
    assert KEY not in str(caught.value) and OTHER not in str(caught.value)


def test_a_changed_value_is_never_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    write_content(tmp_path / "file", b"canary" * 50)
    sound, refused = (tmp_path / "file").read_bytes(), 0
    places = range(8, len(sound) - 8, 7)
    for place in places:
        changed = bytearray(sound)
        changed[place] ^= 1
        (tmp_path / "file").write_bytes(changed)
        try:
            assert read_content(tmp_path / "file") == b"canary" * 50  # that byte is of no use
        except (OSError, ValueError, pa.ArrowException, UserError):
            refused += 1
    assert refused > len(places) / 2


@pytest.mark.parametrize("given", ["0badc0de", KEY + "00", "x" * 64, f" {KEY}"])
def test_half_a_key_is_refused_without_repeating_it(given: str) -> None:
    with pytest.raises(UserError, match="64 hexadecimal digits") as caught:
        working_key({VARIABLE: given})
    assert given not in str(caught.value)
    assert working_key({}) is working_key({VARIABLE: ""}) is None
    assert working_key({VARIABLE: KEY.upper()}) == bytes.fromhex(KEY)


def test_the_key_is_looked_up_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, OTHER)
    assert working_file.working_key() == bytes.fromhex(OTHER)
