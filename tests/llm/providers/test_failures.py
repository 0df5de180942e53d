"""What each failure of an upstream means, and what of it a caller may read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from llm.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.providers.failures import upstream_error
from llm.providers.transport import NeverSent

OWN_KEY = "our9own0upstream8key7that6nobody5must4see"


class StatusError(Exception):
    """As both SDKs raise them, and our transport: a status, the body's JSON, the response."""

    def __init__(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {body}")
        self.status_code = status
        self.body = body
        self.response = SimpleNamespace(headers=headers or {})


def failure(status: int, body: object = None, **headers: str) -> UpstreamError:
    error = StatusError(status, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return upstream_error(error, provider="openai", secret=OWN_KEY)


def openai_body(message: str, **members: Any) -> dict[str, Any]:
    """The SDK has unwrapped it already."""
    return {"message": message, "type": "invalid_request_error", **members}


def anthropic_body(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}, "request_id": "req_1"}


def caused_by(cause: Exception) -> Exception:
    """As an SDK wraps what its HTTP client raises."""
    wrapped = RuntimeError("Connection error.")
    wrapped.__cause__ = cause
    return wrapped


# --- Without an answer ------------------------------------------------------------------------------------------------

TRANSPORT = [
    (NeverSent("refused"), UpstreamUnreachable, False, True),
    (httpx2.ConnectError("somebody else's"), UpstreamFailed, True, False),
    (httpx2.ReadError("broke"), UpstreamFailed, True, False),
    (httpx2.RemoteProtocolError("what?"), UpstreamFailed, True, False),
    (httpx2.ReadTimeout("silent"), UpstreamTimeout, True, False),
    (httpx2.ConnectTimeout("somebody else's"), UpstreamTimeout, True, False),
    (TimeoutError(), UpstreamTimeout, True, False),
    (ValueError("garbage"), UpstreamFailed, True, False),
]


@pytest.mark.parametrize(("cause", "kind", "may_have_worked", "is_passing"), TRANSPORT)
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_what_happened_on_the_way(
    cause: Exception, kind: type[UpstreamError], may_have_worked: bool, is_passing: bool, is_wrapped: bool
) -> None:
    error = upstream_error(caused_by(cause) if is_wrapped else cause, provider="openai")
    assert type(error) is kind
    assert (error.may_have_worked, error.is_passing) == (may_have_worked, is_passing)
    assert (error.upstream_status, error.retry_after_s) == (None, None)


def test_an_error_of_ours_stays_as_it_is() -> None:
    ours = UpstreamRejected("Too long.")
    assert upstream_error(ours, provider="openai") is ours


# --- With one ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, openai_body("no"), anthropic_body("no")], ids=["empty", "openai", "anthropic"])
@pytest.mark.parametrize(
    ("status", "may_have_worked", "is_passing"),
    [
        (302, False, False),
        (401, False, False),
        (402, False, False),
        (403, False, False),
        (408, False, False),
        (418, False, False),
        (500, False, True),
        (501, True, False),
        (502, True, False),
        (503, False, True),
        (504, True, False),
        (524, True, False),
        (529, False, True),
    ],
)
def test_a_failure_is_told_in_our_words(status: int, may_have_worked: bool, is_passing: bool, body: object) -> None:
    error = failure(status, body)
    assert type(error) is UpstreamFailed
    assert error.message == f"The provider “openai” failed (status {status})."
    assert (error.http_status, error.code, error.upstream_status) == (502, "upstream_error", status)
    assert (error.may_have_worked, error.is_passing) == (may_have_worked, is_passing)


@pytest.mark.parametrize("make_body", [openai_body, anthropic_body], ids=["openai", "anthropic"])
@pytest.mark.parametrize(
    ("status", "http_status"), [(400, 400), (404, 404), (409, 400), (413, 413), (415, 400), (422, 422)]
)
def test_a_refusal_of_the_callers_request_is_passed_on(status: int, http_status: int, make_body: Any) -> None:
    error = failure(status, make_body("“n” must be at least 1."))
    assert type(error) is UpstreamRejected
    assert (error.message, error.http_status) == ("“n” must be at least 1.", http_status)
    assert (error.code, error.param, error.upstream_status) == ("invalid_request", None, status)
    assert (error.may_have_worked, error.is_passing) == (False, False)


def test_a_refusal_keeps_its_code_and_parameter() -> None:
    error = failure(400, openai_body("Too long.", code="context_length_exceeded", param="messages[2].content"))
    assert (error.code, error.param) == ("context_length_exceeded", "messages[2].content")


@pytest.mark.parametrize("value", [None, 7, "", "x" * 101, "line\nbreak", "naïve", ["a"], {"a": 1}])
def test_what_is_no_plain_identifier_is_no_code(value: object) -> None:
    error = failure(400, openai_body("No.", code=value, param=value))
    assert (error.code, error.param) == ("invalid_request", None)


@pytest.mark.parametrize("body", [None, "text", ["list"], {}, {"error": "text"}, {"message": None}, {"message": {}}])
def test_a_refusal_without_a_message_is_told_in_our_words(body: object) -> None:
    error = failure(400, body)
    assert type(error) is UpstreamFailed
    assert error.message == "The provider “openai” failed (status 400)."
    assert (error.upstream_status, error.may_have_worked, error.is_passing) == (400, False, False)


def test_our_rate_at_the_upstream_passes() -> None:
    error = failure(429, openai_body("slow down"), retry_after="1.5")
    assert type(error) is UpstreamRateLimited
    assert error.message == "The provider “openai” is limiting our rate. Try again shortly."
    assert (error.http_status, error.upstream_status, error.retry_after_s) == (429, 429, 1.5)
    assert (error.may_have_worked, error.is_passing) == (False, True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("3600", 3600.0),
        ("3601", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("Fri, 20 Nov 2026 12:00:00 GMT", None),
        ("", None),
    ],
)
def test_only_a_sensible_retry_after_is_taken_over(header: str, seconds: float | None) -> None:
    assert failure(429, retry_after=header).retry_after_s == seconds


def test_a_429_without_a_response_has_no_retry_after() -> None:
    error = upstream_error(SimpleStatusError(429), provider="openai")
    assert (type(error), error.retry_after_s) == (UpstreamRateLimited, None)


def test_a_spent_quota_of_ours_does_not_pass() -> None:
    error = failure(429, openai_body("You exceeded your quota", code="insufficient_quota"))
    assert type(error) is UpstreamFailed
    assert error.message == "The provider “openai” has no quota left for this gateway."
    assert (error.http_status, error.upstream_status) == (502, 429)
    assert (error.may_have_worked, error.is_passing) == (False, False)


class SimpleStatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(status_code)
        self.status_code = status_code


# --- What must not be told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_body", [openai_body, anthropic_body], ids=["openai", "anthropic"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503, 529])
def test_our_key_is_in_no_error(status: int, make_body: Any) -> None:
    body = make_body(f"Bad key {OWN_KEY}, yes {OWN_KEY}")
    body = {**body, "code": OWN_KEY, "param": f"x[{OWN_KEY}]"}
    error = failure(status, body)
    told = (str(error), repr(error), error.message, error.code, error.param)
    assert OWN_KEY not in repr(told)


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-AbCdEfGh1234567890",
        "sk-ant-api03-AbCdEfGh_1234567890-xyzAA",
        "sk_live_51abcdefghijklmnop",
        "gsk_abcdefgh12345678",
        "pk-lf-1234567890",
        "llm_0123456789abcdefghijABCDEFGHIJ",
    ],
)
def test_what_looks_like_a_key_is_struck_out(key: str) -> None:
    error = failure(400, openai_body(f"The header “{key}” is wrong; use {key}.", code=key, param=key))
    assert key not in error.message
    assert error.message.count("[redacted]") == 2
    assert (error.code, error.param) == ("invalid_request", None)


