"""One entry of the ledger and the hash chain that ties it to all entries before it.

    hash = sha256(canonical JSON of {seq, time, population, dataset, run_id, kind, payload, previous})

`payload` enters as the canonical JSON *text* that is stored, so anyone can recompute a hash from an
exported row without knowing what the payload means. The first entry's `previous` is `GENESIS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

from synth.errors import VerificationFailed
from synth.files import canonical_json

GENESIS = hashlib.sha256(b"synth ledger 1").hexdigest()

Kind = Literal["reserve", "spend", "settle", "void", "cap", "overlap"]
KINDS: tuple[Kind, ...] = get_args(Kind)
REMEMBERED = 1 << 15  # hashes; one entry and its hash take about 2 kB


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger.

    `time` is UTC in ISO 8601, whole seconds. `dataset` and `run_id` are None for a cap or an overlap.
    `hash` is empty until the entry is sealed.
    """

    seq: int
    time: str
    population: str
    dataset: str | None
    run_id: str | None
    kind: Kind
    payload: str
    previous: str
    hash: str = ""

    def fingerprint(self) -> str:
        """Lower-case hex SHA-256 over the canonical JSON of every field but `hash`."""
        return _fingerprint(replace(self, hash="") if self.hash else self)

    def sealed(self) -> Entry:
        """The same entry, with its hash."""
        return replace(self, hash=self.fingerprint())


@lru_cache(maxsize=REMEMBERED)
def _fingerprint(entry: Entry) -> str:
    # Every check compares every field of every entry with what is stored now; only the hashing is not repeated.
    fields = asdict(entry)
    del fields["hash"]
    return hashlib.sha256(canonical_json(fields)).hexdigest()


def head_of(entries: Iterable[Entry]) -> str:
    """The hash of the last entry, `GENESIS` when there is none."""
    head = GENESIS
    for entry in entries:
        head = entry.hash
    return head


def verify_links(entries: Iterable[Entry]) -> None:
    """Check that nothing was edited, removed from the middle, inserted or reordered.

    Entries come in the order of `seq`. A tail that was cut off leaves a shorter chain which is intact
    in itself: only a head recorded elsewhere (in a bundle) shows it.

    Raises:
        VerificationFailed: names the first entry that does not fit.
    """
    previous = GENESIS
    for expected, entry in enumerate(entries, start=1):
        if entry.seq != expected:
            raise VerificationFailed(f"ledger entry {expected} is missing, {entry.seq} comes in its place")
        if entry.previous != previous:
            raise VerificationFailed(f"ledger entry {expected} does not follow the entry before it")
        try:
            intact = entry.hash == entry.fingerprint()
        except (TypeError, ValueError):  # a column holds what no ledger writes, such as a blob
            intact = False
        if not intact:
            raise VerificationFailed(f"ledger entry {expected} was changed after it was written")
        previous = entry.hash
