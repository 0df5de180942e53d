"""What each failure of an upstream means, and what of it a caller may read."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import time_machine

from llm.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.providers.failures import error_in_reply, upstream_error
from llm.providers.refusals import OPERATOR_OPENINGS
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
        (408, False, True),
        (418, False, False),
        (500, True, False),
        (501, False, False),
        (502, True, False),
        (503, False, True),
        (504, True, False),
        (520, True, False),
        (521, False, True),
        (522, True, False),
        (523, False, True),
        (524, True, False),
        (525, False, False),
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
    ("status", "http_status"), [(400, 400), (404, 404), (409, 409), (413, 413), (415, 415), (422, 422)]
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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "No such field."}, "No such field."),
        ({"detail": [{"loc": ["body", "x"], "msg": "extra", "type": "extra"}]}, "body.x: extra"),
        ({"detail": [{"loc": ["body", "x"], "msg": "extra"}, {"msg": "short"}]}, "body.x: extra; short"),
        ({"error": "model too small"}, "model too small"),
        ({"error": {"message": "No.", "code": 400}}, "No."),
        ({"errors": [{"message": "No."}, "Nor this."]}, "No.; Nor this."),
        ({"object": "error", "message": {"detail": [{"loc": ["body"], "msg": "No."}]}}, "body: No."),
        ({"title": "Bad", "status": 400}, "Bad"),
        ([{"error": {"message": "No.", "status": "INVALID_ARGUMENT"}}], "No."),
        ("text", "text"),
    ],
)
@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_refusal_in_another_shape_keeps_its_status_and_words(status: int, body: object, words: str) -> None:
    error = failure(status, body)
    assert type(error) is UpstreamRejected
    assert (error.message, error.http_status, error.upstream_status) == (words, status, status)
    assert (error.may_have_worked, error.is_passing) == (False, False)


@pytest.mark.parametrize("body", [None, [], {}, {"message": None}, {"message": {}}, 7])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_without_a_word_keeps_its_status(status: int, body: object) -> None:
    error = failure(status, body)
    assert type(error) is UpstreamRejected
    assert error.message == f"The provider “openai” refused the request (status {status})."
    assert (error.http_status, error.may_have_worked, error.is_passing) == (status, False, False)


def test_a_404_without_a_word_is_a_wrong_address_of_ours() -> None:
    error = failure(404, None)
    assert type(error) is UpstreamFailed
    assert (error.http_status, error.upstream_status, error.may_have_worked) == (502, 404, False)


@pytest.mark.parametrize(
    ("provider", "status", "body", "fault"),
    [
        ("openai", 401, None, "key"),
        ("openai", 402, None, "credit"),
        ("openai", 403, openai_body("no"), "account"),
        ("openai", 429, openai_body("x", code="insufficient_quota"), "credit"),
        ("openai", 429, openai_body("x", type="insufficient_quota"), "credit"),
        ("openai", 400, openai_body("x", code="billing_hard_limit_reached"), "credit"),
        ("openai", 429, openai_body("x", code="billing_not_active"), "credit"),
        ("openai", 400, openai_body("Billing hard limit has been reached"), "credit"),
        ("openai", 400, openai_body("x", code="account_deactivated"), "account"),
        ("anthropic", 400, anthropic_body("Your credit balance is too low to access the Anthropic API."), "credit"),
        ("anthropic", 400, anthropic_body("You have reached your specified API usage limits."), "credit"),
        ("anthropic", 400, anthropic_body("This organization has been disabled."), "account"),
        ("openai_compatible", 400, {"error": "Incorrect API key provided: na***ys."}, "key"),
        ("openai_compatible", 400, {"error": {"message": "API key not valid.", "details": []}}, "key"),
        ("openai_compatible", 400, {"error": {"message": "x", "details": [{"reason": "API_KEY_INVALID"}]}}, "key"),
        ("mine", 400, anthropic_body("Your credit balance is too low"), "credit"),
    ],
)
def test_what_the_operator_has_to_see_to_is_ours(provider: str, status: int, body: object, fault: str) -> None:
    error = upstream_error(StatusError(status, body), provider=provider)
    assert type(error) is UpstreamFailed
    assert error.message == f"The provider “{provider}” does not accept this gateway's account."
    assert (error.operator_fault, error.http_status, error.upstream_status) == (fault, 502, status)
    assert (error.may_have_worked, error.is_passing) == (False, False)


@pytest.mark.parametrize("words", ["He said: your credit balance is too low", "credit", "your billing"])
def test_words_that_only_mention_credit_stay_the_callers(words: str) -> None:
    error = failure(400, openai_body(words))
    assert (type(error), error.message, error.operator_fault) == (UpstreamRejected, words, "")


@pytest.mark.parametrize("provider", sorted(OPERATOR_OPENINGS))
def test_openings_are_looked_for_in_lower_case(provider: str) -> None:
    assert all(opening == opening.lower() for opening in OPERATOR_OPENINGS[provider])


@pytest.mark.parametrize(
    ("status", "body", "is_of_target"),
    [
        (404, openai_body("x", code="model_not_found"), True),
        (400, openai_body("x", code="model_not_found"), True),
        (400, openai_body("x", code="context_length_exceeded"), True),
        (400, anthropic_body("prompt is too long: 210000 tokens > 200000 maximum"), True),
        (400, openai_body("This model's maximum context length is 8192 tokens."), True),
        (400, openai_body("x", code="unsupported_value"), True),
        (413, None, True),
        (400, openai_body("x", code="invalid_value"), False),
        (422, {"detail": "extra"}, False),
    ],
)
def test_a_refusal_of_this_target_alone_is_told_apart(status: int, body: object, is_of_target: bool) -> None:
    error = failure(status, body)
    assert isinstance(error, UpstreamRejected)
    assert error.is_of_target is is_of_target


@pytest.mark.parametrize(
    ("body", "kind", "http_status", "may_have_worked"),
    [
        ({"error": {"code": 429, "message": "slow"}}, UpstreamRateLimited, 429, False),
        ({"error": {"code": 400, "message": "No."}}, UpstreamRejected, 400, False),
        ({"error": {"code": "404", "message": "No."}}, UpstreamRejected, 404, False),
        ({"error": {"code": 402, "message": "Insufficient credits"}}, UpstreamFailed, 502, False),
        ({"error": {"code": 502, "message": "broke"}}, UpstreamFailed, 502, True),
        ({"error": {"type": "server_error", "message": "broke"}}, UpstreamFailed, 502, True),
        ({"error": "words"}, UpstreamRejected, 400, False),
        ({"error": {"message": "words"}}, UpstreamRejected, 400, False),
        ({"detail": "words"}, UpstreamRejected, 400, False),
        ({"detail": [{"loc": ["body", "x"], "msg": "extra"}]}, UpstreamRejected, 400, False),
        ({"detail": "words", "status": 422}, UpstreamRejected, 422, False),
        ({"message": "words", "status_code": "404"}, UpstreamRejected, 404, False),
        ({"message": "words"}, UpstreamRejected, 400, False),
        ({"error": "Insufficient credits"}, UpstreamFailed, 502, False),
        ([{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "No."}}], UpstreamRejected, 400, False),
        ({"error": "words", "usage": {"prompt_tokens": 3, "completion_tokens": 0}}, UpstreamRejected, 400, True),
        ({"error": "words", "usage": {"prompt_tokens": 0, "completion_tokens": 0}}, UpstreamRejected, 400, False),
        ({"error": {"type": "invalid_request_error", "message": "No."}}, UpstreamRejected, 400, False),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, UpstreamFailed, 502, False),
    ],
)
def test_an_error_inside_a_200_means_what_its_status_would(
    body: object, kind: type[UpstreamError], http_status: int, may_have_worked: bool
) -> None:
    error = error_in_reply(body, provider="openai_compatible")
    assert error is not None
    assert type(error) is kind
    assert (error.http_status, error.upstream_status, error.may_have_worked) == (http_status, 200, may_have_worked)


@pytest.mark.parametrize(
    "body",
    [
        *(None, [], {}, "x", {"error": None}, {"error": True}, {"error": {"code": 7}}, {"detail": {}}, {"message": ""}),
        {"message": {"role": "assistant", "content": "It failed."}},
        {"object": "chat.completion", "choices": [{"message": {"content": "x"}}], "message": "words"},
        {"type": "message_start", "message": {"id": "msg_1"}},
    ],
)
def test_an_error_inside_a_200_that_names_no_kind_is_none_that_we_know(body: object) -> None:
    assert error_in_reply(body, provider="openai_compatible") is None


def test_our_rate_at_the_upstream_passes() -> None:
    error = failure(429, openai_body("slow down"), retry_after="1.5")
    assert type(error) is UpstreamRateLimited
    assert error.message == "The provider “openai” is rate-limiting this gateway. Try again shortly."
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
        ("1_0", None),
        (" 7 ", 7.0),
        ("٣", None),
        ("soon", None),
        ("", None),
        # An HTTP date, and what only looks like one.
        ("Mon, 30 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 30 Nov 2026 13:00:30 +0100", 30.0),
        ("Mon, 30 Nov 2026 11:59:59 GMT", None),
        ("Mon, 30 Nov 2026 13:00:01 GMT", None),
        ("Mon, 30 Feb 2026 12:00:30 GMT", None),
        ("Mon, 30 Nov 99999 12:00:30 GMT", None),
    ],
)
@time_machine.travel("2026-11-30T12:00:00Z", tick=False)
def test_only_a_sensible_retry_after_is_taken_over(header: str, seconds: float | None) -> None:
    assert failure(429, retry_after=header).retry_after_s == seconds


@pytest.mark.parametrize(
    ("milliseconds", "after", "seconds"),
    [("1500", "9", 1.5), ("0", "9", 0.0), ("nan", "9", 9.0), ("-5", "9", 9.0), ("3600001", "9", 9.0), ("x", "y", None)],
)
def test_milliseconds_go_before_seconds_where_they_are_sensible(
    milliseconds: str, after: str, seconds: float | None
) -> None:
    assert failure(429, retry_after_ms=milliseconds, retry_after=after).retry_after_s == seconds


def test_a_429_without_a_response_has_no_retry_after() -> None:
    error = upstream_error(SimpleStatusError(429), provider="openai")
    assert (type(error), error.retry_after_s) == (UpstreamRateLimited, None)


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


def _encoded(text: str, offset: int) -> str:
    return base64.b64encode(b"x" * offset + text.encode() + b"yz").decode()


PREFIXED = "sk-proj-Our9Own0Upstream8Key7That6Nobody5Must4See"


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_our_key_in_base64_is_struck_out_however_it_is_aligned(offset: int) -> None:
    told = _encoded(PREFIXED, offset)
    refusal = StatusError(400, openai_body(f"Bad header {told}.", code=told[:100], param=told[:100], type=told))
    error = upstream_error(refusal, provider="openai", secret=PREFIXED)
    assert told not in error.message
    assert error.message.count("[redacted]") == 1
    for start in range(len(told) - 20):
        assert told[start : start + 20] not in error.message.replace(f"Bad header {told[:4]}", "")
    assert (error.code, error.param) == ("invalid_request", None)


@pytest.mark.parametrize("shown", [PREFIXED, PREFIXED[3:], PREFIXED[8:]])
def test_our_key_without_its_prefix_is_struck_out(shown: str) -> None:
    refusal = StatusError(400, openai_body(f"Bad key {shown}!", code=shown, param=f"x.{shown}"))
    error = upstream_error(refusal, provider="openai", secret=PREFIXED)
    assert error.message == "Bad key [redacted]!"
    assert (error.code, error.param) == ("invalid_request", None)
