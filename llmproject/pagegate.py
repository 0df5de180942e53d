"""A gate in front of Django's handler: a bounded number of its requests at a time, in each process.

A request that Django serves has a thread and a connection of its own, so anybody who can send many at once would take
all that the server has. Here each takes a place once its body is there, and gives it back when its response begins,
with the connection closed: a slow caller holds no place. Whoever comes when none is free waits a little, in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from llm import metrics
from llm.api.asgi import Receive, Scope, Send
from llmproject.errorpages import refusal
from llmproject.postgresql import serves_page

log = structlog.get_logger("llmproject.pages")

BUSY = "Too many pages are asked for at the moment. Try again shortly."
_WAITING_PER_PLACE = 16
_PATIENCE_S = 5.0
_TOLD_EACH_S = 10.0


class PageGate:
    """app: Django's handler. places: how many requests are at work in it at a time."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        *,
        places: int,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.app = app
        self._places = asyncio.Semaphore(places)
        self._patience_s = patience_s
        self._most_waiting = places * _WAITING_PER_PLACE
        self._waiting = 0
        self._told_at = -_TOLD_EACH_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _Visit(self, scope, receive, send).serve()

    async def enter(self) -> bool:
        """Take a place; False where none got free in time, or too many wait already."""
        if self._places.locked() and self._waiting >= self._most_waiting:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._places.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        self._places.release()

    def note_refusal(self) -> None:
        """Counted each, told now and then: whoever may cause it might fill the log."""
        metrics.count_page_refused()
        if time.monotonic() >= self._told_at + _TOLD_EACH_S:
            self._told_at = time.monotonic()
            log.warning("pages are busy, so some are refused", waiting=self._waiting)


class _Visit:
    """One request on its way through the gate."""

    def __init__(self, gate: PageGate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_refused = False
        self._has_entered = False
        self._leaving: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        # Django's own context joins this one: the request's thread lives until its connection is closed.
        async with ThreadSensitiveContext():
            token = serves_page.set(True)
            try:
                await self._gate.app(self._scope, self._receive_and_enter, self._leave_and_send)
            finally:
                await self._leave()
                serves_page.reset(token)
        if self._is_refused:
            await self._refuse()

    async def _receive_and_enter(self) -> Mapping[str, Any]:
        message = await self._receive()
        is_body_there = message["type"] == "http.request" and not message.get("more_body", False)
        if is_body_there and not self._has_entered:
            self._has_entered = await self._gate.enter()
            if not self._has_entered:
                self._is_refused = True
                # Which makes Django forget the request without a word.
                return {"type": "http.disconnect"}
        return message

    async def _leave_and_send(self, message: Mapping[str, Any]) -> None:
        await self._leave()
        await self._send(message)

    async def _leave(self) -> None:
        """Once, however the request ends, and to the end, whoever is cancelled meanwhile."""
        if not self._has_entered:
            return
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._close_and_leave())
        await asyncio.shield(self._leaving)

    async def _close_and_leave(self) -> None:
        """In the request's own thread: what a view still does there, whose caller has left, comes to its end first."""
        try:
            await sync_to_async(connections.close_all)()
        finally:
            self._gate.leave()

    async def _refuse(self) -> None:
        self._gate.note_refusal()
        response = refusal(self._scope["path"], BUSY)
        headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.content})
