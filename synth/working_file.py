"""Working files: private rows on their way through a run, readable by their owner alone, and sealed where asked.

Plain, a working file is Arrow IPC and memory-mapped. With a key in $SYNTH_WORKING_KEY it is Parquet under modular
encryption (Apache Parquet format, "Parquet Modular Encryption"): AES-256-GCM over data and footer, under keys of its
own that lie in the file wrapped by that key (RFC 5649). Who finds it without the key finds how large its parts are.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from synth.errors import UserError
from synth.files import PRIVATE_FILE

VARIABLE = "SYNTH_WORKING_KEY"
SEALED = b"PARE"
"""The first bytes of a Parquet file with an encrypted footer."""
BYTES = pa.schema([pa.field("content", pa.binary())])


class Writer(Protocol):
    """A working file being written."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append rows."""


class Reader(Protocol):
    """A working file being read, batch by batch as it was written."""

    num_record_batches: int

    def get_batch(self, i: int) -> pa.RecordBatch:
        """The rows of one batch."""


def working_key(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The key that working files are sealed with, 32 bytes; None for plain ones. Raises UserError for half a key."""
    given = environment.get(VARIABLE)
    if not given:
        return None
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", given):
        raise UserError(f"{VARIABLE}: should be 64 hexadecimal digits, as `openssl rand -hex 32` prints them")
    return bytes.fromhex(given)


@contextmanager
def writing(path: Path, schema: pa.Schema) -> Iterator[Writer]:
    """A working file to write."""
    key = working_key()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as stream:
        if key is None:
            with pa.ipc.new_file(stream, schema) as plain:
                yield plain
            return
        asked = pe.EncryptionConfiguration(
            "working", uniform_encryption=True, data_key_length_bits=256, double_wrapping=False
        )
        properties = _factory(key).file_encryption_properties(pe.KmsConnectionConfig(), asked)
        with pq.ParquetWriter(
            stream, schema, encryption_properties=properties, compression="none", use_dictionary=False
        ) as sealed:
            yield sealed


@contextmanager
def reading(path: Path, columns: Sequence[str] | None = None) -> Iterator[Reader]:
    """A working file to read; of a sealed one the named columns alone. Raises UserError when it is of another key."""
    with path.open("rb") as stream:
        sealed = stream.read(len(SEALED)) == SEALED
    if not sealed:
        with pa.memory_map(str(path)) as stream:
            yield pa.ipc.open_file(stream)
        return
    key = working_key()
    try:
        if key is None:
            raise InvalidUnwrap
        properties = _factory(key).file_decryption_properties(pe.KmsConnectionConfig(), pe.DecryptionConfiguration())
        file = pq.ParquetFile(path, decryption_properties=properties)
    except InvalidUnwrap:
        raise UserError(f"a working file is sealed with another {VARIABLE} than is set here; set one for all") from None
    with file:
        yield _Sealed(file, columns)


def write_content(path: Path, content: bytes) -> None:
    """Write bytes as a working file."""
    with writing(path, BYTES) as file:
        file.write_batch(pa.record_batch([[content]], schema=BYTES))


def read_content(path: Path) -> bytes:
    """The bytes that `write_content` was given."""
    with reading(path) as file:
        return bytes(file.get_batch(0).column(0)[0].as_py())


def private_array(path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike = np.int32) -> npt.NDArray[Any]:
    """An array to fill with rows: memory-mapped from a file, or in memory alone where working files are sealed."""
    if working_key() is not None:
        return np.empty(shape, dtype=dtype)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE))
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


class _Sealed:
    """Row groups as batches."""

    def __init__(self, file: pq.ParquetFile, columns: Sequence[str] | None) -> None:
        self._file, self._columns = file, None if columns is None else list(columns)
        self.num_record_batches: int = file.num_row_groups

    def get_batch(self, i: int) -> pa.RecordBatch:
        table = self._file.read_row_group(i, columns=self._columns).combine_chunks()
        return next(iter(table.to_batches()), None) or pa.RecordBatch.from_pylist([], schema=table.schema)


class _Wrapping(pe.KmsClient):  # type: ignore[misc]
    """Wraps the keys of files by one that never leaves this process."""

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self._key = key

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return b64encode(aes_key_wrap_with_padding(self._key, key_bytes))

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return aes_key_unwrap_with_padding(self._key, b64decode(wrapped_key))


def _factory(key: bytes) -> Any:
    return pe.CryptoFactory(lambda _: _Wrapping(key))
