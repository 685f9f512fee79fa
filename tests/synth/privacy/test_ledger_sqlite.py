"""A ledger in an SQLite file: the file itself, its layouts, waiting, and every kind of damage."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from synth.errors import SynthError, UserError
from synth.privacy.events import GaussianEvent
from synth.privacy.ledger import GENESIS, Ledger, PopulationBudget

Reserve = Callable[..., Any]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")


class TestTheFile:
    def test_it_and_its_folders_are_private(self, reserve: Reserve, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            ledger = Ledger.open(f"sqlite:///{tmp_path}/new/deep/ledger.db")
            reserve(ledger, "a")
            path = Path(ledger.place)
            with closing(sqlite3.connect(path, isolation_level=None)) as raw:
                raw.execute("BEGIN IMMEDIATE")
                raw.execute("CREATE TABLE while_it_is_written (x)")
                modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
                assert len(list(path.parent.iterdir())) == 2  # the database and its journal
                raw.execute("ROLLBACK")
        finally:
            os.umask(old)
        assert modes == {0o600}
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "new" / "deep").stat().st_mode) == 0o700
        assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]

    def test_reading_makes_no_file(
        self, reserve: Reserve, event_of: Callable[[float], GaussianEvent], tmp_path: Path
    ) -> None:
        ledger = Ledger.open(f"sqlite:///{tmp_path}/none/ledger.db", create=False)
        assert ledger.population("patients") is None
        assert ledger.populations() == ()
        assert ledger.history() == ()
        assert (ledger.head(), ledger.verify_chain()) == (GENESIS, 0)
        ledger.refuse_if_over_cap("patients", [event_of(100)])
        with pytest.raises(UserError, match="missing"):
            reserve(ledger, "a")
        assert list(tmp_path.iterdir()) == []

    def test_an_empty_file_is_an_empty_ledger(self, reserve: Reserve, tmp_path: Path) -> None:
        (tmp_path / "ledger.db").touch()
        assert Ledger.open(f"sqlite:///{tmp_path}/ledger.db", create=False).populations() == ()
        reserve(Ledger.open(f"sqlite:///{tmp_path}/ledger.db"), "a")

    def test_a_path_with_odd_characters_is_a_path(self, reserve: Reserve, tmp_path: Path) -> None:
        name = "a b%20#ü;&.db"
        reserve(Ledger.open(f"sqlite:///{tmp_path}/{name}"), "a")
        assert [file.name for file in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize("create", [True, False])
    def test_what_is_no_ledger_is_refused_in_one_line(self, tmp_path: Path, create: bool) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "text").write_text("not a database, but long enough to have a header " * 40)
        with closing(sqlite3.connect(tmp_path / "other.db")) as other, other:
            other.execute("CREATE TABLE entries (x)")
        for name, why in (
            ("folder", "is a folder"),
            ("text", "not a database"),
            ("other.db", "not a ledger"),
        ):
            with pytest.raises(UserError, match=why) as refused:
                Ledger.open(f"sqlite:///{tmp_path / name}", create=create)
            assert "\n" not in str(refused.value)

    def test_a_file_as_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file that you may write"):
            Ledger.open(f"sqlite:///{tmp_path}/file/ledger.db")


class TestOtherProcesses:
    def test_another_process_blocks_no_reader(self, ledger: Ledger, reserve: Reserve, tmp_path: Path) -> None:
        reserve(ledger, "a")
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert ledger.population("patients") is not None
            other.execute("ROLLBACK")

    def test_waiting_ends_with_a_sentence(
        self, ledger: Ledger, reserve: Reserve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("synth.privacy.ledger_table.LOCK_TIMEOUT_SECONDS", 0.05)
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(UserError, match="another process"):
                reserve(ledger, "a")
            other.execute("ROLLBACK")


class TestAFileThatIsGone:
    def test_it_is_no_fresh_start(self, ledger: Ledger, reserve: Reserve, tmp_path: Path) -> None:
        reserve(ledger, "a")
        path = tmp_path / "ledger.db"
        path.write_bytes(b"")
        with pytest.raises(UserError, match="put the real one back"):
            reserve(ledger, "b")
        path.unlink()
        with pytest.raises(UserError, match="put the real one back"):
            reserve(ledger, "b")
        assert not path.exists()


LAYOUT_1 = """
    CREATE TABLE entries (
        seq INTEGER NOT NULL, time TEXT NOT NULL, population TEXT NOT NULL, dataset TEXT, run_id TEXT,
        kind TEXT NOT NULL, payload TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (seq),
        CONSTRAINT known_kind CHECK (kind IN ('reserve', 'spend', 'settle', 'void', 'cap')));
    INSERT INTO entries SELECT * FROM now.entries;
    CREATE TRIGGER entries_are_never_updated BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    CREATE TRIGGER entries_are_only_appended BEFORE INSERT ON entries
        WHEN NEW.seq IS NOT (SELECT COALESCE(MAX(seq), 0) + 1 FROM entries)
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
    PRAGMA application_id = 1398361676;
    PRAGMA user_version = 1;
