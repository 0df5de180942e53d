from __future__ import annotations

import orjson
import pytest

from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.errors import (
    BodyTooLarge,
    BooksUnavailable,
    GatewayError,
    InternalError,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamTimeout,
)


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "headers"),
    [
        (InvalidRequest("m"), 400, "invalid_request_error", "invalid_request", {}),
        (InvalidKey("m"), 401, "invalid_request_error", "invalid_api_key", {}),
        (PermissionDenied("m"), 403, "permission_error", "permission_denied", {}),
        (NotFound("m"), 404, "invalid_request_error", "not_found", {}),
        (ModelNotFound("m"), 404, "invalid_request_error", "model_not_found", {}),
        (MethodNotAllowed("m"), 405, "invalid_request_error", "method_not_allowed", {}),
        (BodyTooLarge("m"), 413, "invalid_request_error", "request_too_large", {}),
        (
            RateLimited("m", retry_after_s=1.2),
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
            {"retry-after": "2", "retry-after-ms": "1200"},
        ),
        (
            QuotaExceeded("m", retry_after_s=3600),
            429,
            "insufficient_quota",
            "insufficient_quota",
            {"x-should-retry": "false"},
        ),
        (UpstreamRateLimited("m"), 429, "rate_limit_error", "rate_limit_exceeded", {}),
        (InternalError("m"), 500, "server_error", "internal_error", {}),
        (UpstreamFailed("m"), 502, "server_error", "upstream_error", {}),
        (
            BooksUnavailable("m"),
            503,
            "server_error",
            "books_unavailable",
            {"retry-after": "5", "retry-after-ms": "5000"},
        ),
        (
            UpstreamTimeout("m", may_have_worked=True),
            504,
            "server_error",
            "upstream_timeout",
            {"x-should-retry": "false"},
        ),
    ],
)
def test_an_error_looks_as_from_openai(
    error: GatewayError, status: int, kind: str, code: str, headers: dict[str, str]
) -> None:
    rendered = OPENAI_CHAT.render_error(error, request_id="r1")

    assert rendered.status == status
    assert rendered.content_type == "application/json"
    assert orjson.loads(rendered.body) == {"error": {"message": "m", "type": kind, "param": None, "code": code}}
    assert rendered.headers == headers


def test_an_error_names_the_field_at_fault() -> None:
    rendered = OPENAI_CHAT.render_error(InvalidRequest("m", param="messages[0].role"), request_id="r1")

    assert orjson.loads(rendered.body)["error"]["param"] == "messages[0].role"


def test_an_error_in_mid_stream_is_one_event() -> None:
    event = OPENAI_CHAT.render_stream_error(
        UpstreamFailed("Broke\noff."), request_id="r1", origin={"call_id": "c", "provider": "openai", "attempts": 2}
    )

    assert event == (
        b'data: {"error":{"message":"Broke\\noff.","type":"server_error","param":null,"code":"upstream_error",'
        b'"status":502,"call_id":"c","provider":"openai","attempts":2}}\n\n'
    )
