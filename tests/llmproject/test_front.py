"""A body that comes in drops, and what becomes of the bytes that it holds; `tests/e2e/test_front.py` has all else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from granian.constants import HTTPModes

from llm.api.asgi import Receive, Scope, Send
from llm.keys import create_key
from llm.models import Account
from llmproject import front, server
from llmproject.places import Standing

pytestmark = pytest.mark.usefixtures("own_runtime")

Headers = Sequence[tuple[bytes, bytes]]


def scope_of(path: str) -> Scope:
    headers = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")]
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


class Dripping:
    """A caller that sends a byte, or `size` of them, whenever it is asked, and then nothing more."""

    def __init__(self, *, drops: int, size: int = 1) -> None:
        self._drops = drops
        self._drop = b"a" * size
        self.has_sent = asyncio.Event()
        self.sent: list[Mapping[str, Any]] = []

    async def receive(self) -> Mapping[str, Any]:
        if self._drops == 0:
            self.has_sent.set()
            await asyncio.get_running_loop().create_future()
        self._drops -= 1
        return {"type": "http.request", "body": self._drop, "more_body": True}

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
    under_test = front.Front(read_all)
    await under_test(scope_of(path), caller.receive, caller.send)
    start, body = caller.sent
    assert start["status"] == 408
    assert dict(start["headers"])[b"content-type"] == content_type
    assert b"did not arrive within 0.05 seconds" in body["body"]
    room = under_test.bodies.rooms[Standing.STRANGER]
    assert (room.taken, room.peak_bytes) == (0, 3)


async def test_a_body_of_no_end_is_a_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "ANONYMOUS_BODY_BYTES", 100)
    caller = Dripping(drops=1000)
    under_test = front.Front(read_all)
    await under_test(scope_of("/api/v1/exports/"), caller.receive, caller.send)
    assert caller.sent[0]["status"] == 413
    assert under_test.bodies.rooms[Standing.STRANGER].peak_bytes == 100


@pytest.fixture
def staff_headers() -> Headers:
    client = Client()
    client.force_login(User.objects.create_user("ada", is_staff=True))
    return [(b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode())]


@pytest.fixture
def key_headers() -> Headers:
    _, secret = create_key(Account.objects.create(name="acme"), name="k")
    return [(b"authorization", f"Bearer {secret}".encode())]


async def held_open(
    under_test: front.Front, *, path: str = "/admin/login/", size: int, headers: Headers = (), address: str = "1.2.3.4"
) -> tuple[asyncio.Task[None], Dripping]:
    """A request that has sent so many bytes and sends no more."""
    caller = Dripping(drops=1, size=size)
    scope = {**scope_of(path), "client": (address, 1)}
    scope["headers"] = [*scope["headers"], *headers]
    task = asyncio.create_task(under_test(scope, caller.receive, caller.send))
    task.add_done_callback(lambda _: caller.has_sent.set())
    await caller.has_sent.wait()
    return task, caller


async def end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_strangers_who_hold_all_that_they_may_leave_room_for_staff_and_keys(
    staff_headers: Headers, key_headers: Headers
) -> None:
    under_test = front.Front(read_all)
    held = [await held_open(under_test, size=64 * 1024, address=f"10.0.{n // 256}.{n % 256}") for n in range(600)]
    refused = [caller for _, caller in held if caller.sent]
    assert {caller.sent[0]["status"] for caller in refused} == {503}
    # All of theirs but the last part, of which nobody may have more than is left.
    assert under_test.bodies.rooms[Standing.STRANGER].taken == 32 * 1024**2 - 64 * 1024
    for headers, path, size in (
        (staff_headers, "/admin/", 31 * 1024**2),
        (key_headers, "/api/v1/exports/", 2 * 1024**2),
    ):
        task, caller = await held_open(under_test, path=path, size=size, headers=headers)
        assert caller.sent == []
        held.append((task, caller))
    await end(*(task for task, _ in held))
    assert [room.taken for room in under_test.bodies.rooms.values()] == [0, 0, 0]


async def test_one_address_holds_half_of_what_strangers_may() -> None:
    under_test = front.Front(read_all)
    held = [await held_open(under_test, size=64 * 1024) for _ in range(300)]
    assert sum(not caller.sent for _, caller in held) == 256
    task, caller = await held_open(under_test, size=64 * 1024, address="5.6.7.8")
    assert caller.sent == []
    await end(task, *(each for each, _ in held))


async def test_a_key_gets_no_more_than_a_stranger_on_pages(key_headers: Headers) -> None:
    under_test = front.Front(read_all)
    for path in ("/admin/", "/docs/"):
        _, caller = await held_open(under_test, path=path, size=64 * 1024 + 1, headers=key_headers)
        assert caller.sent[0]["status"] == 413
        assert b"larger than 64 KB" in caller.sent[1]["body"]


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
