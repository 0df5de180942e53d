"""Reads a request's body: bounded in size, time and memory, without blocking the process."""

from __future__ import annotations

import asyncio
import contextlib
from codecs import BOM_UTF8

from django.http import HttpRequest

from llm.api.asgi import Receive, Scope
from llm.bodies.budget import BodyLease
from llm.bodies.process import ReadRequest, read_request_apart
from llm.bodies.turns import take_turn
from llm.dialects.json_size import MAX_VALUES, count_if_cheap
from llm.dialects.strict_json import load_counted
from llm.errors import BodyTooLarge, InvalidRequest, RequestTimeout, UnsupportedEncoding

# For unauthenticated callers; more than any of our forms needs.
ANONYMOUS_BODY_BYTES = 64 * 1024
ANONYMOUS_BODY_SECONDS = 10.0

BROKEN_BODY = "The request body is malformed: it ended early, or its chunked encoding is invalid."


class CallerLeftError(Exception):
    """The caller hung up before the request was complete, or its framing is broken: the server doesn't say which."""


async def read_body(
    scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float, lease: BodyLease | None = None
) -> bytes:
    """The body without a byte order mark. A refused body isn't kept in memory.

    Raises UnsupportedEncoding, BodyTooLarge, RequestTimeout, Overloaded, or CallerLeftError.
    """
    refuse_compressed(scope)
    announced = announced_length(scope)
    if announced > max_bytes:
        raise too_large(max_bytes)
    if lease is not None:
        lease.expect(announced)
    try:
        async with asyncio.timeout(timeout_s):
            body = await _receive_all(receive, max_bytes=max_bytes, lease=lease)
            return body.removeprefix(BOM_UTF8)
    except TimeoutError as error:
        raise too_slow(timeout_s) from error


def lease_of(request: HttpRequest) -> BodyLease | None:
    """The lease under which the body was read; None if Django's own handler read it."""
    lease: BodyLease | None = getattr(request, "body_lease", None)
    return lease


async def load_body(raw: bytes, lease: BodyLease | None, *, max_values: int = MAX_VALUES) -> ReadRequest:
    """`load_object`, in a separate process if the body is expensive to parse. Raises InvalidRequest or Overloaded.

    A body parsed here has no `members`.
    """
    await take_turn(len(raw))
    values = count_if_cheap(raw)
    if values is not None:
        _charge(lease, values)
        return ReadRequest(values, load_counted(raw, values), {})
    read = await read_request_apart(raw, max_values=max_values)
    _charge(lease, read.values)
    await take_turn(len(raw))
    return read


def _charge(lease: BodyLease | None, values: int) -> None:
    if lease is not None:
        lease.add_values(values)


async def _receive_all(receive: Receive, *, max_bytes: int, lease: BodyLease | None) -> bytes:
    # One buffer: separate chunks of a body that arrives byte by byte would take forty times its size.
    received = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise CallerLeftError
        body: bytes = message.get("body", b"")
        size = len(received) + len(body)
        if size > max_bytes:
            raise too_large(max_bytes)
        if lease is not None:
            lease.grow_to(size)
        is_last = not message.get("more_body", False)
        if is_last and not received:
            return body
        received += body
        if is_last:
            return bytes(received)


async def discard_body(receive: Receive, *, max_bytes: int, timeout_s: float) -> None:
    """Read the rest and discard it: many clients look for a response only after sending everything, and see a
    connection that is closed before as broken. For callers who may try again.
    """
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while size <= max_bytes:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def refuse_compressed(scope: Scope) -> None:
    for name, value in scope["headers"]:
        encoding = value.decode("latin-1").strip()[:40] if name == b"content-encoding" else ""
        if encoding.lower() not in ("", "identity"):
            raise UnsupportedEncoding(f"The request body is compressed (“{encoding}”). Send it uncompressed.")


def announced_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {_size_of(max_bytes)}.")


def _size_of(max_bytes: int) -> str:
    """Not rounded up: `2.5 MB`, `64 KB`."""
    megabytes = max_bytes * 10 // 1024**2 / 10
    return f"{megabytes:g} MB" if megabytes >= 1 else f"{max_bytes // 1024} KB"


def too_slow(timeout_s: float) -> RequestTimeout:
    return RequestTimeout(f"The request body did not arrive within {timeout_s:g} seconds.")


def broken() -> InvalidRequest:
    return InvalidRequest(BROKEN_BODY)
