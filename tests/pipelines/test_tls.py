"""PostgreSQL over TLS by the command line: what is asked for is had or refused, and what is not asked for is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from synth.errors import SynthError
from synth.privacy.ledger import Ledger

PASSWORD = "correct-horse"
# No row where the server sees this very connection unencrypted: and a source without rows is refused.
QUERY = "select * from patients where (select ssl from pg_stat_ssl where pid = pg_backend_pid())"


@pytest.fixture
def named(postgres: str) -> Callable[..., str]:
    """The url of the test's database by a name of its host, with parameters."""

    def name(host: str, **parameters: object) -> str:
        given = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"{postgres.replace('127.0.0.1', host)}?{given}"

    return name


@pytest.fixture
def place(clinic: Any, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say that the clinic's ledger, or its source, is at a url."""
    with psycopg.connect(postgres) as owner:
        clinic.copy_into(owner, "patients")
    Ledger.open(postgres)

    def put(what: str, url: str, query: str = QUERY) -> None:
        monkeypatch.setenv(what.upper(), url)
        there = {"url": f"${{{what.upper()}}}"}
        clinic.run[what] = there if what == "ledger" else there | {"query": query}
        clinic.run_yaml.write_text(json.dumps(clinic.run))

    return put


def checks(synth: Any, clinic: Any) -> dict[str, str]:
    told = json.loads(synth("doctor", clinic.run_yaml, "--json").out)
    return {check["name"]: f"{check['ok']}: {check['found']}; {check['remedy']}" for check in told["checks"]}


def test_ledger_and_source_over_tls(
    clinic: Any, synth: Any, named: Callable[..., str], place: Any, certificate: Path
) -> None:
    safe = named("localhost", sslmode="verify-full", sslrootcert=certificate)
    place("ledger", safe)
    place("source", safe)
    assert synth("budget", "cap", "clinic-patients", 3, "--ledger", safe).code == 0
    found = checks(synth, clinic)
    assert found["run"].startswith("True: its files are valid")
    assert found["ledger"].startswith(
        "True: (PostgreSQL): intact, 1 entries, encrypted (TLSv1.3), the server's name checked; "
    )
    assert "name synth_runner of docs/grants.sql" in found["ledger"]  # here it is the database's owner
    place("ledger", named("127.0.0.1", sslmode="require"))
    assert "encrypted (TLSv1.3), the server's name not checked" in checks(synth, clinic)["ledger"]
    place("ledger", named("127.0.0.1", sslmode="disable"))
    assert "not encrypted" in checks(synth, clinic)["ledger"]


def test_a_password_may_lie_in_a_file_of_its_own(
    clinic: Any, synth: Any, postgres: str, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = postgres.replace(f":{PASSWORD}", "")
    place("ledger", without)
    place("source", without, "select * from patients")
    assert "cannot be reached, or refuses the login" in synth("plan", clinic.run_yaml).err
    kept = clinic.folder / "pgpass"
    kept.write_text(f"127.0.0.1:*:ledger:ledgerkeeper:{PASSWORD}\n")
    kept.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(kept))
    found = checks(synth, clinic)
    assert found["run"].startswith("True") and found["ledger"].startswith("True")


@pytest.mark.parametrize("what", ["ledger", "source"])
def test_a_stranger_s_server_is_refused(
    clinic: Any,
    synth: Any,
    named: Callable[..., str],
    place: Any,
    certificate: Path,
    self_signed: Callable[[Path], Path],
    postgres: str,
    what: str,
) -> None:
    other = self_signed(clinic.folder)
    nothing = clinic.folder / "nothing.crt"
    for url, why in (
        (named("localhost", sslmode="verify-full", sslrootcert=other), "is not signed by one that sslrootcert holds"),
        (named("127.0.0.1", sslmode="verify-full", sslrootcert=certificate), "is for another host"),
        (named("localhost", sslmode="verify-full", sslrootcert=nothing), "name one as sslrootcert"),
        (named("localhost", sslmode="prefer", sslrootcert="system"), "and no weaker one"),
    ):
        place(what, url)
        refused(synth, clinic, postgres, f"{what} (PostgreSQL): ", why)


@pytest.mark.parametrize("what", ["ledger", "source"])
@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_a_server_without_tls_is_refused(
    clinic: Any,
    synth: Any,
    named: Callable[..., str],
    place: Any,
    self_signed: Callable[[Path], Path],
    postgres: str,
    what: str,
    mode: str,
) -> None:
    place(what, named("localhost", sslmode=mode, sslrootcert=self_signed(clinic.folder)))
    refused(synth, clinic, postgres, f"{what} (PostgreSQL): ", "TLS, which the server does not offer")


def refused(synth: Any, clinic: Any, postgres: str, *words: str) -> None:
    """`synth run` and `synth doctor` say so in one line; nothing is spent or left."""
    outcome = synth("run", clinic.run_yaml)
    assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 1), outcome
    told = synth("doctor", clinic.run_yaml)
    assert told.code == 1
    for word in words:
        assert word in outcome.err and word in told.out, outcome.err
    for secret in (PASSWORD, "ledgerkeeper", "localhost", "127.0.0.1", "server.crt", "root.crt", "nothing.crt"):
        assert secret not in outcome.err + told.out + told.err
    assert Ledger.open(postgres).history() == Ledger.open(clinic.ledger_url).history() == ()
    assert not [*clinic.out.glob("*")]


