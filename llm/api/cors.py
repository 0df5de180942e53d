"""CORS: browsers ask before a page of another origin may call the gateway, and LLM_CORS_ORIGINS decides.

Pages send their key in a header, never a cookie, so nothing that a browser sends by itself is allowed.
"""

from __future__ import annotations

from django.conf import settings

from llm.api.asgi import Headers, Scope

ANY_ORIGIN = "*"
_METHODS = b"GET, HEAD, POST, DELETE"
_MAX_AGE_S = b"600"


def cors_headers(scope: Scope) -> Headers:
    """For every response to a page of an allowed origin; empty for other origins, and for programs, which send none."""
    origin = _header(scope, b"origin")
    if not origin or not _is_allowed(origin):
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def preflight_headers(scope: Scope) -> Headers:
    """The response to a browser's preflight request; None if it isn't one, or isn't allowed."""
    allowed = cors_headers(scope)
    if scope["method"] != "OPTIONS" or not allowed or not _header(scope, b"access-control-request-method"):
        return []
    asked = _header(scope, b"access-control-request-headers")
    return [
        *allowed,
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _MAX_AGE_S),
        *([(b"access-control-allow-headers", asked)] if asked else []),
    ]


def _is_allowed(origin: bytes) -> bool:
    allowed: list[str] = settings.LLM_CORS_ORIGINS
    return ANY_ORIGIN in allowed or origin.decode("latin-1").lower() in allowed


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")
