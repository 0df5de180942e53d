"""Whose fault a refusal of an upstream is: the caller hears its words, or staff are told and a fallback tries."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import openai
import orjson
import pytest

from llm.alerts.outbox import send_due
from llm.audit import verify
from llm.models import Outbox
from tests.books import closed_usage
from tests.e2e.callers import CHAT, Application, error_of, text_of
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Recording, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

SAID = "You said: hello there"
UPSTREAM_KEY = "sk-test-our-own-upstream-key-0123456789"


# --- Other shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 413, 422])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": [{"loc": ["body", "x"], "msg": "extra"}]}, "body.x: extra"),
        ({"detail": "extra"}, "extra"),
        ({"error": "model requires more memory"}, "model requires more memory"),
    ],
)
def test_a_refusal_in_another_shape_keeps_its_status_and_words(
    application: Application, upstream: FakeUpstream, body: Any, words: str, status: int, is_stream: bool
) -> None:
    upstream.enqueue(Script(status=status, body=orjson.dumps(body)))
    reply = application.chat(stream=is_stream)
    assert (reply.status_code, error_of(reply)["message"]) == (status, words)
    [row] = closed_usage()
    assert (row.status, row.outcome, row.upstream_status, row.cost) == (
        "settled",
        "upstream_refused",
        status,
        Decimal(0),
    )
    assert len(upstream.ledger.entries()) == 1


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize("status", [400, 404, 409, 413, 415, 422])
def test_a_refusal_in_plain_text_keeps_its_status_and_words_without_our_key(
    application: Application, upstream: FakeUpstream, status: int, path: str
) -> None:
    words = f"max_tokens is too large for this model. Authorization: Bearer {UPSTREAM_KEY}"
    upstream.enqueue(Script(status=status, body=f"{words}\n".encode(), content_type="text/plain; charset=utf-8"))
    reply = application.chat(path=path)
    message = reply.json()["error"]["message"]
    assert (reply.status_code, message) == (
        status,
        "max_tokens is too large for this model. Authorization: Bearer [redacted]",
    )


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<html><body>Bad request of you</body></html>"),
        ("text/html", b"Bad request of you"),
        ("text/plain", b"<!doctype html><p>Bad request of you</p>"),
        ("text/plain", b"404 page not found\n"),
        ("text/plain", b"Bad Request"),
        ("text/plain", b"words " * 200),
    ],
)
def test_a_page_a_bare_status_or_a_long_text_is_nobodys_words(
    application: Application, upstream: FakeUpstream, content_type: str, body: bytes, path: str
) -> None:
    for status, seen in ((400, 400), (404, 502)):
        upstream.enqueue(Script(status=status, body=body, content_type=content_type))
        reply = application.chat(path=path)
        message = reply.json()["error"]["message"]
        assert reply.status_code == seen
        assert message.endswith(f"(status {status}).")
        assert "ords" not in message
        assert "equest of you" not in message


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize(
    "named",
    [
        {"metadata": {"reasons": ["violence"], "flagged_input": "hello", "provider_name": "x", "model_slug": "y"}},
        {"metadata": {"flagged_input": "hello"}},
        {"type": "content_policy_violation"},
    ],
)
def test_input_that_moderation_flags_is_the_callers_and_no_other_target_gets_it(
    application: Application, upstream: FakeUpstream, named: Any, path: str
) -> None:
    make_route("alias", ("openai", "gpt-4o"), ("openai", "gpt-4o-mini"))
    body = {"error": {"code": 403, "message": "Your input was flagged.", **named}}
    upstream.enqueue(Script(status=403, body=orjson.dumps(body)))
    reply = application.chat("alias", path=path)
    assert (reply.status_code, reply.json()["error"]["message"]) == (403, "Your input was flagged.")
    assert len(upstream.ledger.entries()) == 1
    assert Outbox.objects.count() == 0
    [row] = closed_usage()
    assert (row.outcome, row.upstream_status, row.cost) == ("upstream_refused", 403, Decimal(0))


def test_the_sdk_does_not_repeat_a_refusal_in_another_shape(sdk: Any, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(status=422, body=b'{"detail":[{"loc":["body","x"],"msg":"extra"}]}'))
    with pytest.raises(openai.UnprocessableEntityError):
        sdk.with_options(max_retries=2).chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hi"}]
        )
    assert len(upstream.ledger.entries()) == 1


def as_stream(body: bytes) -> Script:
    return Script(
        recording=Recording(
            id="refused",
            dialect="openai.chat",
            is_stream=True,
            path="/v1/chat/completions",
            request={},
            status=200,
            headers={"content-type": "text/event-stream"},
            body=b": PROCESSING\n\ndata: " + body + b"\n\n",
        )
    )


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code", "outcome"),
    [
        ({"code": 400, "message": "No such thing."}, 400, "invalid_request", "upstream_refused"),
        ({"type": "invalid_request_error", "message": "No such thing."}, 400, "invalid_request", "upstream_refused"),
        ({"code": 429, "message": "slow"}, 429, "rate_limit_exceeded", "upstream_refused"),
        ({"code": 402, "message": "Insufficient credits"}, 502, "upstream_error", "upstream_failed"),
    ],
)
def test_an_error_inside_a_200_is_what_its_status_would_be(
    application: Application,
    upstream: FakeUpstream,
    error: dict[str, Any],
    status: int,
    code: str,
    outcome: str,
    is_stream: bool,
) -> None:
    body = orjson.dumps({"error": error, "user_id": "user_of_ours"})
    upstream.set_default(as_stream(body) if is_stream else Script(body=body))
    reply = application.chat(stream=is_stream)
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)
    assert "x-should-retry" not in reply.headers
    assert "user_of_ours" not in reply.text
    if status == 400:
        assert error_of(reply)["message"] == "No such thing."
    rows = closed_usage(3 if status == 429 else 1)
    assert {(row.status, row.outcome, row.upstream_status, row.cost) for row in rows} == {
        ("settled", outcome, 200, Decimal(0))
    }


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_error_inside_a_200_is_told_in_another_dialect_too(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    body = b'{"error":{"code":400,"message":"No such thing."}}'
    upstream.enqueue(as_stream(body) if is_stream else Script(body=body))
    reply = application.chat(path="/api/chat", stream=is_stream)
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "No such thing.")
    assert closed_usage()[0].cost == 0


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    "error", [{"code": 500, "message": "secret words"}, {"type": "server_error"}, {"code": 7}, True]
)
def test_an_error_inside_a_200_that_is_no_refusal_may_have_worked(
    application: Application, upstream: FakeUpstream, error: Any, is_stream: bool
) -> None:
    body = orjson.dumps({"error": error})
    upstream.enqueue(as_stream(body) if is_stream else Script(body=body))
    reply = application.chat(stream=is_stream)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert "secret" not in reply.text
    assert closed_usage()[0].status == "estimated"


WORDS: list[tuple[Any, int, str]] = [
    ({"error": "No such thing."}, 400, "No such thing."),
    ({"error": {"message": "No such thing."}}, 400, "No such thing."),
    ({"detail": "No such thing."}, 400, "No such thing."),
    ({"detail": [{"loc": ["body", "x"], "msg": "extra"}]}, 400, "body.x: extra"),
    ({"message": "No such thing."}, 400, "No such thing."),
    ({"message": "No such thing.", "status": 404}, 404, "No such thing."),
    ({"detail": "No such thing.", "status_code": 422}, 422, "No such thing."),
    ({"choices": [], "error": {"message": "No such thing."}}, 400, "No such thing."),
]


def as_event(body: bytes) -> Script:
    return as_stream(body)


def as_json(body: bytes) -> Script:
    """A whole answer, also where a stream was asked for."""
    return Script(recording=replace(as_stream(b"").recording, body=body, headers={"content-type": "application/json"}))  # type: ignore[type-var]


def as_json_with_an_end(body: bytes) -> Script:
    return as_json(body + b"\n\n")


def as_json_of_many_lines(body: bytes) -> Script:
    return as_json(orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2))


FRAMES = [as_event, as_json, as_json_with_an_end, as_json_of_many_lines]


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize("frame", [None, *FRAMES])
@pytest.mark.parametrize(("body", "status", "words"), WORDS)
def test_words_inside_a_200_reach_the_caller_and_cost_nothing(
    application: Application, upstream: FakeUpstream, body: Any, status: int, words: str, frame: Any, path: str
) -> None:
    set_price(input="1", output="1")
    raw = orjson.dumps(body)
    upstream.enqueue(Script(body=raw) if frame is None else frame(raw))
    reply = application.chat(path=path, stream=frame is not None)
    assert (reply.status_code, reply.json()["error"]["message"]) == (status, words)
    assert "x-should-retry" not in reply.headers
    [row] = closed_usage()
    assert (row.status, row.outcome, row.upstream_status, row.cost, row.total_tokens) == (
        "settled",
        "upstream_refused",
        200,
        Decimal(0),
        0,
    )


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
@pytest.mark.parametrize("frame", [None, *FRAMES])
@pytest.mark.parametrize(
    "error", [{"error": "Filtered."}, {"error": {"code": 400, "message": "Filtered."}}, {"detail": "Filtered."}]
)
def test_what_was_used_before_an_error_inside_a_200_is_recorded_and_priced(
    application: Application, upstream: FakeUpstream, error: dict[str, Any], frame: Any, path: str
) -> None:
    set_price(input="1", output="2")
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "cost": 0.5}
    raw = orjson.dumps({**error, "usage": usage, "model": "gpt-4o", "id": "gen-1"})
    upstream.enqueue(Script(body=raw) if frame is None else frame(raw))
    reply = application.chat(path=path, stream=frame is not None)
    assert (reply.status_code, reply.json()["error"]["message"]) == (400, "Filtered.")
    assert reply.headers["x-should-retry"] == "false"
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.outcome) == ("settled", "reported", "upstream_refused")
    assert (row.prompt_tokens, row.completion_tokens, row.cost) == (9, 4, Decimal("0.000017"))
    assert (row.upstream_cost, row.upstream_response_id) == (Decimal("0.5"), "gen-1")
    assert len(upstream.ledger.entries()) == 1
    assert verify().problems == 0


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_what_was_used_before_an_error_in_mid_stream_is_recorded_and_priced(
    application: Application, upstream: FakeUpstream, path: str
) -> None:
    set_price(input="1", output="2")
    chunk = b'{"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"a"}}]}'
    error = b'{"error":{"message":"broke"},"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}'
    upstream.enqueue(as_stream(chunk + b"\n\ndata: " + error))
    reply = application.chat(path=path, stream=True)
    assert (reply.status_code, "broke" in reply.text) == (200, False)
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.cost) == ("settled", "reported", Decimal("0.000017"))


def test_absurd_figures_beside_an_error_are_disputed(application: Application, upstream: FakeUpstream) -> None:
    body = {"error": "No.", "usage": {"prompt_tokens": -9, "completion_tokens": 4}}
    upstream.enqueue(Script(body=orjson.dumps(body)))
    assert application.chat().status_code == 400
    [row] = closed_usage()
    assert (row.is_disputed, row.is_billable) == (True, False)


# --- The operator's fault ---------------------------------------------------------------------------------------------

CREDIT = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
FAULTS = [
    ("anthropic", Script(status=400, error_message=CREDIT), "credit"),
    ("anthropic", Script(status=401), "key"),
    ("openai", Script(status=429, error_code="insufficient_quota"), "credit"),
    ("openai", Script(status=400, error_code="billing_hard_limit_reached"), "credit"),
    ("openai", Script(status=403), "account"),
    ("openai", Script(status=402), "credit"),
]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("provider", "script", "fault"), FAULTS)
def test_the_operators_fault_is_a_502_without_the_words_and_lets_a_fallback_try(
    application: Application, upstream: FakeUpstream, provider: str, script: Script, fault: str, is_stream: bool
) -> None:
    make_route("alone", (provider, "first"))
    make_route("smart", (provider, "first"), ("openai", "gpt-4o"))
    upstream.enqueue(script, script)
    reply = application.chat("alone", stream=is_stream)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
    assert "credit" not in reply.text
    assert "x-should-retry" not in reply.headers
    reply = application.chat("smart", stream=is_stream)
    assert (reply.status_code, text_of(reply), reply.headers["x-llm-attempts"]) == (200, SAID, "2")
    first, second, third = closed_usage(3)
    assert [(row.status, row.outcome, row.cost) for row in (first, second)] == [
        ("settled", "upstream_failed", Decimal(0))
    ] * 2
    assert (third.upstream_model, third.status) == ("gpt-4o", "settled")


def test_staff_are_told_once_a_provider_and_hour(
    application: Application, upstream: FakeUpstream, own_gateway: Gateway, mailoutbox: list[Any], settings: Any
) -> None:
    calls = application.at(own_gateway)
    make_route("a", ("anthropic", "first"))
    for _ in range(3):
        upstream.enqueue(Script(status=400, error_message=CREDIT))
        assert calls.chat("a").status_code == 502
    upstream.enqueue(Script(status=401))
    assert calls.chat("gpt-4o").status_code == 502
    messages = list(Outbox.objects.order_by("id"))
    assert [(message.kind, message.event, message.account, message.payload["provider"]) for message in messages] == [
        ("mail", "provider.refused", None, "anthropic"),
        ("webhook", "provider.refused", None, "anthropic"),
        ("mail", "provider.refused", None, "openai"),
        ("webhook", "provider.refused", None, "openai"),
    ]
    assert [message.payload["fault"] for message in messages] == ["credit", "credit", "key", "key"]
    settings.LLM_ALERT_EMAIL = "staff@example.com"
    assert send_due().sent == 2
    assert [mail.to for mail in mailoutbox] == [["staff@example.com"]] * 2
    assert "anthropic refuses this gateway's account" in mailoutbox[0].subject
    assert CREDIT not in mailoutbox[0].body


@pytest.fixture
def own_gateway(start_gateway: Any) -> Gateway:
    """What a process has told stays told for an hour, so this one serves no other test."""
    gateway: Gateway = start_gateway(LLM_RELAY_STALL_SECONDS="29")
    return gateway


# --- Our key ----------------------------------------------------------------------------------------------------------


def forms_of_key(key: str) -> dict[str, str]:
    encoded = {f"base64 {n}": base64.b64encode(b"x" * n + key.encode() + b"yz").decode() for n in range(3)}
    return {**encoded, "without sk-": key.removeprefix("sk-")}


@pytest.mark.parametrize("form", ["base64 0", "base64 1", "base64 2", "without sk-"])
@pytest.mark.parametrize("place", ["message", "code", "param", "type", "reply", "stream", "detail"])
def test_our_key_in_another_form_is_in_no_reply_no_row_and_no_log(
    application: Application,
    gateway: Gateway,
    gateway_environment: dict[str, str],
    upstream: FakeUpstream,
    form: str,
    place: str,
) -> None:
    told = forms_of_key(gateway_environment["OPENAI_API_KEY"])[form]
    error = {"message": "No.", "code": "c", "param": "p", "type": "t"}
    match place:
        case "reply":
            upstream.enqueue(Script(text=f"It is {told} indeed."))
        case "stream":
            upstream.enqueue(Script(text=f"It is {told} indeed.", writes_single_bytes=True))
        case "detail":
            upstream.enqueue(Script(status=422, body=orjson.dumps({"detail": f"Bad {told}!"})))
        case _:
            upstream.enqueue(Script(status=400, body=orjson.dumps({"error": {**error, place: f"{told}"}})))
    reply = application.chat(stream=place == "stream")
    [row] = closed_usage()
    assert_untold(told, reply, row, gateway)


@pytest.mark.parametrize("form", ["base64 1", "without sk-"])
@pytest.mark.parametrize("place", ["message", "code and param", "list", "names", "error in a 200"])
def test_a_part_of_our_key_is_in_no_reply_no_row_and_no_log(
    application: Application,
    gateway: Gateway,
    gateway_environment: dict[str, str],
    upstream: FakeUpstream,
    form: str,
    place: str,
) -> None:
    """Its first characters alone, or all of it in two pieces."""
    told = forms_of_key(gateway_environment["OPENAI_API_KEY"])[form]
    first, second = told[: len(told) // 2 + 2], told[len(told) // 2 - 2 :]
    documents: dict[str, dict[str, Any]] = {
        "message": {"error": {"message": f"Incorrect key {first}***"}},
        "code and param": {"error": {"message": "No.", "code": first, "param": second}},
        "list": {"detail": [{"loc": ["header", first, second], "msg": "bad"}]},
        "names": {"detail": {first: "bad", second: "bad"}},
        "error in a 200": {"error": [first, second]},
    }
    upstream.enqueue(Script(status=200 if place == "error in a 200" else 400, body=orjson.dumps(documents[place])))
    reply = application.chat()
    [row] = closed_usage()
    for part in (first, second):
        assert_untold(part, reply, row, gateway)


HIDDEN_BY = {"zero width": "\u200b", "control": "\x07", "DEL": "\x7f", "joiner": "\u034f", "NUL": "\x00", "line": "\n"}


@pytest.mark.parametrize("by", list(HIDDEN_BY))
@pytest.mark.parametrize(
    "place", ["message", "code", "detail", "error in a 200", "long message", "model", "id", "tier", "usage"]
)
def test_our_key_with_what_nobody_sees_in_it_is_in_no_reply_no_row_and_no_log(
    application: Application,
    gateway: Gateway,
    gateway_environment: dict[str, str],
    upstream: FakeUpstream,
    by: str,
    place: str,
) -> None:
    key = gateway_environment["OPENAI_API_KEY"]
    told = HIDDEN_BY[by].join((key[:9], key[9:12], key[12:]))
    answer = {"id": "i", "model": "m", "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
    usage: dict[str, Any] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    match place:
        case "message" | "code":
            script = Script(status=400, body=orjson.dumps({"error": {"message": "No.", place: told}}))
        case "detail":
            script = Script(status=422, body=orjson.dumps({"detail": f"Bad {told}!"}))
        case "error in a 200":
            script = Script(body=orjson.dumps({"error": f"Bad {told}!"}))
        case "long message":
            # Nothing of it may come to light by being cut, before or after what is invisible was taken out.
            padding = HIDDEN_BY[by] * (9_990 if by != "line" else 5)
            script = Script(status=400, body=orjson.dumps({"error": {"message": f"Bad {padding}{told}"}}))
        case "tier":
            script = Script(body=orjson.dumps({**answer, "usage": usage, "service_tier": told}))
        case "usage":
            script = Script(body=orjson.dumps({**answer, "usage": {**usage, "prompt_tokens": -1, "note": told}}))
        case _:
            script = Script(body=orjson.dumps({**answer, "usage": usage, place: told}))
    upstream.enqueue(script)
    reply = application.chat()
    [row] = closed_usage()
    if place in ("message", "code", "detail", "error in a 200", "long message"):
        assert reply.status_code in (400, 422)
        assert_untold(key, reply, row, gateway)
    assert_untold(key, None, row, gateway)


def assert_untold(told: str, reply: Any, row: Any, gateway: Gateway) -> None:
    core = told[4:-4]
    shown = [str(row.__dict__), gateway.log()]
    if reply is not None:
        shown += [reply.text, str(reply.headers), *map(str, reply.json().values() if reply.text[:1] == "{" else ())]
    for text in shown:
        visible = re.sub(r"\\\\u[0-9a-f]{4}|\\\\x[0-9a-f]{2}|\\\\n|[^!-~]", "", text)
        assert core not in text
        assert core not in visible


def test_a_key_that_is_not_ours_is_struck_out_however_it_is_split(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(status=400, error_message="Bad sk-proj\u200b-abcdef\x07123456789, \u202eyou."))
    assert error_of(application.chat())["message"] == "Bad [redacted], you."


# --- When to try again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("unit", ["milliseconds", "date"])
def test_a_retry_after_in_any_form_reaches_the_caller(
    application: Application, upstream: FakeUpstream, unit: str, is_stream: bool
) -> None:
    after = {
        "milliseconds": {"retry-after-ms": "40000", "retry-after": "1"},
        "date": {"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)},
    }[unit]
    upstream.enqueue(Script(status=429, headers=after))
    reply = application.chat(stream=is_stream)
    # Longer than the gateway waits itself, so it was called once.
    assert (reply.status_code, len(upstream.ledger.entries())) == (429, 1)
    assert 30 <= int(reply.headers["retry-after"]) <= 40


def test_a_short_retry_after_in_milliseconds_is_waited_for(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(status=429, headers={"retry-after-ms": "50", "retry-after": "60"}))
    assert application.chat().status_code == 200
    assert len(upstream.ledger.entries()) == 2


@pytest.mark.parametrize(
    "value", ["yesterday", "Fri, 20 Nov 2020 12:00:00 GMT", "Mon, 30 Nov 2099 12:00:00 GMT", "-4", "1e400"]
)
def test_a_retry_after_without_sense_is_none(application: Application, upstream: FakeUpstream, value: str) -> None:
    upstream.enqueue(Script(status=429, headers={"retry-after": value}))
    assert application.chat().status_code == 200
    assert len(upstream.ledger.entries()) == 2
