"""What a run folder keeps, and for how long: private rows for as long as somebody is at work, noised things longer."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from synth.config import load_run
from synth.errors import SynthError
from synth.run_folder import (
    CRITIC,
    KEPT_DAYS,
    RunFolder,
    create_run_folder,
    delete_leftovers,
    go_on_in,
    hold,
    runs_below,
    try_lock,
    under_way,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = ("encoded.arrow", "bins.npy", "outside.json", "pictures.arrow", "a file of a new kind")


@pytest.fixture
def run_of(tmp_path: Path) -> Callable[..., RunFolder]:
    """A run's folder, as a process that was killed after measuring has left it."""

    def make(name: str, *, days_ago: float = 1, file: str = "/a/run.yaml", measured: bool = True) -> RunFolder:
        folder = RunFolder(tmp_path / "out" / name)
        for path in (folder.internal, folder.model, folder.checkpoints, folder.private / "tmp1234" / "audit"):
            path.mkdir(parents=True)
        created = (NOW - timedelta(days=days_ago)).isoformat()
        (folder.internal / "run.json").write_text(json.dumps({"file": file, "created": created}))
        for private in (*ROWS, "measurements.safetensors", *(["measurements.json"] if measured else [])):
            (folder.private / private).write_text("{}")
        (folder.model / ".config.json.12ab.partial").write_text("{")
        folder.note("model", {"critic": None})
        return folder

    return make


def names(folder: RunFolder) -> set[str]:
    return {path.name for path in folder.private.iterdir()}


NOISED = {"measurements.safetensors", "measurements.json", "checkpoints", "facts", "bundle.partial"}


class TestADeadRun:
    def test_loses_its_rows_and_keeps_what_is_noised(self, run_of: Any, tmp_path: Path) -> None:
        folder = run_of("a")
        delete_leftovers(tmp_path / "out", now=NOW)
        assert names(folder) == NOISED
        assert folder.saved and not list(folder.private.rglob("*.12ab.partial"))

    def test_that_lost_what_it_drew_keeps_nothing(self, run_of: Any, tmp_path: Path) -> None:
        before, critic = run_of("before", measured=False), run_of("critic")
        critic.note(CRITIC, False)
        delete_leftovers(tmp_path / "out", now=NOW)
        assert not before.private.exists() and not critic.private.exists()
        assert before.internal.exists() and critic.internal.exists()

    def test_whose_critic_is_saved_is_kept(self, run_of: Any, tmp_path: Path) -> None:
        folder = run_of("a")
        folder.note(CRITIC, True)
        delete_leftovers(tmp_path / "out", now=NOW)
        assert names(folder) == NOISED

    @pytest.mark.parametrize(("days", "kept"), [(KEPT_DAYS - 0.1, True), (KEPT_DAYS + 0.1, False)])
    def test_is_kept_for_some_days(self, run_of: Any, tmp_path: Path, days: float, kept: bool) -> None:
        folder = run_of("a", days_ago=days)
        delete_leftovers(tmp_path / "out", now=NOW)
        assert folder.private.exists() == kept

    def test_is_kept_until_a_later_run_of_the_same_file_is_finished(self, run_of: Any, tmp_path: Path) -> None:
        earlier, later = run_of("z", days_ago=3), run_of("b", days_ago=1)
        other = run_of("other", days_ago=3, file="/another/run.yaml")
        finished = run_of("a", days_ago=2)
        delete_leftovers(tmp_path / "out", now=NOW)
        assert earlier.saved and later.saved and other.saved
        finished.bundle.mkdir()
        delete_leftovers(tmp_path / "out", now=NOW)
        assert not earlier.private.exists() and not finished.private.exists()
        assert names(later) == names(other) == NOISED

    def test_of_which_only_a_part_is_deleted_cannot_go_on(self, run_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever is killed while deleting leaves no run that looks as if it could go on."""
        folder = run_of("a")
        monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
        folder.forget()
        assert folder.private.exists() and not folder.saved


class TestALivingRun:
    def test_is_left_alone(self, run_of: Any, tmp_path: Path) -> None:
        folder = run_of("a", days_ago=KEPT_DAYS + 1)
        with hold(folder):
            folder.codes.write_text("rows")
            assert under_way(folder)
            delete_leftovers(tmp_path / "out", now=NOW)
            assert folder.codes.exists()
            with pytest.raises(SynthError, match="under way in another process"), hold(folder):
                raise AssertionError
            assert folder.codes.exists()
        assert not under_way(folder)

    def test_is_not_kept_from_its_start_by_who_looks_at_it(self, run_of: Any) -> None:
        folder, looking = run_of("a"), threading.Event()

        def look() -> None:
            with try_lock(folder.path) as free:
                assert free
                looking.set()
                while not waiting:
                    pass

        waiting: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("synth.run_folder.time.sleep", waiting.append)
            thread = threading.Thread(target=look)
            thread.start()
            looking.wait()
            with hold(folder):
                thread.join()
        assert waiting

    @pytest.mark.parametrize("end", [None, SynthError, KeyboardInterrupt])
    def test_that_ends_early_says_what_it_has_saved(
        self, run_of: Any, caplog: pytest.LogCaptureFixture, end: type[BaseException] | None
    ) -> None:
        folder = run_of("a")
        caplog.set_level(logging.WARNING)
        try:
            with hold(folder):
                assert names(folder) == NOISED  # what the one before has left
                folder.codes.write_text("rows")
                if end:
                    raise end
        except (SynthError, KeyboardInterrupt):
            pass
        assert names(folder) == NOISED
        assert [record.getMessage() for record in caplog.records] == [
            "warning: run a is not finished; --resume goes on from what it has saved"
        ]

    def test_that_has_its_bundle_keeps_nothing_and_says_nothing(
        self, run_of: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = run_of("a")
        with hold(folder):
            folder.draft.replace(folder.bundle)
        assert not folder.private.exists() and caplog.records == []


def test_runs_come_latest_first_and_strangers_not_at_all(run_of: Any, tmp_path: Path) -> None:
    second, first, third = (run_of(name, days_ago=days) for name, days in (("b", 2), ("c", 3), ("a", 1)))
    same = run_of("d", days_ago=2)
    os.utime(same.internal / "run.json", ns=(0, 0))  # in the same second as b, and before it
    for name, content in (("w", "{"), ("x", "[]"), ("y", "{}"), ("z", '{"created": "yesterday"}')):
        (run_of(name).internal / "run.json").write_text(content)
    (tmp_path / "out" / "a file").touch()
    found = [folder.run_id for folder in runs_below(tmp_path / "out")]
    assert found == [folder.run_id for folder in (third, second, same, first)]
    assert runs_below(tmp_path / "nowhere") == []


def test_a_password_comes_from_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process that goes on, as in the one that started; no copy holds it."""
    (tmp_path / "schema.yaml").write_text(
        json.dumps({"dataset": "d", "privacy_unit": "row", "columns": [{"name": "a", "kind": "boolean"}]})
    )
    source = {"url": "postgresql://ada:zq-secret@h/d", "query": "select a from d"}
    config = {"source": source, "schema": "schema.yaml", "privacy": {"epsilon": 1, "delta": 1e-5}}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    run = load_run(tmp_path / "run.yaml")
    folder = create_run_folder(run)
    monkeypatch.setattr("synth.run_folder._DATABASES", {})
    assert "zq-secret" not in str(folder.run().config.source.model_dump())
    assert folder.run().config.source != run.config.source
    go_on_in(folder, run)
    assert folder.run().config.source == run.config.source
    assert not any(b"zq-secret" in path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
