"""A gate in front of Django's handler: bounds the number of its concurrent requests, in each process.

A request that Django serves has its own thread and connection, so enough concurrent requests would take all that the
server has. Here each takes a place once its body has arrived, and releases it when its response begins, with the
connection
closed: a slow caller holds no place. If there is none, it waits briefly, in turn with others of its kind
(`llmproject.places`). Deliberately delayed responses wait here, outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Token
from typing import Any

import structlog
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from llm import metrics
from llm.api.asgi import Receive, Scope, Send
from llm.errors import Overloaded
from llmproject.credentials import identify_claimant
from llmproject.holdback import HoldBack, current_hold_back
from llmproject.places import Claimant, PlaceRefusal, Places, Standing
from llmproject.postgresql import serves_page
from llmproject.quietlogs import Seldom
from llmproject.refusals import refusal

log = structlog.get_logger("llmproject.pages")

_OWN = "Too many requests with this {} are in flight. Wait until some have finished, then try again."
BUSY = {
    (Standing.STAFF, PlaceRefusal.ALL): "Too many requests from staff are in flight. Try again shortly.",
    (Standing.STAFF, PlaceRefusal.OWN): _OWN.format("session or token"),
    (Standing.KEY, PlaceRefusal.ALL): "Too many requests with API keys are in flight. Try again shortly.",
    (Standing.KEY, PlaceRefusal.OWN): _OWN.format("API key"),
    (Standing.STRANGER, PlaceRefusal.ALL): (
        "Too many requests are in flight that are not signed in, or whose key has not been seen before. Try again "
        "shortly."
    ),
    (Standing.STRANGER, PlaceRefusal.OWN): (
        "Too many requests are in flight from this address that are not signed in, or whose key has not been seen "
        "before. Wait until some have finished, then try again."
    ),
}
_PATIENCE_S = 5.0
_TOLD_EACH_S = 10.0

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class PageGate:
    """app: Django's handler. places: how many requests may be in it at a time."""

    def __init__(self, app: App, *, places: int, patience_s: float = _PATIENCE_S) -> None:
        self.app = app
        self.places = Places(places, patience_s=patience_s)
        self._told = Seldom(_TOLD_EACH_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _Visit(self, scope, receive, send).serve()

    def note_refusal(self, standing: Standing) -> None:
        """Each is counted, few are logged: anyone can cause them and might fill the log."""
        metrics.count_page_refused(standing.value)
        if (left_out := self._told.left_out(standing)) is not None:
            waiting = self.places.waiting
            log.warning("pages.busy", of=standing.value, waiting=waiting, left_out=left_out)


class _Visit:
    """One request on its way through the gate."""

    def __init__(self, gate: PageGate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._scope = scope
        self._receive = receive
        self._send = send
        self._refusal: PlaceRefusal | None = None
        self._claimant: Claimant | None = None
        self._has_entered = False
        self._coming: asyncio.Future[Mapping[str, Any]] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._hold_back = HoldBack()
        self._held_back: list[Mapping[str, Any]] = []

    async def serve(self) -> None:
        # Django's own context joins this one: the request's thread lives until its connection is closed.
        async with ThreadSensitiveContext():
            tokens = serves_page.set(True), current_hold_back.set(self._hold_back)
            try:
                await self._gate.app(self._scope, self._receive_and_enter, self._leave_and_send)
            finally:
                await self._leave()
                if self._coming is not None:
                    self._coming.cancel()
                _reset(*tokens)
        if self._claimant is not None and self._refusal is not None:
            await self._refuse(self._claimant.standing, self._refusal)
        if self._held_back:
            # The thread has ended too by now.
            await asyncio.sleep(self._hold_back.seconds)
            for message in self._held_back:
                await self._send(message)

    async def _receive_and_enter(self) -> Mapping[str, Any]:
        message = await self._next_message()
        is_body_there = message["type"] == "http.request" and not message.get("more_body", False)
        if is_body_there and not self._has_entered:
            self._claimant = identify_claimant(self._scope)
            await self._enter(self._claimant)
            if not self._has_entered:
                # On a disconnect, Django silently drops the request.
                return {"type": "http.disconnect"}
        return message

    async def _next_message(self) -> Mapping[str, Any]:
        coming, self._coming = self._coming, None
        return await (self._receive() if coming is None else coming)

    async def _enter(self, claimant: Claimant) -> None:
        """Also watches the caller: one that hangs up while waiting leaves the queue."""
        entering = asyncio.ensure_future(self._gate.places.enter(claimant))
        coming = self._coming = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait((entering, coming), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not entering.done():
                entering.cancel()
                # A place granted at this very moment has been released by then.
                await asyncio.wait((entering,))
            if not entering.cancelled():
                self._refusal = entering.result()
                self._has_entered = self._refusal is None

    async def _leave_and_send(self, message: Mapping[str, Any]) -> None:
        await self._leave()
        if self._hold_back.seconds:
            self._held_back.append(message)
        else:
            await self._send(message)

    async def _leave(self) -> None:
        """Once, however the request ends, and completely, even if cancelled meanwhile."""
        if not self._has_entered:
            return
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._close_and_leave())
        await asyncio.shield(self._leaving)

    async def _close_and_leave(self) -> None:
        """In the request's own thread: whatever a view is still doing there, after its caller left, finishes first."""
        try:
            await sync_to_async(connections.close_all)()
        finally:
            if self._claimant is not None:
                self._gate.places.leave(self._claimant)

    async def _refuse(self, standing: Standing, reason: PlaceRefusal) -> None:
        self._gate.note_refusal(standing)
        response = refusal(self._scope["path"], Overloaded(BUSY[standing, reason], retry_after_s=_PATIENCE_S))
        headers = [(name.lower().encode(), value.encode()) for name, value in response.items()]
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.content})


def _reset(page: Token[bool], held: Token[HoldBack | None]) -> None:
    serves_page.reset(page)
    current_hold_back.reset(held)