"""


class TestLayouts:
    @pytest.mark.parametrize(("version", "why"), [(3, "use newer software"), (0, "restore it from a backup")])
    def test_an_unknown_layout_is_refused(self, tmp_path: Path, ledger: Ledger, version: int, why: str) -> None:
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as raw:
            raw.execute(f"PRAGMA user_version = {version}")
        for use in (ledger.populations, lambda: ledger.set_cap("patients", 1), lambda: Ledger.open(url_of(ledger))):
            with pytest.raises(UserError, match=why):
                use()

    def test_an_older_layout_is_read_and_then_migrated(self, tmp_path: Path, ledger: Ledger, reserve: Reserve) -> None:
        reserve(ledger, "a")
        ledger.settle("a")
        with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as raw:
            raw.execute("ATTACH DATABASE ? AS now", (str(tmp_path / "ledger.db"),))
            raw.executescript(LAYOUT_1)
        old = Ledger.open(f"sqlite:///{tmp_path / 'old.db'}", create=False)
        assert old.history() == ledger.history()
        assert version_of(tmp_path / "old.db") == 1
        old.declare_overlap("patients", "staff")  # layout 1 could not hold this one
        assert version_of(tmp_path / "old.db") == 2
        assert old.history()[:2] == ledger.history()
        assert old.verify_chain() == 3
        with closing(sqlite3.connect(tmp_path / "old.db")) as raw, pytest.raises(sqlite3.IntegrityError):
            raw.execute("DELETE FROM entries")


def url_of(ledger: Ledger) -> str:
    return f"sqlite:///{ledger.place}"


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as raw:
        return int(raw.execute("PRAGMA user_version").fetchone()[0])


class TestDamage:
    def test_a_changed_byte_never_changes_a_balance(self, ledger: Ledger, reserve: Reserve, tmp_path: Path) -> None:
        """Any byte of the file set to any other value: found, or without effect on what is charged."""
        ledger.set_cap("patients", 4)
        run = reserve(ledger, "a")
        ledger.spend("a", run.events[0])
        ledger.settle("a")
        for number in range(8):  # more than one page
            reserve(ledger, f"run {number}", 0.3, population="patients" if number % 2 else "staff")
        ledger.declare_overlap("patients", "staff")
        path = tmp_path / "ledger.db"
        whole, true = path.read_bytes(), balances(ledger)
        filled = [place for place, byte in enumerate(whole) if byte]
        chance = random.Random(20)  # the places are the same in every run
        found = 0
        for number in range(700):
            # Mostly where entries lie, some anywhere; half of them a single bit.
            place = chance.choice(filled) if number % 5 else chance.randrange(len(whole))
            change = 1 << chance.randrange(8) if number % 2 else chance.randrange(1, 256)
            path.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            for left in tmp_path.glob("ledger.db-*"):
                left.unlink()
            try:
                now = balances(Ledger.open(url_of(ledger), create=False))
            except SynthError:
                found += 1
            else:
                assert now == true, f"byte {place} changed by {change}"
        assert found > 350  # the others lie in what no entry uses

    def test_rows_that_a_damaged_page_would_leave_out_are_missed(
        self, ledger: Ledger, reserve: Reserve, tmp_path: Path
    ) -> None:
        """SQLite reads on when a page says that it holds one row less; a chain without its last entry is intact."""
        for run_id in ("a", "b"):
            reserve(ledger, run_id)
        path = tmp_path / "ledger.db"
        with closing(sqlite3.connect(path)) as raw:
            size = raw.execute("PRAGMA page_size").fetchone()[0]
            page = raw.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entries'").fetchone()[0]
        content = bytearray(path.read_bytes())
        rows = (page - 1) * size + 3  # two bytes: the number of cells on this leaf
        assert content[rows : rows + 2] == b"\0\2"
        content[rows + 1] = 1
        path.write_bytes(content)
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        with pytest.raises(SynthError, match="damaged"):
            ledger.population("patients")

    def test_a_truncated_file_is_found(self, ledger: Ledger, reserve: Reserve, tmp_path: Path) -> None:
        reserve(ledger, "a")
        path = tmp_path / "ledger.db"
        path.write_bytes(path.read_bytes()[:-512])
        with pytest.raises(SynthError):
            ledger.populations()


def balances(ledger: Ledger) -> tuple[PopulationBudget, ...]:
    return ledger.populations()
