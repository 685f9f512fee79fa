"""Where the ledger is: its URL, from whom it comes and which file it names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from synth.errors import NotBuiltYet, UserError


def resolve_ledger_url(
    option: str | None, environment: Mapping[str, str], run_yaml_url: str | None, user_data_folder: Path
) -> str:
    """Which ledger: the option, else $SYNTH_LEDGER, else ledger.url of run.yaml, else the user's own.

    `run_yaml_url` was made absolute from its file before. An empty variable counts as unset.
    """
    if option is not None:
        return option
    return environment.get("SYNTH_LEDGER") or run_yaml_url or f"sqlite:///{(user_data_folder / 'ledger.db').as_posix()}"


def sqlite_path(url: str) -> Path:
    """The file that `sqlite:///path` names (three slashes and a path; four for an absolute one).

    Messages never repeat the URL, which may hold a password.

    Raises:
        NotBuiltYet: another kind of database.
        UserError: not such a URL, or one without a file (a ledger in memory would forget).
    """
    example = "write it as sqlite:///path/to/ledger.db"
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise UserError(f"ledger: this is no database URL; {example}")
    if scheme.lower() != "sqlite":
        raise NotBuiltYet(f"ledger: this version keeps its ledger in SQLite only, not in {scheme}; {example}")
    name = rest[1:]
    if not rest.startswith("/") or name in {"", ":memory:"} or "?" in name or not name.isprintable():
        raise UserError(f"ledger: an SQLite URL names a file and has no host and no options; {example}")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"ledger: the home folder in this URL is not known; {example}") from None
