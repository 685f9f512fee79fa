"""A ledger's URL may hold a password, and Prefect stores a flow's parameters in plain text.

So where there may be one, Prefect is given a word that means something in this process alone.
"""

from __future__ import annotations

import secrets

_CONCEALED: dict[str, str] = {}


def concealed(ledger_url: str) -> str:
    """The URL of an SQLite ledger as it is, which is a path; a word that stands for any other."""
    if ledger_url.startswith("sqlite:"):
        return ledger_url
    word = f"ledger-{secrets.token_hex(8)}"
    _CONCEALED[word] = ledger_url
    return word


def revealed(word: str) -> str:
    """The URL that `concealed` was given."""
    return _CONCEALED.get(word, word)
