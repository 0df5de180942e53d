"""Replies that are kept for repeats of a request with an idempotency key, where that is switched on."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from django.utils import timezone

from llm.keys import create_key
from llm.models import Account, KeptReply, Usage
from tests.books import closed_usage
from tests.e2e.callers import CHAT, Application
from tests.e2e.test_idempotency import BODIES, KEY, MESSAGES, USED, send
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e

MAX_BYTES = 4_000
PATIENCE_S = 60.0


@pytest.fixture
def keeping(application: Application, start_gateway: Callable[..., Gateway]) -> Application:
    """Calls a gateway that keeps replies for five minutes."""
    return application.at(
        start_gateway(LLM_KEPT_REPLY_MINUTES="5", LLM_KEPT_REPLY_BYTES=str(MAX_BYTES), LLM_MAX_RETRIES="0")
    )


def assert_replayed(first: httpx2.Response, again: httpx2.Response) -> None:
    assert (again.status_code, again.content, again.headers["x-llm-replayed"]) == (200, first.content, "true")
    assert "x-llm-replayed" not in first.headers
    about_the_call = ("content-type", "x-llm-call-id", "x-llm-provider", "x-llm-attempts", "x-llm-cost")
    assert [again.headers.get(name) for name in about_the_call] == [first.headers.get(name) for name in about_the_call]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


@pytest.mark.parametrize("path", [*BODIES, "/v1/responses/compact"])
def test_a_repeat_gets_the_same_bytes_and_makes_no_call(
    keeping: Application, upstream: FakeUpstream, show_cost: None, path: str
) -> None:
    set_price(input="2", output="10")
    changes: dict[str, Any] = {"dimensions": 8} if path == "/v1/embeddings" else {}
    body = path if path in BODIES else {"/v1/responses/compact": "/v1/responses"}.get(path, MESSAGES)

    def ask(**others: Any) -> httpx2.Response:
        content = httpx2.Request("POST", "http://x", json={**BODIES[body], **changes, **others}).content
        headers = {**KEY, "content-type": "application/json"}
        return keeping.send("POST", path, body=content, headers=headers)

    first = ask()
    assert first.status_code == 200
    for _ in range(2):
        assert_replayed(first, ask())
    assert ask(user="another").status_code == 422
    [row] = closed_usage()
    assert str(row.pk) == first.headers["x-llm-call-id"]
    assert len(upstream.ledger.entries()) <= 1
    assert b"hello" not in bytes(KeptReply.objects.get().sealed)


def test_only_the_same_api_key_gets_it_and_only_for_its_time(
    keeping: Application, account: Account, upstream: FakeUpstream
) -> None:
    first = send(keeping)
    another = send(keeping.using(create_key(account, name="another")[1]))
    assert (another.status_code, "x-llm-replayed" in another.headers) == (200, False)
    assert len(closed_usage(2)) == 2
    KeptReply.objects.update(kept_at=timezone.now() - timedelta(minutes=6))
    late = send(keeping)
    assert (late.status_code, late.json()["error"]["code"]) == (409, USED)
    assert late.headers["x-llm-call-id"] == first.headers["x-llm-call-id"]


def test_streams_and_large_replies_are_not_kept(keeping: Application, upstream: FakeUpstream) -> None:
    for key, is_stream, script in (("a", True, Script()), ("b", False, Script(text="long " * 1_000))):
        upstream.enqueue(script)
        headers = {"idempotency-key": key}
        assert [send(keeping, headers=headers, stream=is_stream).status_code for _ in range(2)] == [200, 409]
    assert not KeptReply.objects.exists()


def test_a_failure_is_not_kept(keeping: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(status=400), Script(status=500))
    assert [send(keeping).status_code for _ in range(3)] == [400, 502, 409]
    assert not KeptReply.objects.exists()


def test_the_reply_of_the_attempt_that_worked_is_kept(keeping: Application, upstream: FakeUpstream) -> None:
    route = make_route("safe", ("openai", "gpt-4o"), ("openai", "gpt-4o-mini"))
    route.falls_back_on_server_error = True
    route.save()
    upstream.enqueue(Script(status=500))
    first = send(keeping, model="safe")
    assert (first.status_code, first.headers["x-llm-attempts"]) == (200, "2")
    assert_replayed(first, send(keeping, model="safe"))
    assert Usage.objects.count() == len(upstream.ledger.entries()) == 2


def test_who_has_left_gets_the_reply_with_a_repeat(keeping: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(body_delay_s=0.3))
    body = httpx2.Request("POST", "http://x", json=BODIES[CHAT]).content
    connection = keeping.connect()
    connection.sendall(
        keeping.request_bytes(body).replace(b"host: gateway", b"host: gateway\r\nidempotency-key: order-1")
    )
    upstream.ledger.wait_for_open(1)
    connection.close()
    [row] = closed_usage()
    deadline = time.monotonic() + PATIENCE_S
    while not KeptReply.objects.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = keeping.send("POST", CHAT, body=body, headers=KEY)
    assert (again.status_code, again.headers["x-llm-replayed"]) == (200, "true")
    assert again.headers["x-llm-call-id"] == str(row.pk)
    assert len(upstream.ledger.entries()) == 1


def test_a_revoked_key_gets_nothing(keeping: Application, account: Account) -> None:
    assert send(keeping).status_code == 200
    account.keys.update(revoked_at=timezone.now())
    assert send(keeping).status_code == 401


def test_what_nobody_can_decrypt_any_more_is_not_kept(keeping: Application) -> None:
    assert send(keeping).status_code == 200
    KeptReply.objects.update(sealed=b"of another key" * 9)
    assert send(keeping).status_code == 409


def test_by_default_no_reply_is_kept(application: Application) -> None:
    assert [send(application).status_code for _ in range(2)] == [200, 409]
    assert not KeptReply.objects.exists()
