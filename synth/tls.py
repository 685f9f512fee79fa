"""TLS of a PostgreSQL connection: whether it is asked for, whether it is there, and why there is none.

Interface: libpq, "SSL Support". Without `sslmode` libpq goes on unencrypted where the server offers no TLS, and never
asks who the server is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.pq import Conninfo

ASKED = frozenset({"require", "verify-ca", "verify-full"})

# What libpq and OpenSSL say, which can quote the host, and what is said instead.
_TROUBLES = {
    "certificate verify failed": (
        "the server's certificate is not signed by one that sslrootcert holds; ask whoever runs it, and use no weaker "
        "sslmode"
    ),
    "does not match host name": (
        "the server's certificate is for another host; write the host as it is named there, and use no weaker sslmode"
    ),
    "does not support SSL": (
        "sslmode asks for TLS, which the server does not offer; turn it on there, and use no weaker sslmode"
    ),
    "root certificate": (
        "sslmode asks who the server is, and there is no file of certificates to tell by; name one as sslrootcert"
    ),
    "weak sslmode": "with sslrootcert=system the sslmode is verify-full, and no weaker one",
}


def exposed(parameters: Mapping[str, Any]) -> bool:
    """Whether what libpq is given can lead over a network without TLS. The environment (PGHOST, PGSSLMODE) counts."""
    given = {name: str(value) for name, value in parameters.items() if value}
    known = {option.keyword.decode(): (option.val or b"").decode() for option in Conninfo.get_defaults()} | given
    if known["sslmode"] in ASKED or ("sslmode" not in given and known["sslrootcert"] == "system"):
        return False
    return not all(_here(host) for host in (known["hostaddr"] or known["host"]).split(","))


def protection(connection: psycopg.Connection[Any]) -> str:
    """How an open connection is protected, in words."""
    if connection.info.host.startswith("/"):
        return "reached without a network"
    row = connection.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl").fetchone()
    if row is None or not connection.pgconn.ssl_in_use:  # both: behind a pooler the server sees the pooler's TLS
        return "not encrypted"
    mode = next(option.val for option in connection.pgconn.info if option.keyword == b"sslmode")
    return f"encrypted ({row[0]}), the server's name {'checked' if mode == b'verify-full' else 'not checked'}"


def trouble(error: Exception) -> str | None:
    """Why TLS kept a connection from being made, and what to do; None where it was something else."""
    return next((ours for theirs, ours in _TROUBLES.items() if theirs in str(error)), None)


def _here(host: str) -> bool:
    """Whether this is the machine itself: the folder of a socket, or the loopback."""
    if host in {"", "localhost"} or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
