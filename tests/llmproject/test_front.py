"""A body that comes in drops, and what becomes of the bytes that it holds; `tests/e2e/test_front.py` has all else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from granian.constants import HTTPModes

from llm.api.asgi import Receive, Scope, Send
from llm.runtime import runtime
from llmproject import front, server

pytestmark = pytest.mark.usefixtures("own_runtime")


def scope_of(path: str) -> Scope:
    headers = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


class Dripping:
    """A caller that sends a byte whenever it is asked, and then nothing more."""

    def __init__(self, *, drops: int) -> None:
        self._drops = drops
        self.sent: list[Mapping[str, Any]] = []

    async def receive(self) -> Mapping[str, Any]:
        if self._drops == 0:
            await asyncio.get_running_loop().create_future()
        self._drops -= 1
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads a body to its end, as Django does."""
    while (await receive()).get("more_body"):
        pass


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/admin/login/", b"text/html; charset=utf-8"), ("/api/v1/exports/", b"application/json")],
)
async def test_a_body_that_drips_is_a_408_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, path: str, content_type: bytes
) -> None:
    monkeypatch.setattr(front, "ANONYMOUS_BODY_SECONDS", 0.05)
    caller = Dripping(drops=3)
    await front.Front(read_all)(scope_of(path), caller.receive, caller.send)
    start, body = caller.sent
    assert start["status"] == 408
    assert dict(start["headers"])[b"content-type"] == content_type
    assert b"did not arrive within 0.05 seconds" in body["body"]
    assert (runtime().other_bodies.bytes_in_work, runtime().other_bodies.peak_bytes) == (0, 3)


async def test_a_body_of_no_end_is_a_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "ANONYMOUS_BODY_BYTES", 100)
    caller = Dripping(drops=1000)
    await front.Front(read_all)(scope_of("/api/v1/exports/"), caller.receive, caller.send)
    assert caller.sent[0]["status"] == 413
    assert runtime().other_bodies.peak_bytes == 100


async def test_an_application_that_fails_is_a_500_in_the_form_of_the_path() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    caller = Dripping(drops=0)
    await front.Front(fail)(scope_of("/api/v1/exports/"), caller.receive, caller.send)
    assert caller.sent[0]["status"] == 500
    assert caller.sent[1]["body"] == b'{"detail": "Something went wrong on our side."}'


def test_the_server_closes_a_connection_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Only in this mode does granian count from the first moment on; with both versions it waits for ever."""
    options: dict[str, Any] = {}

    class Server:
        def __init__(self, _target: str, **given: Any) -> None:
            options.update(given)

        def serve(self) -> None:
            pass

    for name in ("die_with_supervisor", "hold_stop_signals_of_children", "raise_open_files_limit"):
        monkeypatch.setattr(server, name, lambda: None)
    monkeypatch.setattr(server, "share_metrics", lambda _folder: None)
    monkeypatch.setattr(server, "Server", Server)
    arguments = "--host h --port 1 --workers 1 --drain-seconds 1 --log-level INFO --log-format json --metrics-folder"
    server.main([*arguments.split(), str(tmp_path)])
    assert (options["http"], options["http1_settings"].header_read_timeout) == (HTTPModes.http1, 30_000)
