"""How many of Django's requests are at work at a time, what holds a place, and what those are told that find none."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.db import connection, connections
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from llm import signin
from llm.api.asgi import Receive, Scope, Send
from llm.models import SignInCount
from llmproject import pagegate, sessions
from llmproject.holdback import hold_back
from llmproject.pagegate import BUSY, PageGate
from llmproject.places import Claimant, PlaceRefusal, Standing
from llmproject.postgresql import serves_page
from tests.faults.test_connections import made_up_key

App = Callable[[Scope, Receive, Send], Awaitable[None]]
CSRF = "a" * 32
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"done"}


def scope_of(path: str = "/admin/", *, address: str = "192.0.2.1", session: str = "", bearer: str = "") -> Scope:
    headers = [(b"host", b"localhost")]
    headers += [(b"cookie", f"sessionid={session}".encode())] if session else []
    headers += [(b"authorization", f"Bearer {bearer}".encode())] if bearer else []
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": (address, 40_000),
    }


class Caller:
    """One request to the gate. reads: whether it takes what is sent; body: set once its body is there."""

    def __init__(
        self,
        gate: PageGate,
        path: str = "/admin/",
        *,
        body: asyncio.Event | None = None,
        form: bytes = b"",
        **credentials: str,
    ) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.begun = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self._body = body
        self._gone = asyncio.Event()
        self._messages = [{"type": "http.request", "body": form, "more_body": False}]
        scope = scope_of(path, **credentials)
        if form:
            scope["method"] = "POST"
            scope["headers"] += [
                (b"content-type", b"application/x-www-form-urlencoded"),
                (b"content-length", str(len(form)).encode()),
                (b"cookie", f"csrftoken={CSRF}".encode()),
            ]
        self.task = asyncio.create_task(gate(scope, self._receive, self._send))

    async def _receive(self) -> Mapping[str, Any]:
        if self._body is not None:
            await self._body.wait()
        if not self._messages:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        return self._messages.pop()

    def hang_up(self) -> None:
        self._gone.set()

    async def _send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)
        self.begun.set()
        await self.reads.wait()

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status


def new_session() -> str:
    return sessions._new_key()


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


def refused_so_far(of: str = "stranger") -> float:
    return REGISTRY.get_sample_value("llm_pages_refused_total", {"of": of}) or 0.0


async def test_no_more_than_the_places_are_at_work_and_the_rest_wait_for_their_turn(site: Site) -> None:
    gate = PageGate(site, places=2)
    async with patient():
        callers = [Caller(gate, session=new_session()) for _ in range(7)]
        await site.until_at_work(2)
        site.released.set()
        await asyncio.gather(*(caller.task for caller in callers))
    assert site.most_at_work == 2
    assert [caller.sent for caller in callers] == [[START, END]] * 7


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/api/v1/calls/", b"application/json"), ("/admin/login/", b"text/html; charset=utf-8")],
)
async def test_who_finds_no_place_in_time_is_told_to_come_again(site: Site, path: str, content_type: bytes) -> None:
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
    own = BUSY[Standing.STRANGER, PlaceRefusal.OWN]
    assert (
        html.escape(own).encode() in answer if path.startswith("/admin/") else orjson.loads(answer) == {"detail": own}
    )
    assert (site.most_at_work, first.status) == (1, 200)
    assert refused_so_far() - before == 2
    assert [(entry["event"], entry["log_level"], entry["of"]) for entry in entries] == [
        ("pages.busy", "warning", "stranger")
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


async def test_who_hangs_up_while_waiting_leaves_the_queue(site: Site) -> None:
    gate = PageGate(site, places=1, patience_s=1000)
    async with patient():
        first = Caller(gate)
        await site.until_at_work(1)
        gone = [Caller(gate) for _ in range(16)]
        while gate.places.waiting < 16:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for caller in gone:
            caller.hang_up()
        await asyncio.gather(*(caller.task for caller in gone))
        assert (gate.places.waiting, gate.places._taken.total()) == (0, 1)
        site.released.set()
        await first.task
    assert {len(caller.sent) for caller in gone} == {0}
    assert (first.status, gate.places._taken.total()) == (200, 0)


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


# --- Who gets in ------------------------------------------------------------------------------------------------------


async def test_strangers_who_take_all_that_they_may_leave_places_to_staff(site: Site) -> None:
    gate = PageGate(site, places=4, patience_s=1000)
    async with patient():
        strangers = [Caller(gate, address=f"192.0.2.{number}", bearer=made_up_key(number)) for number in range(20)]
        await site.until_at_work(2)
        staff = [Caller(gate, session=new_session()) for _ in range(2)]
        await site.until_at_work(4)
        site.released.set()
        await asyncio.gather(*(caller.task for caller in (*strangers, *staff)))
    assert {caller.status for caller in (*strangers, *staff)} == {200}


@pytest.mark.parametrize(
    ("claimant", "reason", "words"),
    [
        (Claimant(Standing.STAFF, "a"), PlaceRefusal.ALL, "requests from staff are in flight"),
        (Claimant(Standing.STAFF, "a"), PlaceRefusal.OWN, "requests with this session or token"),
        (Claimant(Standing.KEY, "a"), PlaceRefusal.ALL, "requests with API keys"),
        (Claimant(Standing.KEY, "a"), PlaceRefusal.OWN, "requests with this API key"),
        (Claimant(Standing.STRANGER, "a"), PlaceRefusal.ALL, "that are not signed in"),
        (Claimant(Standing.STRANGER, "a"), PlaceRefusal.OWN, "from this address that"),
    ],
    ids=str,
)
async def test_a_refusal_says_what_there_is_too_much_of(
    site: Site, monkeypatch: pytest.MonkeyPatch, claimant: Claimant, reason: PlaceRefusal, words: str
) -> None:
    monkeypatch.setattr(pagegate, "identify_claimant", lambda scope: claimant)
    gate = PageGate(site, places=4, patience_s=0)
    for number in range(4):
        await gate.places.enter(claimant if reason is PlaceRefusal.OWN else Claimant(claimant.standing, str(number)))
    before = refused_so_far(claimant.standing)
    async with patient():
        caller = Caller(gate, "/api/v1/calls/")
        await caller.task
    assert caller.status == 503
    assert words in orjson.loads(caller.sent[1]["body"])["detail"]
    assert refused_so_far(claimant.standing) - before == 1


# --- Answers that are held back ---------------------------------------------------------------------------------------


async def test_an_answer_that_is_held_back_holds_no_place_thread_or_connection(transactional_db: None) -> None:
    found: list[Any] = []
    thread: list[threading.Thread] = []

    def view() -> None:
        connection.ensure_connection()
        found.append(connections["default"])
        thread.append(threading.current_thread())
        assert hold_back(0.3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await sync_to_async(view)()
        await send(START)
        await send(END)
        done.set()

    done, loop = asyncio.Event(), asyncio.get_running_loop()
    gate = PageGate(app, places=1, patience_s=1000)
    async with patient():
        began = loop.time()
        slowed = Caller(gate)
        await done.wait()
        gate.app = (quick := Site())
        quick.released.set()
        others = [Caller(gate) for _ in range(10)]
        await asyncio.gather(*(caller.task for caller in others))
        assert slowed.sent == []
        assert found[0].connection is None
        assert not thread[0].is_alive()
        await slowed.task
    assert loop.time() - began >= 0.3
    assert slowed.sent == [START, END]
    assert {caller.status for caller in others} == {200}


async def test_more_than_there_are_places_are_held_back_at_once(site: Site) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await sync_to_async(hold_back)(0.5)
        await send(START)

    loop = asyncio.get_running_loop()
    gate = PageGate(app, places=1, patience_s=1000)
    async with patient():
        began = loop.time()
        callers = [Caller(gate, address=f"192.0.2.{number}") for number in range(12)]
        await asyncio.gather(*(caller.task for caller in callers))
    assert {caller.status for caller in callers} == {200}
    # One after another they would take six seconds.
    assert loop.time() - began < 4


@pytest.mark.slow
async def test_a_slowed_sign_in_lets_others_pass(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Django's own handler, from the view that asks for a password to the gate."""
    monkeypatch.setattr(signin, "SLOWER_FROM", ((0, 2.0),))
    gate = PageGate(get_asgi_application(), places=1, patience_s=1000)
    async with patient():
        slowed = [Caller(gate, "/admin/login/", form=sign_in_form(), address=f"192.0.2.{each}") for each in range(3)]
        while await SignInCount.objects.filter(account="").acount() < 3:  # noqa: ASYNC110  # until all were counted
            await asyncio.sleep(0.01)
        page = Caller(gate, "/admin/login/")
        await page.task
        assert page.status == 200
        # The last of them, at least: the first may have been there for a while.
        assert slowed[-1].sent == []
        assert gate.places._taken.total() == 0
        await asyncio.gather(*(caller.task for caller in slowed))
    assert {caller.status for caller in slowed} == {200}
    assert all(b"correct username and password" in caller.sent[1]["body"] for caller in slowed)


def sign_in_form() -> bytes:
    return f"username=admin&password=wrong&csrfmiddlewaretoken={CSRF}".encode()


def test_without_a_gate_nothing_is_held_back() -> None:
    assert not hold_back(1000)
