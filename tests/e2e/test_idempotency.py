"""Idempotency keys as callers meet them: one call each, unless the first one surely did nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest
from django.db import connection
from django.utils import timezone

from llm.books.reaper import reap
from llm.keys import create_key
from llm.models import Account, IdempotencyKey, ModelRoute, Process, Usage
from tests.books import all_calls, closed_usage
from tests.e2e.callers import (
    CHAT,
    HELLO,
    Application,
    assert_nothing_happened,
    error_of,
    hello,
    native_error_of,
    read_to_end,
    read_until,
)
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e

MESSAGES, NATIVE = "/v1/messages", "/api/chat"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "gpt-4o", "messages": HELLO},
    "/v1/responses": {"model": "gpt-4o", "input": "hello there"},
    "/v1/completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "hello there"},
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": "hello there"},
    MESSAGES: {"model": "gpt-4o", "max_tokens": 100, "messages": HELLO},
    NATIVE: {"model": "gpt-4o", "messages": HELLO},
}
STREAMED = [
    (path, is_stream) for path in BODIES for is_stream in (False, True) if path != "/v1/embeddings" or not is_stream
]
KEY = {"idempotency-key": "order-1"}
USED, REUSED = "idempotency_key_used", "idempotency_key_reused"


def send(
    application: Application, path: str = CHAT, *, headers: dict[str, str] = KEY, **changes: Any
) -> httpx2.Response:
    body = orjson.dumps({**BODIES[path], **changes})
    return application.send("POST", path, body=body, headers={**headers, "content-type": "application/json"})


def assert_refused(reply: httpx2.Response, status: int, call_id: str, *, words: str) -> None:
    """In the shape of the endpoint's dialect."""
    assert reply.status_code == status, reply.text
    assert (reply.headers["x-llm-call-id"], reply.headers["x-should-retry"]) == (call_id, "false")
    code = {409: USED, 422: REUSED}[status]
    if reply.request.url.path == MESSAGES:
        error = reply.json()["error"]
        assert (reply.json()["type"], error["type"]) == ("error", "invalid_request_error")
    elif reply.request.url.path == NATIVE:
        error = native_error_of(reply)
        assert error["code"] == code
    else:
        error = error_of(reply)
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert words in error["message"]


# --- Repeats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "is_stream"), STREAMED)
def test_a_repeat_is_refused_in_the_callers_dialect_and_makes_no_call(
    application: Application, upstream: FakeUpstream, path: str, is_stream: bool
) -> None:
    changes: dict[str, Any] = {"stream": True} if is_stream else {}
    first = send(application, path, **changes)
    assert first.status_code == 200, first.text
    call_id = first.headers["x-llm-call-id"]
    assert_refused(send(application, path, **changes), 409, call_id, words="its reply isn't kept")
    assert_refused(send(application, path, **changes, user="another"), 422, call_id, words="another request")
    [row] = closed_usage()
    assert str(row.pk) == call_id
    assert len(upstream.ledger.entries()) == 1


def test_the_same_body_for_another_endpoint_is_another_request(
    application: Application, upstream: FakeUpstream
) -> None:
    first = send(application)
    body = orjson.dumps(BODIES[CHAT])
    reply = application.send("POST", NATIVE, body=body, headers={**KEY, "content-type": "application/json"})
    assert_refused(reply, 422, first.headers["x-llm-call-id"], words="another request")
    assert len(upstream.ledger.entries()) == 1


def test_a_large_body_is_compared_too(application: Application, upstream: FakeUpstream) -> None:
    def say(word: str) -> httpx2.Response:
        return send(application, messages=[{"role": "user", "content": f"{'long ' * 300_000}{word}"}])

    assert [say(word).status_code for word in ("one", "one", "two")] == [200, 409, 422]
    assert len(upstream.ledger.entries()) == 1


def test_requests_without_a_key_are_as_many_as_are_sent(application: Application, upstream: FakeUpstream) -> None:
    assert [send(application, headers={}).status_code for _ in range(2)] == [200, 200]
    assert len(upstream.ledger.entries()) == 2
    assert not IdempotencyKey.objects.exists()


def test_another_api_key_of_the_account_may_use_the_same_text(
    application: Application, upstream: FakeUpstream, account: Account
) -> None:
    _, another = create_key(account, name="another")
    assert [send(each).status_code for each in (application, application.using(another))] == [200, 200]
    assert send(application.using(another)).status_code == 409
    assert len(upstream.ledger.entries()) == 2


def test_a_repeat_while_the_first_is_in_flight_says_so(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(chunks=20, event_delay_s=0.1))
    body = hello(stream=True)
    stream = application.connect()
    stream.sendall(
        application.request_bytes(body).replace(b"host: gateway", b"host: gateway\r\nidempotency-key: order-1")
    )
    read_until(stream, b'"word0 "')
    repeat = application.send("POST", CHAT, body=body, headers=KEY)
    [row] = all_calls()
    assert_refused(repeat, 409, str(row.pk), words="still in progress")
    read_until(stream, b"data: [DONE]")
    stream.close()
    assert_refused(application.send("POST", CHAT, body=body, headers=KEY), 409, str(row.pk), words="isn't kept")
    assert len(upstream.ledger.entries()) == 1


