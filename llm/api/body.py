"""Reading a request's body: bounded in size and time while it comes in."""

from __future__ import annotations

import asyncio

from llm.api.asgi import Receive, Scope
from llm.errors import BodyTooLarge, RequestTimeout


class CallerLeftError(Exception):
    """The caller hung up before the request was complete: nobody is there to answer."""


async def read_body(scope: Scope, receive: Receive, *, most_bytes: int, timeout_s: float) -> bytes:
    """Raises BodyTooLarge, RequestTimeout, or CallerLeftError. What is refused is not held in memory."""
    if _announced_length(scope) > most_bytes:
        raise _too_large(most_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _receive_all(receive, most_bytes=most_bytes)
    except TimeoutError as error:
        raise RequestTimeout(f"The request body did not arrive within {timeout_s:g} seconds.") from error


async def _receive_all(receive: Receive, *, most_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise CallerLeftError
        body = message.get("body", b"")
        pieces.append(body)
        size += len(body)
        if size > most_bytes:
            raise _too_large(most_bytes)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _announced_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _too_large(most_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {most_bytes // 1024**2} MB.")
