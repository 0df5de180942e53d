"""Reading a request's body: bounded in size, time and memory while it comes in, and without holding up the process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from django.http import HttpRequest

from llm.api.asgi import Receive, Scope
from llm.api.bodycheck import load_apart
from llm.bodies import BodyLease
from llm.dialects.json_size import count_values
from llm.dialects.strict_json import load_counted
from llm.errors import BodyTooLarge, InvalidRequest, RequestTimeout

# Whoever has proven nothing gets this much, which is more than any form of ours needs.
ANONYMOUS_BODY_BYTES = 64 * 1024
ANONYMOUS_BODY_SECONDS = 10.0
# Above it the checks of a body, a few milliseconds for each megabyte, would be felt by other streams.
LARGE_BODY_BYTES = 4 * 1024**2

BROKEN_BODY = "The request body is broken: it ended early, or its chunks are not as HTTP has them."


class CallerLeftError(Exception):
    """The caller hung up before the request was complete, or its framing is broken: the server can't tell us which."""


async def read_body(
    scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float, lease: BodyLease | None = None
) -> bytes:
    """Raises BodyTooLarge, RequestTimeout, Overloaded, or CallerLeftError. What is refused is not held in memory."""
    announced = announced_length(scope)
    if announced > max_bytes:
        raise too_large(max_bytes)
    if lease is not None:
        lease.grow_to(announced)
    try:
        async with asyncio.timeout(timeout_s):
            return await _receive_all(receive, max_bytes=max_bytes, lease=lease)
    except TimeoutError as error:
        raise too_slow(timeout_s) from error


def lease_of(request: HttpRequest) -> BodyLease | None:
    """The one that its body was read under; None where Django's own handler read it."""
    lease: BodyLease | None = getattr(request, "body_lease", None)
    return lease


async def load_body(raw: bytes, lease: BodyLease | None) -> dict[str, Any]:
    """`load_object`, of a large one in a process of its own. Raises InvalidRequest or Overloaded."""
    if len(raw) <= LARGE_BODY_BYTES:
        _charge(lease, count_values(raw))
        return load_counted(raw)
    values, body = await load_apart(raw)
    _charge(lease, values)
    return body


def _charge(lease: BodyLease | None, values: int) -> None:
    if lease is not None:
        lease.add_values(values)


async def _receive_all(receive: Receive, *, max_bytes: int, lease: BodyLease | None) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise CallerLeftError
        body = message.get("body", b"")
        pieces.append(body)
        size += len(body)
        if size > max_bytes:
            raise too_large(max_bytes)
        if lease is not None:
            lease.grow_to(size)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def discard_body(receive: Receive, *, max_bytes: int, timeout_s: float) -> None:
    """Read on without keeping anything: many clients look for an answer only once all is sent, and a connection that is
    closed while they send is a broken one to them. For callers who are welcome to try again.
    """
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while size <= max_bytes:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def announced_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def too_large(max_bytes: int) -> BodyTooLarge:
    size = f"{max_bytes // 1024**2} MB" if max_bytes >= 1024**2 else f"{max_bytes // 1024} KB"
    return BodyTooLarge(f"The request body is larger than {size}.")


def too_slow(timeout_s: float) -> RequestTimeout:
    return RequestTimeout(f"The request body did not arrive within {timeout_s:g} seconds.")


def broken() -> InvalidRequest:
    return InvalidRequest(BROKEN_BODY)
