"""A ledger in PostgreSQL: what its users see when it cannot be had, what a role needs, and its triggers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from synth.errors import SynthError, UserError
from synth.privacy.ledger import Ledger

Reserve = Callable[..., Any]
SECRET = "correct-horse"


@pytest.fixture
def admin(postgres: str) -> Callable[..., None]:
    """Run statements as the database's owner."""

    def run(*statements: str) -> None:
        with psycopg.connect(postgres, autocommit=True) as bare:
            for statement in statements:
                bare.execute(statement)

    return run


def refused(use: Callable[[], object], *words: str) -> None:
    with pytest.raises(UserError) as caught:
        use()
    message = str(caught.value)
    for word in words:
        assert word in message
    assert "\n" not in message
    causes = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    for secret in (SECRET, "battery-staple", "127.0.0.1", "ledgerkeeper"):
        assert secret not in " ".join(causes)


class TestItCannotBeHad:
    @pytest.mark.parametrize("create", [True, False])
    def test_a_wrong_password(self, postgres: str, create: bool) -> None:
        url = postgres.replace(SECRET, "battery-staple")
        refused(lambda: Ledger.open(url, create=create), "cannot be reached, or refuses the login")

    @pytest.mark.parametrize(
        "url",
        [
            f"postgresql://ledgerkeeper:{SECRET}@127.0.0.1:1/ledger",
            f"postgresql+psycopg://ledgerkeeper:{SECRET}@127.0.0.1:1/ledger",
            f"postgresql://ledgerkeeper:{SECRET}@127.0.0.1:1/ledger?sslmode=nonsense",
            f"postgresql://ledgerkeeper:{SECRET}@127.0.0.1:1/ledger?nonsense={SECRET}",
            f"postgresql://ledgerkeeper:{SECRET}@127.0.0.1:1/ledger?connect_timeout={SECRET}",
            f"postgresql://ledgerkeeper:{SECRET}@127.0.0.1:99999/ledger",
            f"postgresql://ledgerkeeper:{SECRET}@/ledger?host=/nowhere",
        ],
    )
    def test_no_server(self, url: str) -> None:
        refused(lambda: Ledger.open(url), "cannot be reached")

    def test_no_such_database(self, postgres: str) -> None:
        refused(lambda: Ledger.open(f"{postgres}-of-another-name"), "check that it runs")

    def test_another_encoding(self, postgres_server: str, admin: Callable[..., None]) -> None:
        admin("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            refused(lambda: Ledger.open(f"{postgres_server}/latin"), "encoding UTF8")
        finally:
            admin("DROP DATABASE latin")

    def test_a_schema_of_that_name_that_is_no_ledger(self, postgres: str, admin: Callable[..., None]) -> None:
        admin("CREATE SCHEMA synth_ledger", "CREATE TABLE synth_ledger.entries (seq integer)")
        refused(lambda: Ledger.open(postgres), "is not a ledger")

    def test_a_newer_layout(self, postgres: str, admin: Callable[..., None], reserve: Reserve) -> None:
        ledger = Ledger.open(postgres)
        admin("INSERT INTO synth_ledger.layout VALUES (3)")
        refused(ledger.populations, "layout 3, not 2", "use newer software")
        refused(lambda: reserve(ledger, "a"), "use newer software")

    def test_one_that_was_dropped_is_no_fresh_start(
        self, postgres: str, admin: Callable[..., None], reserve: Reserve
    ) -> None:
        ledger = Ledger.open(postgres)
        reserve(ledger, "a")
        admin("DROP SCHEMA synth_ledger CASCADE")
        refused(lambda: reserve(ledger, "b"), "put the real one back")

    def test_read_only(self, postgres: str, admin: Callable[..., None], reserve: Reserve) -> None:
        ledger = Ledger.open(postgres)
        admin("ALTER DATABASE ledger SET default_transaction_read_only = on")
        assert ledger.populations() == ()
        refused(lambda: reserve(ledger, "a"), "read-only")

    def test_waiting_ends_with_a_sentence(
        self, postgres: str, reserve: Reserve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger = Ledger.open(postgres)
        monkeypatch.setattr("synth.privacy.ledger_table.LOCK_TIMEOUT_SECONDS", 0.2)
        with psycopg.connect(postgres) as other:
            other.execute("SELECT pg_advisory_xact_lock(1398361676)")
            refused(lambda: reserve(ledger, "a"), "another process")
            assert ledger.populations() == ()  # nobody keeps a reader waiting

    def test_a_connection_cut_off_grants_nothing(
        self, postgres: str, admin: Callable[..., None], reserve: Reserve
    ) -> None:
        ledger = Ledger.open(postgres)

        def clock() -> datetime:  # is asked while the ledger is locked
            admin("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
            return datetime.now(UTC)

        refused(lambda: reserve(Ledger.open(postgres, clock=clock), "a"), "connection was lost")
        assert ledger.populations() == ()


class TestRights:
    def test_a_role_that_may_only_read_and_append_suffices(
        self, postgres: str, admin: Callable[..., None], reserve: Reserve
    ) -> None:
        Ledger.open(postgres)
        admin(
            "DROP ROLE IF EXISTS runner",
            f"CREATE ROLE runner LOGIN PASSWORD '{SECRET}'",
            "GRANT USAGE ON SCHEMA synth_ledger TO runner",
            "GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA synth_ledger TO runner",
        )
        url = postgres.replace("ledgerkeeper", "runner")
        ledger = Ledger.open(url)
        reserve(ledger, "a")
        assert ledger.verify_chain() == 1
        for statement in (
            "ALTER TABLE synth_ledger.entries DISABLE TRIGGER ALL",
            "DROP TRIGGER entries_are_never_changed ON synth_ledger.entries",
            "DELETE FROM synth_ledger.entries",
            "TRUNCATE synth_ledger.entries",
        ):
            with (
                psycopg.connect(url, autocommit=True) as bare,
                pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.RaiseException)),
            ):
                bare.execute(statement)
        admin("REVOKE INSERT ON synth_ledger.entries FROM runner")
        refused(lambda: reserve(ledger, "b"), "lacks a right")
        # Rows hidden by a policy would be a smaller total: refused instead.
        admin("ALTER TABLE synth_ledger.entries ENABLE ROW LEVEL SECURITY")
        with pytest.raises(SynthError):
            ledger.populations()

    @pytest.mark.parametrize(
        "statement",
        [
            "TRUNCATE entries",
            "UPDATE entries SET seq = seq WHERE false",
            "UPDATE layout SET version = 1",
            "DELETE FROM layout",
            "SET session_replication_role = replica; DELETE FROM entries",
            "INSERT INTO entries SELECT seq + s, time, population, dataset, run_id, kind, payload, previous, hash"
            " FROM entries, generate_series(2, 3) s",
        ],
    )
    def test_the_triggers_hold(self, postgres: str, reserve: Reserve, statement: str) -> None:
        ledger = Ledger.open(postgres)
        reserve(ledger, "a")
        with (
            psycopg.connect(postgres, autocommit=True, options="-c search_path=synth_ledger") as bare,
            pytest.raises(psycopg.errors.RaiseException, match="append-only"),
        ):
            bare.execute(statement)
        assert ledger.verify_chain() == 1


class TestTransactions:
    def test_what_is_reserved_is_on_disk_and_seen_whatever_the_defaults(
        self, postgres: str, admin: Callable[..., None], reserve: Reserve
    ) -> None:
        admin(
            "ALTER DATABASE ledger SET synchronous_commit = off",
            "ALTER DATABASE ledger SET default_transaction_isolation = 'repeatable read'",
        )
        ledger = Ledger.open(postgres)
        with ledger._store._database.transaction(write=True) as connection:
            settings = [
                connection.exec_driver_sql(f"SHOW {name}").scalar_one()
                for name in ("synchronous_commit", "transaction_isolation", "row_security")
            ]
        assert settings == ["on", "read committed", "off"]
        reserve(ledger, "a")

    def test_reading_an_empty_database_makes_nothing(self, postgres: str, reserve: Reserve) -> None:
        ledger = Ledger.open(postgres, create=False)
        assert (ledger.populations(), ledger.verify_chain()) == ((), 0)
        with pytest.raises(UserError, match="missing or empty"):
            reserve(ledger, "a")
        with psycopg.connect(postgres) as bare:
            found = bare.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'synth_ledger'").fetchone()
        assert found == (0,)

    def test_its_place_is_told_without_a_secret(self, postgres: str) -> None:
        assert Ledger.open(postgres).place == "(PostgreSQL)"
