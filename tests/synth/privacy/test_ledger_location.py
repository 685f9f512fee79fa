"""Which ledger is meant, which database that is, and that no message repeats a URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from synth.errors import NotBuiltYet, UserError
from synth.privacy.ledger import Ledger, resolve_ledger_url

HOME = Path("/home/ada/.local/share/synth")


def test_the_nearest_word_wins() -> None:
    variable = {"SYNTH_LEDGER": "sqlite:///variable.db"}
    assert resolve_ledger_url("sqlite:///o.db", variable, "sqlite:///y.db", HOME) == "sqlite:///o.db"
    assert resolve_ledger_url(None, variable, "sqlite:///y.db", HOME) == "sqlite:///variable.db"
    assert resolve_ledger_url(None, {"SYNTH_LEDGER": ""}, "sqlite:///y.db", HOME) == "sqlite:///y.db"
    assert resolve_ledger_url(None, {}, None, HOME) == f"sqlite:///{HOME}/ledger.db"


def test_a_relative_path_and_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Ledger.open("sqlite:///~/a.db").place == str(tmp_path / "a.db")
    Ledger.open("sqlite:///b.db")
    assert (tmp_path / "b.db").is_file()


@pytest.mark.parametrize(
    "url",
    [
        "postgres://ada:hunter2@host/db",
        "postgresql+psycopg2://ada:hunter2@host/db",
        "mysql://ada:hunter2@host/db",
    ],
)
def test_other_databases_are_refused_without_repeating_the_url(url: str) -> None:
    with pytest.raises(NotBuiltYet, match="write it as postgresql://user:password@host:5432/database") as refused:
        Ledger.open(url)
    assert refused.value.exit_code == 2
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:hunter2@host:nonsense/db",
        "postgresql+psycopg://ada:hunter2@host",
        "postgresql://ada:hunter2@host/d\nb",
    ],
)
def test_a_broken_postgresql_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UserError, match="names a database") as refused:
        Ledger.open(url)
    assert "hunter2" not in f"{refused.value} {refused.value.__cause__} {refused.value.__context__}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.db",
        "ada:hunter2@host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://ada:hunter2@host/ledger.db",
        "sqlite:///ledger.db?hunter2=1",
        "sqlite:///led\nger.db",
        "sqlite:///~nobody-of-that-name/ledger.db",
    ],
)
def test_a_broken_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(UserError, match=r"sqlite:///path/to/ledger\.db") as refused:
        Ledger.open(url)
    assert "hunter2" not in str(refused.value)
