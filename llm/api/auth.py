"""Which key a request carries. Every SDK's header is accepted on every route."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llm.calls.runtime import Runtime
from llm.errors import InvalidKey
from llm.keys import Caller, is_well_formed

_MISSING = "No API key was sent. Send it as “Authorization: Bearer llm_…” or as “x-api-key: llm_…”."
_TWO = "Two different API keys were sent, in Authorization, x-api-key or api-key. Send one."
_MALFORMED = "This is not one of our API keys: they begin with llm_ and have 42 characters. Check it for a typo."

# OpenAI's header, Anthropic's, Azure's.
_AUTHORIZATION = b"authorization"
_KEY_HEADERS = (b"x-api-key", b"api-key")

# API keys, and staff tokens, old and new.
_LOOKS_LIKE_OURS = re.compile(r"(?:token\s+)?(?:llmt?_|[0-9a-f]{40}\Z)", re.IGNORECASE)

Headers = Iterable[tuple[bytes, bytes]]


async def authenticate(runtime: Runtime, headers: Headers, *, must_be_fresh: bool) -> Caller:
    """Raises InvalidKey or PermissionDenied, or BooksUnavailable if the database can't be asked."""
    secret = read_secret(headers)
    if not is_well_formed(secret):
        raise InvalidKey(_MALFORMED)
    return await runtime.caller(secret, must_be_fresh=must_be_fresh)


def read_secret(headers: Headers) -> str:
    """The one credential of a request: a proxy's own credential beside one of our keys is ignored.

    Raises InvalidKey for none, or for two different ones that are both ours, or neither.
    """
    found: set[str] = set()
    for name, value in headers:
        if name == _AUTHORIZATION:
            scheme, _, token = value.decode("latin-1").partition(" ")
            found.add(token.strip() if scheme.lower() == "bearer" else value.decode("latin-1"))
        elif name in _KEY_HEADERS:
            found.add(value.decode("latin-1").strip())
    found.discard("")
    if not found:
        raise InvalidKey(_MISSING)
    if len(found) > 1:
        found = {secret for secret in found if _LOOKS_LIKE_OURS.match(secret)} or found
    if len(found) > 1:
        raise InvalidKey(_TWO)
    return found.pop()