def test_a_caller_that_has_hung_up_and_sends_it_again_makes_no_second_call(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(header_delay_s=1.0))
    body = hello()
    caller = application.connect()
    caller.sendall(
        application.request_bytes(body).replace(b"host: gateway", b"host: gateway\r\nidempotency-key: order-1")
    )
    upstream.ledger.wait_for_open(1)
    caller.close()
    assert application.send("POST", CHAT, body=body, headers=KEY).status_code == 409
    assert closed_usage()[0].outcome == "client_gone"
    assert application.send("POST", CHAT, body=body, headers=KEY).status_code == 409
    assert len(upstream.ledger.entries()) == 1


def test_of_many_at_once_one_is_sent(application: Application, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(header_delay_s=0.3))
    barrier = threading.Barrier(12)

    def ask(_: int) -> httpx2.Response:
        barrier.wait(30)
        return send(application)

    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(ask, range(12)))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 11
    assert len({reply.headers["x-llm-call-id"] for reply in replies}) == 1
    assert len(upstream.ledger.entries()) == len(closed_usage()) == 1


# --- The official SDKs ------------------------------------------------------------------------------------------------


def test_openais_sdk_takes_it_as_a_conflict_and_does_not_retry(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    retrying = sdk.with_options(max_retries=3)
    first = retrying.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO, extra_headers=KEY)  # type: ignore[arg-type]
    with pytest.raises(openai.ConflictError) as refused:
        retrying.chat.completions.create(model="gpt-4o", messages=HELLO, extra_headers=KEY)  # type: ignore[arg-type]
    assert refused.value.code == USED
    assert refused.value.response.headers["x-llm-call-id"] == first.headers["x-llm-call-id"]
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        retrying.responses.create(model="gpt-4o", input="hello", extra_headers=KEY)
    assert reused.value.code == REUSED
    assert len(upstream.ledger.entries()) == 1


def test_anthropics_sdk_takes_it_as_a_conflict_and_does_not_retry(
    gateway: Gateway, api_key: str, http: httpx2.Client, upstream: FakeUpstream
) -> None:
    claude = anthropic.Anthropic(api_key=api_key, base_url=gateway.url, max_retries=3, http_client=http)
    asked: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 100, "messages": HELLO, "extra_headers": KEY}
    claude.messages.create(**asked)
    with pytest.raises(anthropic.ConflictError):
        claude.messages.create(**asked)
    with pytest.raises(anthropic.UnprocessableEntityError):
        claude.messages.create(**asked, stream=True)
    assert len(upstream.ledger.entries()) == 1


# --- After failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("script", "status"), [(Script(status=400), 400), (Script(status=503), 502), (Script(status=429), 429)]
)
def test_what_surely_did_nothing_may_be_sent_again(
    application: Application, upstream: FakeUpstream, script: Script, status: int, is_stream: bool
) -> None:
    upstream.set_default(script)
    refused = send(application, stream=is_stream)
    assert refused.status_code == status
    assert "x-should-retry" not in refused.headers
    assert not IdempotencyKey.objects.exists()
    upstream.set_default(Script())
    again = send(application, stream=is_stream)
    assert again.status_code == 200
    assert IdempotencyKey.objects.get().call_id.hex == again.headers["x-llm-call-id"].replace("-", "")
    assert send(application, stream=is_stream).status_code == 409


def test_a_provider_that_can_not_be_reached_releases_the_key(application: Application, upstream: FakeUpstream) -> None:
    upstream.stop()
    try:
        assert send(application).status_code == 502
    finally:
        upstream.start()
    assert send(application).status_code == 200


