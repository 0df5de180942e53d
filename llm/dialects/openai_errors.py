"""Failures as OpenAI words them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import math

import orjson

from llm.dialects.base import Rendered
from llm.errors import (
    GatewayError,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    UpstreamRateLimited,
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
