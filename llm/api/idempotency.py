"""The header by which a caller marks a request as a repetition of an earlier one."""

from __future__ import annotations

import asyncio
import hashlib
import re

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest

from llm.books.operations import Claim
from llm.errors import InvalidRequest

HEADER = "Idempotency-Key"

_NAME = HEADER.lower().encode()
_IS_KEY = re.compile(rb"[\x21-\x7e]{1,255}")
_HASHED_AT_ONCE_BYTES = 1024**2
"""Hashing more would block the other calls of the process."""


def read_idempotency_key(request: HttpRequest) -> bytes | None:
    """None for a request without the header. Raises InvalidRequest."""
    value = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if value is None:
        return None
    # Django joins repeated headers.
    if isinstance(request, ASGIRequest):
        found = [each for name, each in request.scope["headers"] if name.lower() == _NAME]
    else:
        found = [value.encode("latin-1")]
    if len(found) != 1:
        raise InvalidRequest(f"{HEADER} was sent {len(found)} times. Send it once.", param=HEADER)
    if not _IS_KEY.fullmatch(found[0]):
        raise InvalidRequest(f"{HEADER} must be 1 to 255 visible ASCII characters, without spaces.", param=HEADER)
    return bytes(found[0])


async def build_claim(key: bytes, path: str, body: bytes) -> Claim:
    if len(body) > _HASHED_AT_ONCE_BYTES:
        content_hash = await asyncio.to_thread(_content_hash, path, body)
    else:
        content_hash = _content_hash(path, body)
    return Claim(hashlib.sha256(key).hexdigest(), content_hash)


def _content_hash(path: str, body: bytes) -> str:
    content = hashlib.sha256(path.encode() + b"\n")
    content.update(body)
    return content.hexdigest()
