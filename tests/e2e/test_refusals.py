"""Whose fault a refusal of an upstream is: the caller hears its words, or staff are told and a fallback tries."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import openai
import orjson
import pytest

from llm.models import Outbox
from llm.outbox import send_due
from tests.books import closed_usage
from tests.e2e.callers import Application, error_of, text_of
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream, Recording, Script
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e

SAID = "You said: hello there"


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
def test_an_error_inside_a_200_that_says_nothing_may_have_worked(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    body = b'{"error":{"message":"secret words"}}'
    upstream.enqueue(as_stream(body) if is_stream else Script(body=body))
    reply = application.chat(stream=is_stream)
    assert (reply.status_code, reply.headers["x-should-retry"]) == (502, "false")
    assert "secret" not in reply.text
    assert closed_usage()[0].status == "estimated"


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
    core = told[4:-4]
    for shown in (reply.text, str(reply.headers), str(row.__dict__), gateway.log()):
        assert core not in shown
