"""Errors in Anthropic's form: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

Source, read 2026-11: platform.claude.com, "Errors" and "Rate limits".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from llm.dialects import reply_headers
from llm.dialects.base import Origin, Rendered
from llm.dialects.reply_headers import LimitHeaderNames, retry_headers
from llm.enums import LimitMetric
from llm.errors import GatewayError, Overloaded, QuotaExceeded, UpstreamFailed
from llm.types import LimitState

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OVERLOADED = 529

NO_THREADS = "thread_unsupported_request"
"""Anthropic's code for a request that it can't serve in a thread: its SDKs then send all messages."""

_UPSTREAM_OVERLOADED = (503, _OVERLOADED)

_LIMIT_HEADERS: LimitHeaderNames = [
    (metric, (f"{start}-limit", f"{start}-remaining", f"{start}-reset"))
    for metric in (LimitMetric.REQUESTS, LimitMetric.TOKENS)
    for start in (f"anthropic-ratelimit-{metric.value}",)
]


def render_error(error: GatewayError, *, request_id: str) -> Rendered:
    return Rendered(
        status=_status_of(error),
        body=_body(error, request_id),
        headers={**retry_headers(error), "request-id": request_id},
    )


def render_stream_error(error: GatewayError, *, request_id: str, origin: Origin) -> bytes:
    """Includes what a reply's status and headers would have said."""
    body = _body(error, request_id, {"status": _status_of(error), **origin})
    return b"event: error\ndata: " + body + b"\n\n"


def limit_headers(limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
    """A reset is a moment here, in whole seconds."""
    return reply_headers.limit_headers(limits, _LIMIT_HEADERS, lambda resets_at: rfc_3339(max(now, resets_at)))


def rfc_3339(moment: datetime) -> str:
    """In UTC, rounded up to the second, so that no caller returns too early."""
    return datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _body(error: GatewayError, request_id: str, origin: Origin | None = None) -> bytes:
    fields: dict[str, Any] = {"type": _type_of(error), "message": _message_of(error), **(origin or {})}
    if error.code == NO_THREADS:
        fields["details"] = {"error_code": NO_THREADS, "unsupported": ["thread"]}
    return orjson.dumps({"type": "error", "error": fields, "request_id": request_id})


def _message_of(error: GatewayError) -> str:
    """The message includes the field at fault, for which there is no other place."""
    if error.param is None or error.param in error.message:
        return error.message
    return f"{error.param}: {error.message}"


def _status_of(error: GatewayError) -> int:
    """A spent limit is a billing error here; an overloaded upstream has a status of its own."""
    if isinstance(error, QuotaExceeded):
        return 402
    if isinstance(error, UpstreamFailed) and error.upstream_status in _UPSTREAM_OVERLOADED:
        return _OVERLOADED
    return error.http_status


def _type_of(error: GatewayError) -> str:
    status = _status_of(error)
    if isinstance(error, Overloaded):
        return "overloaded_error"
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