def test_a_source_on_another_machine_without_tls_is_told_in_a_line(clinic: Any, synth: Any) -> None:
    for parameters, warned in (("", True), ("?sslmode=prefer", True), ("?sslmode=verify-full", False)):
        clinic.run["source"] = {"url": f"postgresql://ada:{PASSWORD}@db.example/ward{parameters}", "query": "select 1"}
        clinic.run_yaml.write_text(json.dumps(clinic.run))
        outcome = synth("plan", clinic.run_yaml)  # opens no source
        assert outcome.code == 0
        assert [line.startswith("warning: source (PostgreSQL): can be read and forged") for line in told(outcome)] == (
            [True] * warned
        )
        assert not warned or "add ?sslmode=verify-full to source.url" in outcome.err
        assert PASSWORD not in outcome.err and "db.example" not in outcome.err


def told(outcome: Any) -> list[str]:
    return [line for line in outcome.err.splitlines() if "warning" in line]


def test_every_command_that_uses_one_warns(
    clinic: Any, synth: Any, postgres: str, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("ledger", postgres)
    monkeypatch.setattr("synth.tls._here", lambda host: False)  # as if the tests' server were elsewhere
    of_ledger, of_source = (
        f"{what} (PostgreSQL): can be read and forged on its way over the network: add ?sslmode=verify-full to {key}"
        for what, key in (("ledger", "its url"), ("source", "source.url"))
    )
    assert told(synth("plan", clinic.run_yaml)) == [f"warning: {of_ledger}"]
    place("source", postgres, "select * from patients")
    both = [f"warning: {of_source}", f"warning: {of_ledger}"]
    assert told(synth("plan", clinic.run_yaml)) == both
    found = checks(synth, clinic)
    assert of_source in found["run"] and of_ledger in found["ledger"]

    # Neither a run nor a deployment is made here.
    monkeypatch.setattr("pipelines.server.prefect_server", halted)
    outcome = synth("run", clinic.run_yaml)
    assert outcome.code == 1 and told(outcome) == both
    monkeypatch.setattr("pipelines.deployment.server", nullcontext)
    monkeypatch.setattr("pipelines.deployment.register", lambda client, deployment: "an id")
    outcome = synth("deploy", clinic.run_yaml, "--cron", "0 3 * * 0")
    assert outcome.code == 0 and told(outcome)[:2] == both


def halted() -> Any:
    raise SynthError("halted")
