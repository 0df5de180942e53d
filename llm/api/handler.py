"""The gateway's own path from ASGI to a view and back: no middleware, no signals, no threads.

The order matters: path and method, then the key, then the body, then the view. Every failure is answered in the
caller's dialect. While a view runs, its caller is watched: a hang-up cancels the view, never the call.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from contextlib import aclosing
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponse, HttpResponseBase
from django.urls import Resolver404, ResolverMatch, URLResolver
from django.urls.resolvers import RegexPattern

from llm.api.asgi import Headers, Receive, Scope, Send
from llm.api.auth import authenticate
from llm.api.body import (
    ANONYMOUS_BODY_BYTES,
    ANONYMOUS_BODY_SECONDS,
    CallerLeftError,
    broken,
    discard_body,
    read_body,
)
from llm.api.cors import cors_headers, preflight_headers
from llm.api.urls import not_served, urlpatterns
from llm.api.views import AsyncAPIView, RelayResponse, count_refusal, error_response, wire_for_path
from llm.bodies.budget import BodyLease
from llm.calls.relay import Relay
from llm.calls.runtime import runtime
from llm.dialects.base import WireFormat
from llm.errors import (
    GatewayError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    describe_exception,
)
from llm.ids import uuid7
from llm.keys import Caller

log = structlog.get_logger("llm.api")


class GatewayHandler(ASGIHandler):
    """Serves the paths of `llm.api.urls`."""

    def __init__(self) -> None:
        # Django's own __init__ would load the middleware.
        self._resolver = URLResolver(RegexPattern(r"^/"), urlpatterns)
        self._matches: dict[str, ResolverMatch] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _HttpExchange(scope, receive, send)
        if preflight := preflight_headers(scope):
            await exchange.answer_preflight(preflight)
            return
        try:
            await exchange.serve(self._match(scope["path"]))
        except CallerLeftError:
            # A caller that has only broken the body's framing is still connected and gets a response.
            await exchange.refuse(broken())
        except Overloaded as error:
            await exchange.discard_body()
            await exchange.refuse(error)
        except GatewayError as error:
            await exchange.refuse(error)
        except Exception as error:  # noqa: BLE001  # the outermost edge
            # Without the exception's text, which may hold a prompt.
            log.error("request.failed", path=scope["path"], **describe_exception(error))  # noqa: TRY400
            await exchange.refuse(InternalError("Something went wrong on our side."))

    def _match(self, path: str) -> ResolverMatch | None:
        match = self._matches.get(path)
        if match is None:
            try:
                match = self._resolver.resolve(path)
            except Resolver404:
                return None
            if not match.kwargs:
                self._matches[path] = match
        return match


class _HttpExchange:
    """One HTTP request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = time.perf_counter()
        self._wire: WireFormat = wire_for_path(scope["path"])
        self._has_begun = False
        self._caller: Caller | None = None

    async def serve(self, match: ResolverMatch | None) -> None:
        scope = self._scope
        if match is None:
            raise NotFound(not_served(scope["path"]))
        view: type[AsyncAPIView] = match.func.cls  # type: ignore[attr-defined]  # set by APIView.as_view
        self._wire = view.wire_for(scope["headers"])
        if scope["method"] not in view.methods():
            raise MethodNotAllowed.of(scope["method"], allowed=view.methods())
        caller = None
        if view.requires_key:
            must_be_fresh = not view.opens_calls
            caller = self._caller = await authenticate(runtime(), scope["headers"], must_be_fresh=must_be_fresh)
        bodies = runtime().bodies if caller else runtime().other_bodies
        lease = bodies.lease(caller.key_id, caller.account_id) if caller else bodies.lease(None, None)
        try:
            request = _request(scope, await self._read_body(lease, is_anonymous=caller is None))
            request.caller = caller  # type: ignore[attr-defined]  # AsyncAPIView copies it to request.auth
            request.body_lease = lease  # type: ignore[attr-defined]  # for the call, which may outlive this request
            await self._respond_while_watched(match, request)
            # The view and its request refer to each other: until a collection they would keep the body too.
            request._body = b""
            request._stream.close()
        finally:
            lease.release()

    async def _read_body(self, lease: BodyLease, *, is_anonymous: bool) -> bytes:
        return await read_body(
            self._scope,
            self._receive,
            max_bytes=ANONYMOUS_BODY_BYTES if is_anonymous else settings.LLM_MAX_BODY_BYTES,
            timeout_s=ANONYMOUS_BODY_SECONDS if is_anonymous else settings.LLM_BODY_TIMEOUT_SECONDS,
            lease=lease,
        )

    async def answer_preflight(self, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": 204, "headers": headers})
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, error: GatewayError) -> None:
        """Does nothing once the response has begun: then its stream has reported the error."""
        request_id = f"req_{uuid7().hex}"
        count_refusal(error, self._caller, request_id=request_id)
        if not self._has_begun:
            await self._send_response(error_response(error, self._wire, request_id=request_id))

    async def discard_body(self) -> None:
        await discard_body(self._receive, max_bytes=settings.LLM_MAX_BODY_BYTES, timeout_s=ANONYMOUS_BODY_SECONDS)

    async def _respond_while_watched(self, match: ResolverMatch, request: ASGIRequest) -> None:
        watch = _DisconnectWatch(self._receive, asyncio.current_task())
        try:
            await self._send_response(await match.func(request, *match.args, **match.kwargs))
        except asyncio.CancelledError:
            if not watch.has_fired:
                raise
        finally:
            watch.stop()

    async def _send_response(self, response: HttpResponseBase) -> None:
        headers = [(_header_name(name), value.encode("latin-1")) for name, value in response.items()]
        if name := self._wire.duration_header:
            headers.append((_header_name(name), str(int((time.perf_counter() - self._started) * 1000)).encode()))
        headers += cors_headers(self._scope)
        self._has_begun = True
        start: Mapping[str, Any] = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        if isinstance(response, RelayResponse):
            await self._send_stream(start, response.relay)
            return
        await self._send(start)
        if isinstance(response, HttpResponse):
            body = b"" if self._scope["method"] == "HEAD" else response.content
            await self._send({"type": "http.response.body", "body": body})

    async def _send_stream(self, start: Mapping[str, Any], relay: Relay) -> None:
        """Sends from the relay directly: Django's response would add a layer per chunk, and signals at its end.

        However it ends, the relay is told, even if the headers couldn't be sent.
        """
        try:
            await self._send(start)
            async with aclosing(aiter(relay)) as pieces:
                async for piece in pieces:
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            relay.leave()


class _DisconnectWatch:
    """Cancels a task when its caller hangs up; a task that ends first stops it."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any] | None) -> None:
        self.has_fired = False
        self._task = task
        self._listener = asyncio.ensure_future(receive())
        self._listener.add_done_callback(self._fire)

    def stop(self) -> None:
        self._listener.remove_done_callback(self._fire)
        self._listener.cancel()

    def _fire(self, listener: asyncio.Future[Any]) -> None:
        if not listener.cancelled() and listener.exception() is None:
            self.has_fired = True
            if self._task is not None:
                self._task.cancel()


@cache
def _header_name(name: str) -> bytes:
    """In ASGI's form, cached: names are the gateway's own and few."""
    return name.lower().encode("ascii")


def _request(scope: Scope, body: bytes) -> ASGIRequest:
    try:
        request = ASGIRequest(scope, io.BytesIO(body))
    except UnicodeDecodeError as error:
        raise InvalidRequest("The request line or a header is not valid text.") from error
    request._body = body
    return request
