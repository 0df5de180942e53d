from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.enums import LimitMetric
from llm.errors import (
    BodyTooLarge,
    BooksUnavailable,
    GatewayError,
    InternalError,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamTimeout,
)
from llm.types import LimitState


def upstream_failed(status: int) -> UpstreamFailed:
    error = UpstreamFailed("m")
    error.upstream_status = status
    return error


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("m"), 400, "invalid_request_error"),
        (InvalidKey("m"), 401, "authentication_error"),
        (QuotaExceeded("m"), 402, "billing_error"),
        (PermissionDenied("m"), 403, "permission_error"),
        (ModelNotFound("m"), 404, "not_found_error"),
        (MethodNotAllowed("m"), 405, "invalid_request_error"),
        (BodyTooLarge("m"), 413, "request_too_large"),
        (UpstreamRejected("m", http_status=422), 422, "invalid_request_error"),
        (RateLimited("m"), 429, "rate_limit_error"),
        (InternalError("m"), 500, "api_error"),
        (UpstreamFailed("m"), 502, "api_error"),
        (upstream_failed(529), 529, "overloaded_error"),
        (upstream_failed(503), 529, "overloaded_error"),
        (BooksUnavailable("m"), 503, "api_error"),
        (Overloaded("m"), 503, "overloaded_error"),
        (UpstreamTimeout("m"), 504, "timeout_error"),
    ],
)
def test_an_error_in_anthropics_words(error: GatewayError, status: int, kind: str) -> None:
    rendered = ANTHROPIC_MESSAGES.render_error(error, request_id="req_1")
    assert rendered.status == status
    assert orjson.loads(rendered.body) == {
        "type": "error",
        "error": {"type": kind, "message": "m"},
        "request_id": "req_1",
    }
    assert rendered.headers["request-id"] == "req_1"


def test_the_field_at_fault_is_in_the_message() -> None:
    for message in ("Must be text.", "'system[0]' must be text."):
        rendered = ANTHROPIC_MESSAGES.render_error(InvalidRequest(message, param="system[0]"), request_id="r")
        assert "system[0]" in orjson.loads(rendered.body)["error"]["message"]


def test_a_spent_quota_is_not_tried_again() -> None:
    rendered = ANTHROPIC_MESSAGES.render_error(QuotaExceeded("m", retry_after_s=99), request_id="r")
    assert rendered.headers == {"x-should-retry": "false", "request-id": "r"}


def test_an_error_in_mid_stream_is_an_event() -> None:
    event = ANTHROPIC_MESSAGES.render_stream_error(
        UpstreamFailed("Broke\noff."), request_id="r1", origin={"call_id": "c", "provider": "openai", "attempts": 2}
    )
    assert event == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"Broke\\noff.",'
        b'"status":502,"call_id":"c","provider":"openai","attempts":2},'
        b'"request_id":"r1"}\n\n'
    )


def test_limits_are_told_as_anthropics_sdk_expects_them() -> None:
    now = datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC)
    resets_at = datetime(2026, 11, 30, 12, 0, 59, 1, tzinfo=UTC)
    limits = [
        LimitState(LimitMetric.REQUESTS, 100, 40, resets_at),
        LimitState(LimitMetric.REQUESTS, 50, 30, now.replace(hour=11)),
        LimitState(LimitMetric.TOKENS, 1000, 900, resets_at),
        LimitState(LimitMetric.TOKENS, 5000, 5000, None),
        LimitState(LimitMetric.COST, 1, 1, None),
    ]
    assert ANTHROPIC_MESSAGES.limit_headers(limits, now=now) == {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "30",
        "anthropic-ratelimit-requests-reset": "2026-11-30T12:00:00Z",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "900",
        "anthropic-ratelimit-tokens-reset": "2026-11-30T12:01:00Z",
    }
    assert ANTHROPIC_MESSAGES.limit_headers(limits[-1:], now=now) == {}
