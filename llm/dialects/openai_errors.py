"""Failures as OpenAI words them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import orjson

from llm.dialects.base import Rendered
from llm.enums import LimitMetric
from llm.errors import (
    GatewayError,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    UpstreamRateLimited,
)
from llm.types import LimitState

# Each reply carries them: their names are not made anew.
_LIMIT_HEADERS = tuple(
    (metric, tuple(f"x-ratelimit-{name}-{metric.value}" for name in ("limit", "remaining", "reset")))
    for metric in (LimitMetric.REQUESTS, LimitMetric.TOKENS)
)


def render_error(error: GatewayError) -> Rendered:
    return Rendered(status=error.http_status, body=_body(error), headers=retry_headers(error))


def render_stream_error(error: GatewayError) -> bytes:
    return b"data: " + _body(error) + b"\n\n"


def retry_headers(error: GatewayError) -> dict[str, str]:
    """What tells an SDK whether to try again, and when. Both SDKs obey `x-should-retry` before all else."""
    if isinstance(error, QuotaExceeded):
        return {"x-should-retry": "false"}
    headers: dict[str, str] = {}
    if error.may_have_worked:
        headers["x-should-retry"] = "false"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    return headers


def limit_headers(limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
    """Of requests and tokens each the limit that leaves least; money has no such headers in this dialect."""
    headers: dict[str, str] = {}
    for metric, (amount, remaining, reset) in _LIMIT_HEADERS:
        tightest: LimitState | None = None
        for state in limits:
            if state.metric is metric and (tightest is None or state.remaining < tightest.remaining):
                tightest = state
        if tightest is None:
            continue
        headers[amount], headers[remaining] = str(tightest.amount), str(tightest.remaining)
        if tightest.resets_at is not None:
            headers[reset] = duration_text(max(0, math.ceil((tightest.resets_at - now).total_seconds())))
    return headers


def duration_text(seconds: int) -> str:
    """6s, 1m0s, 26h3m20s: as Go writes durations, and OpenAI its resets."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _body(error: GatewayError) -> bytes:
    fields = {"message": error.message, "type": _type_of(error), "param": error.param, "code": error.code}
    return orjson.dumps({"error": fields})


def _type_of(error: GatewayError) -> str:
    if isinstance(error, QuotaExceeded):
        return "insufficient_quota"
    if isinstance(error, RateLimited | UpstreamRateLimited):
        return "rate_limit_error"
    if isinstance(error, PermissionDenied):
        return "permission_error"
    return "invalid_request_error" if error.http_status < 500 else "server_error"