def test_a_bearer_token_is_struck_out_whatever_it_looks_like() -> None:
    assert failure(400, openai_body("You sent Authorization: Bearer abc.def")).message == (
        "You sent Authorization: Bearer [redacted]"
    )


@pytest.mark.parametrize("name", ["task_description", "risk_assessment_tool", "key_value_pairs", "llm_judge_answer"])
def test_a_name_that_only_begins_like_a_key_stays(name: str) -> None:
    error = failure(400, openai_body(f"Invalid schema for function “{name}”.", param=name))
    assert (error.message, error.param) == (f"Invalid schema for function “{name}”.", name)


def test_a_short_key_is_a_word_and_stays() -> None:
    refusal = StatusError(404, openai_body("model “ollama/llama3” not found", param="ollama"))
    error = upstream_error(refusal, provider="openai_compatible", secret="ollama")
    assert (error.message, error.param) == ("model “ollama/llama3” not found", "ollama")


@pytest.mark.parametrize("key", [OWN_KEY, "sk-" + "a" * 30 + "1234"])
def test_a_key_across_the_cut_is_struck_out_before_it(key: str) -> None:
    assert failure(400, openai_body("x" * 980 + key)).message == "x" * 980 + "[redacted]"


def test_a_long_message_is_cut() -> None:
    assert failure(400, openai_body("x" * 5000)).message == "x" * 1000
