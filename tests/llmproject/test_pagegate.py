"""How many of Django's requests are at work at a time, what holds a place, and what those are told that find none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from llm.api.asgi import Receive, Scope, Send
from llmproject.pagegate import BUSY, PageGate
from llmproject.postgresql import serves_page

App = Callable[[Scope, Receive, Send], Awaitable[None]]
WHOLE = {"type": "http.request", "body": b"", "more_body": False}
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"done"}


class Caller:
    """One request to the gate. reads: whether it takes what is sent; body: set once its body is there."""

    def __init__(self, gate: PageGate, path: str = "/admin/", *, body: asyncio.Event | None = None) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.begun = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self._body = body
        self.task = asyncio.create_task(gate({"type": "http", "path": path}, self._receive, self._send))

    async def _receive(self) -> Mapping[str, Any]:
        if self._body is not None:
            await self._body.wait()
        return WHOLE

    async def _send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)
        self.begun.set()
        await self.reads.wait()

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status


class Site:
    """Stands for Django: each request waits for `released`, then answers."""

    def __init__(self) -> None:
        self.at_work = 0
        self.most_at_work = 0
        self.changed = asyncio.Condition()
        self.released = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] == "http.disconnect":
            return
        await self._count(1)
        await self.released.wait()
        await self._count(-1)
        await send(START)
        await send(END)

    async def _count(self, change: int) -> None:
        async with self.changed:
            self.at_work += change
            self.most_at_work = max(self.most_at_work, self.at_work)
            self.changed.notify_all()

    async def until_at_work(self, number: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.at_work == number)


@pytest.fixture
async def site() -> Site:
    return Site()


@asynccontextmanager
async def patient() -> AsyncIterator[None]:
    async with asyncio.timeout(20):
        yield


def refused_so_far() -> float:
    return REGISTRY.get_sample_value("llm_pages_refused_total") or 0.0


async def test_no_more_than_the_places_are_at_work_and_the_rest_wait_for_their_turn(site: Site) -> None:
    gate = PageGate(site, places=2)
    async with patient():
        callers = [Caller(gate) for _ in range(7)]
        await site.until_at_work(2)
        site.released.set()
        await asyncio.gather(*(caller.task for caller in callers))
    assert site.most_at_work == 2
    assert [caller.sent for caller in callers] == [[START, END]] * 7


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/api/v1/calls/", b"application/json", orjson.dumps({"detail": BUSY})),
        ("/admin/login/", b"text/plain; charset=utf-8", f"{BUSY}\n".encode()),
    ],
)
async def test_who_finds_no_place_in_time_is_told_to_come_again(
    site: Site, path: str, content_type: bytes, body: bytes
) -> None:
    gate = PageGate(site, places=1, patience_s=0.01)
    before = refused_so_far()
    async with patient():
        first = Caller(gate)
        await site.until_at_work(1)
        with capture_logs() as entries:
            late, later = Caller(gate, path), Caller(gate, path)
            await asyncio.gather(late.task, later.task)
        site.released.set()
        await first.task
    headers = dict(late.sent[0]["headers"])
    assert (late.status, headers[b"retry-after"], headers[b"content-type"]) == (503, b"5", content_type)
    answer = late.sent[1]["body"]
    assert (orjson.loads(answer) if path.startswith("/api/") else answer) == (
        orjson.loads(body) if path.startswith("/api/") else body
    )
    assert (site.most_at_work, first.status) == (1, 200)
    assert refused_so_far() - before == 2
    assert [(entry["event"], entry["log_level"]) for entry in entries] == [
        ("pages are busy, so some are refused", "warning")
    ]


async def test_who_finds_too_many_waiting_is_refused_at_once(site: Site) -> None:
    gate = PageGate(site, places=1, patience_s=1000)
    async with patient():
        callers = [Caller(gate) for _ in range(17)]
        await site.until_at_work(1)
        one_too_many = Caller(gate)
        await one_too_many.task
        site.released.set()
        await asyncio.gather(*(caller.task for caller in callers))
    assert one_too_many.status == 503
    assert {caller.status for caller in callers} == {200}


async def test_a_body_that_is_not_there_yet_holds_no_place(site: Site) -> None:
    gate, arrives = PageGate(site, places=1), asyncio.Event()
    site.released.set()
    async with patient():
        slow = Caller(gate, body=arrives)
        quick = Caller(gate)
        await quick.task
        arrives.set()
        await slow.task
    assert (quick.status, slow.status) == (200, 200)


async def test_a_response_that_is_read_slowly_holds_no_place(site: Site) -> None:
    gate = PageGate(site, places=1)
    site.released.set()
    async with patient():
        slow = Caller(gate)
        slow.reads.clear()
        await slow.begun.wait()
        quick = Caller(gate)
        await quick.task
        slow.reads.set()
        await slow.task
    assert (quick.status, slow.status) == (200, 200)


async def test_a_view_whose_caller_has_left_holds_its_place_until_it_has_ended() -> None:
    """The thread can't be stopped, and has a connection."""
    goes_on, has_begun = threading.Event(), threading.Event()

    def view() -> None:
        has_begun.set()
        goes_on.wait(20)

    async def leave_early(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        task = asyncio.create_task(sync_to_async(view)())
        await asyncio.to_thread(has_begun.wait, 20)
        task.cancel()
        await asyncio.wait([task])

    gate = PageGate(leave_early, places=1, patience_s=1000)
    async with patient():
        gone = Caller(gate)
        await asyncio.to_thread(has_begun.wait, 20)
        gate.app = (quick := Site())
        quick.released.set()
        next_one = Caller(gate)
        # Turns of the loop in which it would get in, if it could.
        for _ in range(50):
            await asyncio.sleep(0)
        assert next_one.sent == []
        goes_on.set()
        await asyncio.gather(gone.task, next_one.task)
    assert next_one.status == 200


@pytest.mark.parametrize("fails", [False, True])
async def test_a_request_ends_without_its_connection(transactional_db: None, *, fails: bool) -> None:
    """Also where Django's handler fails, and never says that the request is over."""
    found: list[Any] = []

    def view() -> None:
        connection.ensure_connection()
        found.append((connections["default"], serves_page.get()))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await sync_to_async(view)()
        if fails:
            raise RuntimeError("nobody expected this")
        await send(START)

    async with patient():
        caller = Caller(PageGate(app, places=1))
        await asyncio.wait([caller.task])
    [(used, was_page)] = found
    assert isinstance(caller.task.exception(), RuntimeError) is fails
    assert was_page
    assert not serves_page.get()
    assert used.connection is None
