"""Runs whose generator is refined against a critic trained by DP-SGD: end to end, with people, and when they fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from synth.config import load_run
from synth.prepare import events_of
from synth.privacy import budget
from synth.privacy.ledger import Ledger
from synth.privacy.pld import epsilon_of
from synth.tables.model import TableModel
from synth.working_file import SEALED, VARIABLE

STEPS = 6


@pytest.fixture
def refined(clinic: Any) -> Any:
    """A clinic whose run has a critic."""
    clinic.run["synthesizer"] |= {"critic_share": 0.5, "critic": {"steps": STEPS, "sample_rate": 0.1}}
    return clinic.write()


def statement_of(bundle: Path) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads((bundle / "privacy.json").read_text())["x_synth"]
    return statement


def test_half_of_the_rest_goes_to_a_critic(refined: Any, synth: Any) -> None:
    done = synth("run", refined.run_yaml)
    bundle = done.bundle
    assert f"refine: critic step {STEPS} of {STEPS}" in done.err
    assert synth("verify", bundle, "--ledger", refined.ledger_url).code == 0
    account = Ledger.open(refined.ledger_url).population("clinic-patients")
    assert account is not None and account.open == ()
    events = account.charged[0].events
    assert sorted(event.name for event in account.charged[0].spent) == sorted(event.name for event in events)
    statement = statement_of(bundle)
    assert statement["epsilon"] == epsilon_of(events, 1e-5) == account.epsilon
    assert 1 - 1e-3 <= statement["epsilon"] <= 1
    assert statement["mu"] is None
    assert statement["renyi_epsilon"] > statement["epsilon"]
    assert statement["replace_one"]["epsilon"] == epsilon_of(events, 1e-5, neighbours="replace-one")
    written = statement["events"][-1]
    assert written["name"] == budget.CRITIC and (written["steps"], written["sample_rate"]) == (STEPS, 0.1)
    assert "privacy loss distributions" in statement["accountant"] and "DP-SGD noise" in statement["noise_protection"]
    assert any(step.startswith("Refining:") for step in statement["path_covered"])
    sheet = (bundle / "datasheet.md").read_text()
    assert "Refinement. A critic with" in sheet and f"{STEPS} steps of the Poisson-subsampled Gaussian" in sheet
    shown = json.loads(synth("budget", "show", "--ledger", refined.ledger_url, "--json").out)
    assert shown["populations"][0]["mu"] is None
    assert f"ε = {statement['epsilon']:g}" in synth("budget", "history", "--ledger", refined.ledger_url).out


def test_all_of_the_rest_is_a_plain_gan_on_the_bins(refined: Any, synth: Any) -> None:
    refined.run["synthesizer"]["critic_share"] = 1
    refined.write()
    before = refined.files()
    refined.source.rename(refined.folder / "away.parquet")  # a plan never opens the source
    plan = synth("plan", refined.run_yaml).out
    assert "none is measured, the critic has their share" in plan
    assert f"DP-SGD: {STEPS} steps, each person in a step with probability 0.1, noise" in plan
    (refined.folder / "away.parquet").rename(refined.source)
    assert refined.files() == before
    bundle = synth("run", refined.run_yaml).bundle
    names = [event["name"] for event in statement_of(bundle)["events"]]
    assert names == [budget.FINE, budget.DETAIL, budget.ONE_WAY, budget.CRITIC]
    assert json.loads((bundle / "quality.json").read_text())["mean_two_way_distance"] is None
    assert TableModel.load(bundle / "model").rows > 0


def test_people_with_several_rows(refined: Any, synth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from synth.tables import stages

    seen: dict[str, Any] = {}
    work = stages.refine_generators

    def watching(members: Any, measured: Any, private: Any, settings: Any, config: Any, **named: Any) -> Any:
        seen.update(private=private, settings=settings, config=config, total=measured.total)
        return work(members, measured, private, settings, config, **named)

    monkeypatch.setattr(stages, "refine_generators", watching)
    rows = refined.table.num_rows
    people = [f"P{i // 5}" for i in range(rows)]
    refined.put("patient_nbr", people, pa.string())
    refined.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 3}
    refined.write()
    bundle = synth("run", refined.run_yaml).bundle
    assert statement_of(bundle)["privacy_unit"] == "person"
    persons = seen["private"].persons
    assert len(persons) == len(seen["private"].rows) == rows // 5 * 3
    assert sorted(set(persons.tolist())) == list(range(rows // 5))
    assert all((persons == one).sum() == 3 for one in range(rows // 5))
    assert seen["settings"].max_rows_per_person == 3
    # Post-processing of the noised number of rows, never of the true one.
    assert seen["config"].expected_batch_size == pytest.approx(0.1 * seen["total"] / 3)
    assert pq.ParquetFile(bundle / "data" / "part-00000.parquet").metadata.num_rows > 0


class TestTwoProcesses:
    def test_train_one_critic(self, refined: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which also have the same weights in the end, to the last bit: a run whose processes have not fails."""
        from synth.tables import stages

        counts, together = [], stages.together

        def counting(folder: Path, count: int, **named: Any) -> Any:
            counts.append(count)
            found = together(folder, count, **named)
            assert {"bins.npy", "meeting", "refined"} <= {path.name for path in (folder / "private").iterdir()}
            return found

        monkeypatch.setattr(stages, "together", counting)
        alone = events_of(load_run(refined.run_yaml))
        refined.run["synthesizer"]["critic"]["processes"] = 2
        refined.write()
        assert events_of(load_run(refined.run_yaml)) == alone  # who does the work is nothing to the cost
        bundle = quick_run(refined.run_yaml)
        assert counts == [2]
        account = Ledger.open(refined.ledger_url).population("clinic-patients")
        assert account is not None and account.charged[0].spent == tuple(alone)
        assert statement_of(bundle)["events"][-1]["steps"] == STEPS
        members = TableModel.load(bundle / "model").members
        assert all(bool(value.isfinite().all()) for member in members for value in member.state_dict().values())
        assert {path.name for path in bundle.parent.iterdir()} == {"bundle", "internal"}

    def test_gpus_that_are_not_there_cost_nothing(
        self, refined: Any, synth: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        refined.run["synthesizer"] |= {"accelerator": "gpu"}
        refined.run["synthesizer"]["critic"]["processes"] = 2
        done = synth("run", refined.write().run_yaml)
        assert done.code == 2 and "ask for fewer" in done.err.splitlines()[-1]
        assert Ledger.open(refined.ledger_url).history() == ()

    def test_one_that_is_lost_fails_the_run_which_stays_spent(
        self, refined: Any, quick_run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second is killed as soon as it may begin, before the two have met. Rows are sealed, and of persons."""
        from pipelines.flow import Stopped  # Prefect reads its home when it is imported
        from synth import ranks

        tell, started = ranks._tell, []

        def kills(process: Any, line: bytes) -> None:
            tell(process, line)
            if line != ranks.GO:
                started.append(process)
            elif process is started[1]:
                process.kill()
                (private,) = refined.out.glob("*/private")
                assert not (private / "bins.npy").exists()
                assert (private / "encoded.arrow").read_bytes()[: len(SEALED)] == SEALED

        refined.run["synthesizer"]["critic"]["processes"] = 2
        refined.schema |= {"privacy_unit": "patient_nbr", "max_rows_per_person": 2}
        refined.write()
        monkeypatch.setenv(VARIABLE, "0badc0de" * 8)
        monkeypatch.setattr(ranks, "_tell", kills)
        with pytest.raises(Stopped) as stop:
            quick_run(refined.run_yaml)
        assert str(stop.value.reason).startswith("refine: one of the critic's processes has failed")
        account = Ledger.open(refined.ledger_url).population("clinic-patients")
        assert account is not None and budget.CRITIC in {event.name for event in account.charged[0].spent}
        assert not list(refined.out.glob("*/private")) and not list(refined.out.glob("*/bundle"))
        assert all(process.poll() is not None for process in started)


class TestFailures:
    def test_a_run_that_fails_while_refining_stays_spent(
        self, refined: Any, synth: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from synth.privacy.dp_sgd import PrivateCritic

        step = PrivateCritic.private_step

        def fails(self: Any, columns: Any, **named: Any) -> None:
            step(self, columns, **named)
            if self.steps_taken == 2:
                raise RuntimeError(f"a row: {columns[0][0].tolist()}")

        monkeypatch.setattr(PrivateCritic, "private_step", fails)
        done = synth("run", refined.run_yaml)
        assert done.code == 1
        assert "refine failed with RuntimeError" in done.err and "a row:" not in done.out + done.err
        account = Ledger.open(refined.ledger_url).population("clinic-patients")
        assert account is not None
        assert [run.state for run in account.charged] == ["settled"]
        assert budget.CRITIC in {event.name for event in account.charged[0].spent}
        assert account.epsilon == pytest.approx(1, abs=1e-3)
        assert not list(refined.out.rglob("bins.npy")) and not list(refined.out.glob("*/bundle"))

    def test_a_run_that_is_killed_while_refining_stays_spent(self, refined: Any, tmp_path: Path) -> None:
        """In a process of its own, stage by stage, killed inside the critic's second step."""
        script = f"""
import os, signal
from pathlib import Path
from synth import stages
from synth.prepare import prepare
from synth.privacy.dp_sgd import PrivateCritic
from synth.privacy.ledger import Ledger
from synth.run_folder import hold
ledger = Ledger.open({refined.ledger_url!r})
folder = prepare(Path({str(refined.run_yaml)!r}), ledger)
step = PrivateCritic.private_step
def kills(self, columns, **named):
    step(self, columns, **named)
    if self.steps_taken == 2:
        os.kill(os.getpid(), signal.SIGKILL)
PrivateCritic.private_step = kills
with hold(folder):
    stages.reserve(folder, ledger)
    stages.encode(folder)
    stages.measure(folder, ledger)
    stages.train(folder)
    assert stages.has_critic(folder)
    stages.refine(folder, ledger)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        account = Ledger.open(refined.ledger_url).population("clinic-patients")
        assert account is not None and len(account.open) == 1
        assert budget.CRITIC in {event.name for event in account.open[0].spent}
        assert account.epsilon == pytest.approx(1, abs=1e-3)
