"""In front of everything that Django serves: checks paths, hosts and bodies of unauthenticated callers.

Django reads a body to its end, into files without a bound, before any of our code runs. Here unauthenticated callers
get 64 KB and 10 seconds; more requires a session, token or key that the database knows; made-up ones are detected by
their checksum. Every refusal has the form of its path, also where Django would send no response at all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpResponse
from django.http.request import split_domain_port, validate_host

from llm import metrics
from llm.api.asgi import Receive, Scope, Send
from llm.api.body import (
    ANONYMOUS_BODY_BYTES,
    ANONYMOUS_BODY_SECONDS,
    announced_length,
    broken,
    too_large,
    too_slow,
)
from llm.calls.runtime import runtime
from llm.errors import GatewayError, InternalError, InvalidRequest, RequestError
from llmproject.credentials import identify_claimant, is_plausible, proven_standing, stranger_of
from llmproject.pagebodies import PageBodies, PageBodyLease
from llmproject.places import Claimant, Standing
from llmproject.quietlogs import Seldom
from llmproject.refusals import NO_SUCH_HOST, UNREADABLE, is_below, nothing_at, refusal

log = structlog.get_logger("llmproject.front")

_PLACES = ("/admin", "/api/v1", "/docs", "/static")


class Front:
    """app: Django's handler, or what is in front of it."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app
        self._told = Seldom()
        self.bodies = PageBodies()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = _Visit(self.bodies, scope, receive, send)
        try:
            self._check_address(scope)
            await visit.serve(self._app)
        except GatewayError as error:
            if isinstance(error, RequestError):
                metrics.count_refused(error.code)
            await visit.answer(refusal(scope["path"], error))
        except Exception as error:
            log.exception("request.failed", path=scope["path"][:200], error=type(error).__name__)
            await visit.answer(refusal(scope["path"], InternalError("Something went wrong on our side.")))

    def _check_address(self, scope: Scope) -> None:
        path = scope["path"]
        if path != "/" and not is_below(path, *_PLACES):
            raise nothing_at(path)
        try:
            scope["query_string"].decode()
        except UnicodeDecodeError:
            raise InvalidRequest(UNREADABLE) from None
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if hosts and not validate_host(split_domain_port(",".join(hosts))[0], settings.ALLOWED_HOSTS):
            self._note_wrong_host(hosts[0])
            raise InvalidRequest(NO_SUCH_HOST)

    def _note_wrong_host(self, host: str) -> None:
        """Rate-limited: anyone can send a wrong host, and an operator who has forgotten a right one must see it."""
        if (left_out := self._told.left_out()) is not None:
            log.warning("request.wrong_host", host=host[:100], left_out=left_out)


class _Visit:
    """One request and the bounds of its body."""

    def __init__(self, bodies: PageBodies, scope: Scope, receive: Receive, send: Send) -> None:
        self._bodies = bodies
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_bytes = ANONYMOUS_BODY_BYTES
        self._timeout_s = ANONYMOUS_BODY_SECONDS
        self._started = time.monotonic()
        # What it has proven, once the database was asked.
        self._standing: Standing | None = None
        self._size = 0
        self._is_complete = False
        self._has_begun = False
        self._lease: PageBodyLease | None = None

    async def serve(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        """Raises GatewayError for a body that is refused, or whose framing is broken."""
        try:
            await self._make_room(announced_length(self._scope))
            await app(self._scope, self._receive_bounded, self._send_noted)
        finally:
            if self._lease is not None:
                self._lease.release()
        if not self._has_begun:
            # Django sends no response to a caller who has left; one that only broke the framing is still connected.
            raise broken()

    async def answer(self, response: HttpResponse) -> None:
        if self._has_begun:
            return
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.items()]
        await self._send_noted({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.content})

    async def _send_noted(self, message: Mapping[str, Any]) -> None:
        if not self._has_begun:
            # Each one, including those that the log leaves out.
            metrics.count_page(message["status"])
        self._has_begun = True
        await self._send(message)

    async def _receive_bounded(self) -> Mapping[str, Any]:
        if self._is_complete:
            return await self._receive()
        message = await self._receive_in_time()
        self._size += len(message.get("body", b""))
        await self._make_room(self._size)
        if self._size:
            self._hold(self._size)
        self._is_complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _receive_in_time(self) -> Mapping[str, Any]:
        """Not by a timeout that cancels: a caller that proves itself gets more time, and no message may be lost."""
        coming = asyncio.ensure_future(self._receive())
        try:
            while True:
                left = self._started + self._timeout_s - time.monotonic()
                await asyncio.wait((coming,), timeout=max(0, left))
                if coming.done():
                    return coming.result()
                if self._standing is not None:
                    raise too_slow(self._timeout_s)
                await self._prove()
        finally:
            coming.cancel()

    async def _make_room(self, size: int) -> None:
        """Raises BodyTooLarge."""
        if size > self._max_bytes and self._standing is None:
            await self._prove()
        if size > self._max_bytes:
            raise too_large(self._max_bytes)

    def _hold(self, size: int) -> None:
        """Raises Overloaded."""
        if self._lease is None:
            self._lease = PageBodyLease(self._bodies, self._claimant())
        self._lease.grow_to(size)

    def _claimant(self) -> Claimant:
        """An ended session or token counts as staff's only until the database was asked."""
        is_stranger = self._standing is Standing.STRANGER
        return stranger_of(self._scope) if is_stranger else identify_claimant(self._scope)

    async def _prove(self) -> None:
        """Once; a proven caller gets more room and time. Raises BooksUnavailable or Overloaded.

        Not in the calls' lane: anyone can make up a plausible key.
        """
        self._standing = Standing.STRANGER
        if is_plausible(self._scope):
            self._standing = await runtime().run_side_db(lambda: proven_standing(self._scope))
        if self._lease is not None:
            self._lease.pass_to(self._claimant())
        if (max_bytes := _max_bytes_of(self._standing, self._scope["path"])) is not None:
            self._max_bytes = max_bytes
            self._timeout_s = settings.LLM_BODY_TIMEOUT_SECONDS


def _max_bytes_of(standing: Standing, path: str) -> int | None:
    """For a caller who has proven that much; None: no more than a stranger gets. An API key opens no page."""
    if standing is Standing.STRANGER:
        return None
    if is_below(path, "/api/v1"):
        # The management API reads bodies into memory, and none of them is large.
        max_bytes: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        return max_bytes
    return settings.LLM_MAX_BODY_BYTES if standing is Standing.STAFF else None
