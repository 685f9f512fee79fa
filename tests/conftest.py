"""A real PostgreSQL and a real browser for the tests: found, or installed where that is possible.

postgres        the url of an empty database, by password over loopback; its server has a folder of its own
certificate     that server offers TLS, with this certificate of its own for the host `localhost`
self_signed     make such a certificate
ledger_url      the url of a ledger that does not exist yet, once in SQLite and once in PostgreSQL
chromium        the program of Chromium or Chrome
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import absl.logging
import pytest
from hypothesis import HealthCheck, settings

# Some libraries under test log by absl, whose handler takes the standard error it finds when it is first imported,
# and closes it when anyone configures logging: that would be the file a test is captured in.
absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

# Time is the machine's, not the code's: a slow minute must not fail a property. And a test run decides about the
# code: its examples are the same each time. HYPOTHESIS_SEARCH=1 looks at fresh ones.
settings.register_profile(
    "patient",
    deadline=None,
    derandomize=not os.environ.get("HYPOTHESIS_SEARCH"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("patient")

PASSWORD = "correct-horse"
CONFIGURED = ("-c", "fsync=off", "-c", "max_connections=150", "-c", "listen_addresses=127.0.0.1")


def _programs() -> Path | None:
    """The folder with initdb and pg_ctl, the newest if there are several."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/opt/homebrew/opt").glob("postgresql@*/bin")]
    usable = [folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()]
    return max(usable, key=lambda folder: float(folder.parent.name.removeprefix("postgresql@")), default=None)


def _browser() -> Path | None:
    """Chromium, or Chrome, which is the same engine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    mac = (
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    )
    found = [
        *(Path(path) for name in names if (path := shutil.which(name))),
        *(Path(p) for p in mac if Path(p).exists()),
    ]
    return found[0] if found else None


def _install(package: str, found: Callable[[], Path | None]) -> None:
    """Debian's package; a lock keeps parallel test processes from installing at once."""
    with (Path(tempfile.gettempdir()) / "synth-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found() is None:
            quietly = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "check": True, "capture_output": True}
            subprocess.run(["apt-get", "update"], **quietly)
            subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", package], **quietly)


@dataclass
class Cluster:
    """A PostgreSQL server in a folder of its own, as an unprivileged user."""

    programs: Path
    folder: Path
    quietly: dict[str, Any]
    port: int = 0

    @property
    def url(self) -> str:
        """Of the server, without a database."""
        return f"postgresql://ledgerkeeper:{PASSWORD}@127.0.0.1:{self.port}"

    def make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if owner := self.quietly.get("user"):
            for path in (self.folder, secret):
                shutil.chown(path, owner)
        made = (
            "-A",
            "scram-sha-256",
            "--pwfile",
            secret,
            "-U",
            "ledgerkeeper",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )
        subprocess.run([self.programs / "initdb", "-D", self.folder / "data", *made], **self.quietly)

    def start(self) -> None:
        """On a free port, or again on the same; another process may take one between the look and the start."""
        for attempt in range(5):
            if not (again := self.port):
                with socket.socket() as free:
                    free.bind(("127.0.0.1", 0))
                    self.port = free.getsockname()[1]
            options = " ".join((*CONFIGURED, "-c", f"port={self.port}", "-c", f"unix_socket_directories={self.folder}"))
            command = [self.programs / "pg_ctl", "-D", self.folder / "data", "-w", "-t", "300"]
            command += ["-l", self.folder / "log", "-o", options, "start"]
            if subprocess.run(command, **(self.quietly | {"check": attempt == 4})).returncode == 0:
                return
            self.port = again

    def stop(self) -> None:
        """At once, whoever is connected: to PostgreSQL a crash, from which it recovers when it is started again."""
        subprocess.run(
            [self.programs / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop"], **self.quietly
        )


@contextmanager
def _cluster() -> Iterator[Cluster]:
    root = os.geteuid() == 0
    if _programs() is None and root and shutil.which("apt-get"):
        _install("postgresql", _programs)
    programs = _programs()
    if programs is None:
        pytest.fail("no PostgreSQL here: install its server (package postgresql) so that initdb and pg_ctl are found")
    owner: dict[str, Any] = {}
    if root:  # PostgreSQL refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        owner = {"user": "postgres" if "postgres" in names else "nobody", "extra_groups": []}
        owner["group"] = pwd.getpwnam(owner["user"]).pw_gid
    folder = Path(tempfile.mkdtemp(prefix="synth-pg-"))
    quietly = {"check": True, "cwd": folder, "stdout": subprocess.DEVNULL, "timeout": 600, **owner}
    cluster = Cluster(programs, folder, quietly)
    try:
        cluster.make()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The url of a server, without a database."""
    with _cluster() as cluster:
        yield cluster.url


@pytest.fixture(scope="module")
def postgres_cluster() -> Iterator[Cluster]:
    """A server of the module's own, which it may kill and start again."""
    with _cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program."""
    if _browser() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install("chromium", _browser)
    program = _browser()
    if program is None:
        pytest.fail("no Chromium here: install it (package chromium), or Chrome, so that it is on the path")
    return program


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The url of an empty database."""
    import psycopg

    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS ledger WITH (FORCE)")
        connection.execute("CREATE DATABASE ledger")
    return f"{postgres_server}/ledger"


@pytest.fixture(scope="session")
def self_signed() -> Callable[[Path], Path]:
    """Write `server.key` and `server.crt`, signed by that key and for `localhost` alone, into a folder."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def make(folder: Path) -> Path:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        signed = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (folder / "server.key").write_bytes(pem)
        (folder / "server.key").chmod(0o600)
        (folder / "server.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return folder / "server.crt"

    return make


@pytest.fixture
def certificate(postgres_server: str, self_signed: Callable[[Path], Path], tmp_path: Path) -> Iterator[Path]:
    """TLS is on; a copy of the server's certificate."""
    import psycopg

    def show(setting: str) -> str:
        with psycopg.connect(f"{postgres_server}/postgres") as connection:
            return str(connection.execute(f"SHOW {setting}").fetchone()[0])

    def switch(state: str) -> None:
        with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET ssl = {state}")
            connection.execute("SELECT pg_reload_conf()")
        assert any(show("ssl") == state for _ in range(10_000))  # it takes the server a moment

    data = Path(show("data_directory"))
    made = self_signed(data)
    for path in (made, made.with_name("server.key")):
        os.chown(path, data.stat().st_uid, data.stat().st_gid)
    switch("on")
    try:
        yield Path(shutil.copy(made, tmp_path / "root.crt"))
    finally:
        switch("off")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The url of a ledger that does not exist yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgres"))