def test_the_sdks_own_retries_with_the_same_key_get_through(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    """A refusal of which the gateway itself tries nothing again."""
    upstream.enqueue(Script(status=429, retry_after_s=0.2, error_code="insufficient_quota"))
    reply = sdk.with_options(max_retries=3).chat.completions.create(
        model="gpt-4o",
        messages=HELLO,  # type: ignore[arg-type]
        extra_headers=KEY,
    )
    assert reply.choices
    assert IdempotencyKey.objects.count() == 1


@pytest.mark.parametrize("script", [Script(status=500), Script(hangs_up=True), Script(truncates_json=True)])
def test_what_may_have_worked_is_not_sent_again(
    application: Application, upstream: FakeUpstream, script: Script
) -> None:
    upstream.set_default(script)
    first = send(application)
    assert (first.status_code, first.headers["x-should-retry"]) == (502, "false")
    upstream.set_default(Script())
    assert_refused(send(application), 409, first.headers["x-llm-call-id"], words="may have worked")
    assert len(closed_usage()) == 1


def test_a_fallback_after_one_that_may_have_worked_leaves_the_key_claimed(
    application: Application, upstream: FakeUpstream
) -> None:
    """The second call surely does nothing; the first one may have."""
    route = ModelRoute.objects.create(name="smart", falls_back_on_server_error=True)
    for position, model in enumerate(("fake-500", "fake-400")):
        route.targets.create(position=position, provider="openai", upstream_model=model)
    first = send(application, model="smart")
    assert first.status_code in (400, 502)
    calls = closed_usage(2)
    assert_refused(send(application, model="smart"), 409, str(calls[0].pk), words="may have worked")
    assert Usage.objects.count() == 2


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_fallback_after_one_that_did_nothing_takes_the_key_over(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    route = ModelRoute.objects.create(name="smart")
    for position, model in enumerate(("fake-401", "gpt-4o")):
        route.targets.create(position=position, provider="openai", upstream_model=model)
    first = send(application, model="smart", stream=is_stream)
    assert first.status_code == 200
    calls = closed_usage(2)
    assert first.headers["x-llm-call-id"] == str(calls[1].pk)
    assert_refused(send(application, model="smart", stream=is_stream), 409, str(calls[1].pk), words="isn't kept")


# --- Malformed, and without the books ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (b"idempotency-key: \r\n", "1 to 255 visible ASCII characters"),
        (b"idempotency-key: " + b"k" * 256 + b"\r\n", "1 to 255 visible ASCII characters"),
        (b"idempotency-key: two words\r\n", "1 to 255 visible ASCII characters"),
        ("idempotency-key: schlüssel\r\n".encode(), "1 to 255 visible ASCII characters"),
        (b"idempotency-key: a\r\nIdempotency-Key: a\r\n", "sent 2 times"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, MESSAGES, NATIVE])
def test_a_malformed_key_is_refused(
    application: Application, upstream: FakeUpstream, lines: bytes, words: str, path: str
) -> None:
    request = application.request_bytes(orjson.dumps(BODIES[path]), path=path)
    answer = application.send_bytes(
        request.replace(b"host: gateway\r\n", b"host: gateway\r\nconnection: close\r\n" + lines)
    )
    assert (answer.status_code, words in answer.text) == (400, True), answer.text
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("key", ["k" * 255, "a,b", '"quoted"'])
def test_a_key_of_any_visible_ascii_is_taken(application: Application, upstream: FakeUpstream, key: str) -> None:
    headers = {"idempotency-key": key}
    assert [send(application, headers=headers).status_code for _ in range(2)] == [200, 409]


def test_without_the_books_nothing_is_claimed(
    application: Application, bookless: Gateway, upstream: FakeUpstream
) -> None:
    reply = send(application.at(bookless))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "books_unavailable")
    assert_nothing_happened(upstream)
    assert send(application).status_code == 200


# --- Several processes ------------------------------------------------------------------------------------------------


@pytest.fixture
def own(gateway_environment: dict[str, str], api_key: str, http: httpx2.Client) -> Iterator[Any]:
    """Starts gateways of this test alone, which it may kill."""
    with ExitStack() as stack:

        def start(*, workers: int = 1) -> Application:
            gateway = stack.enter_context(Gateway(gateway_environment, workers=workers))
            return Application(gateway, api_key, http)

        yield start


@pytest.mark.slow
def test_a_key_stays_claimed_by_a_call_whose_process_was_killed(own: Any, upstream: FakeUpstream) -> None:
    application = own()
    body = hello("fake-hang-headers")
    caller = application.connect()
    caller.sendall(
        application.request_bytes(body).replace(b"host: gateway", b"host: gateway\r\nidempotency-key: order-1")
    )
    upstream.ledger.wait_for_open(1)
    application.gateway.process.kill()
    application.gateway.process.wait()
    read_to_end(caller)
    caller.close()
    [row] = all_calls()
    another = own()
    assert_refused(another.send("POST", CHAT, body=body, headers=KEY), 409, str(row.pk), words="still in progress")
    Process.objects.filter(pk=row.process_id).update(seen_at=timezone.now() - timedelta(hours=1))
    assert reap(at_once=True).reaped == 1
    assert_refused(another.send("POST", CHAT, body=body, headers=KEY), 409, str(row.pk), words="may have worked")
    assert [each.status for each in Usage.objects.all()] == ["estimated"]


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one web worker by design")
def test_of_many_at_once_one_is_sent_by_all_processes(own: Any, upstream: FakeUpstream) -> None:
    gateways = [own(workers=2), own(workers=2)]
    rounds, callers = 10, 12
    barrier = threading.Barrier(callers)

    def ask(number: int) -> list[int]:
        statuses = []
        with httpx2.Client(trust_env=False, timeout=30) as client:
            application = gateways[number % 2]
            application = Application(application.gateway, application.secret, client)
            for each in range(rounds):
                barrier.wait(60)
                statuses.append(send(application, headers={"idempotency-key": f"order-{each}"}).status_code)
        return statuses

    with ThreadPoolExecutor(callers) as pool:
        by_caller = list(pool.map(ask, range(callers)))
    for statuses in zip(*by_caller, strict=True):
        assert sorted(statuses) == [200] + [409] * (callers - 1)
    assert len(upstream.ledger.entries()) == rounds
    assert len(set(Usage.objects.values_list("process_id", flat=True))) > 1
