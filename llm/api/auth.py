"""Which key a request carries. Both SDKs' headers are taken on every route."""

from __future__ import annotations

from collections.abc import Iterable

from llm.errors import InvalidKey
from llm.keys import Caller, is_well_formed
from llm.runtime import Runtime

_MISSING = "No API key was sent. Send it as “Authorization: Bearer llm_…” or as “x-api-key: llm_…”."
_TWO = "Two different API keys were sent, in Authorization and in x-api-key. Send one."
_MALFORMED = "This is not one of our API keys: they begin with llm_ and have 42 characters. Check it for a typo."

Headers = Iterable[tuple[bytes, bytes]]


async def authenticate(runtime: Runtime, headers: Headers, *, must_be_fresh: bool) -> Caller:
    """Raises InvalidKey, PermissionDenied, or BooksUnavailable when it can't be known."""
    secret = secret_of(headers)
    if not is_well_formed(secret):
        raise InvalidKey(_MALFORMED)
    return await runtime.caller(secret, must_be_fresh=must_be_fresh)


def secret_of(headers: Headers) -> str:
    """The one credential of a request. Raises InvalidKey for none or for two that differ."""
    found: set[str] = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            found.add(token.strip() if scheme.lower() == "bearer" else value.decode("latin-1"))
        elif name == b"x-api-key":
            found.add(value.decode("latin-1").strip())
    found.discard("")
    if not found:
        raise InvalidKey(_MISSING)
    if len(found) > 1:
        raise InvalidKey(_TWO)
    return found.pop()
