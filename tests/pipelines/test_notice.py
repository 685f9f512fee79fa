"""A notice that nobody takes changes nothing, and its address is told to nobody. What is sent is in test_deploy."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

TOKEN = "zq-webhook-token"


@pytest.fixture
def failing() -> Iterator[tuple[str, list[str]]]:
    """The address of a webhook that answers with 500, and what was asked of it."""
    asked: list[str] = []

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def noticed(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    from pipelines.notice import give_notice

    for name in ("pipelines", "pipelines.notice"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    state: Any = SimpleNamespace(name="Completed", message=None)
    with caplog.at_level(logging.DEBUG):
        give_notice(SimpleNamespace(name="synth-scheduled"), SimpleNamespace(name="fine-otter"), state)  # type: ignore[arg-type]
    return caplog.text


def test_without_an_address_nothing_is_sent(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNTH_NOTIFY", raising=False)
    monkeypatch.setattr("httpx.post", None)
    assert noticed(caplog, monkeypatch) == ""


def test_one_that_fails_is_a_warning(caplog: Any, failing: tuple[str, list[str]], monkeypatch: Any) -> None:
    monkeypatch.setenv("SYNTH_NOTIFY", f"{failing[0]}/{TOKEN}")
    told = noticed(caplog, monkeypatch)
    assert failing[1] == [f"/{TOKEN}"]
    assert "nobody was told how this run ended (HTTPStatusError)" in told and TOKEN not in told


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "nonsense-", "http://[127.0.0.1/", "ftp://host/"])
def test_an_address_of_nobody_is_a_warning(caplog: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_NOTIFY", address + TOKEN)
    told = noticed(caplog, monkeypatch)
    assert "nobody was told how this run ended" in told and TOKEN not in told
