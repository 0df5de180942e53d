"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import orjson

from llm.dialects import reply_headers
from llm.dialects.base import Origin, Rendered
from llm.dialects.reply_headers import LimitHeaderNames, retry_headers
from llm.enums import LimitMetric
from llm.errors import (
    GatewayError,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    UpstreamRateLimited,
)
from llm.types import LimitState

# Every reply carries these, so the names are built once.
_LIMIT_HEADERS: LimitHeaderNames = [
    (
        metric,
        (
            f"x-ratelimit-limit-{metric.value}",
            f"x-ratelimit-remaining-{metric.value}",
            f"x-ratelimit-reset-{metric.value}",
        ),
    )
    for metric in (LimitMetric.REQUESTS, LimitMetric.TOKENS)
]


def render_error(error: GatewayError) -> Rendered:
    return Rendered(status=error.http_status, body=_body(error), headers=retry_headers(error))


def render_stream_error(error: GatewayError, origin: Origin) -> bytes:
    return b"data: " + orjson.dumps({"error": stream_error_object(error, origin)}) + b"\n\n"


def limit_headers(limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
    """A reset is a duration here."""
    return reply_headers.limit_headers(
        limits,
        _LIMIT_HEADERS,
        lambda resets_at: duration_text(max(0, math.ceil((resets_at - now).total_seconds()))),
    )


def duration_text(seconds: int) -> str:
    """6s, 1m0s, 26h3m20s: durations in Go's form, as in OpenAI's resets."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def error_object(error: GatewayError) -> dict[str, str | None]:
    return {"message": error.message, "type": _type_of(error), "param": error.param, "code": error.code}


def stream_error_object(error: GatewayError, origin: Origin) -> dict[str, str | int | None]:
    """Includes what a reply's status and headers would have said."""
    return {**error_object(error), "status": error.http_status, **origin}


def _body(error: GatewayError) -> bytes:
    return orjson.dumps({"error": error_object(error)})


def _type_of(error: GatewayError) -> str:
    if isinstance(error, QuotaExceeded):
        return "insufficient_quota"
    if isinstance(error, RateLimited | UpstreamRateLimited):
        return "rate_limit_error"
    if isinstance(error, PermissionDenied):
        return "permission_error"
    return "invalid_request_error" if error.http_status < 500 else "server_error"
