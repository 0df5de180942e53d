"""Servers that speak OpenAI's chat completions, but not all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm.enums import UsageStatus
from tests.books import closed_usage
from tests.e2e.callers import Application, error_of
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

UNKNOWN = [
    Script(status=422, body=b'{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}'),
    Script(status=400, error_message="Unrecognized request argument supplied: stream_options"),
    Script(status=400, body=b'{"error":"json: unknown field \\"stream_options\\""}'),
]
DEVELOPER = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "hello there"}]


@pytest.fixture
def server(application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream) -> Application:
    gateway = start_gateway(
        LLM_PROVIDER="openai_compatible",
        LLM_BASE_URL=upstream.openai_base_url,
        LLM_COMPATIBLE_DEVELOPER_ROLE="system",
        LLM_MAX_RETRIES="0",
    )
    return application.at(gateway)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
@pytest.mark.parametrize("refusal", UNKNOWN)
def test_one_that_refuses_to_be_asked_for_usage_is_asked_once(
    server: Application, upstream: FakeUpstream, refusal: Script, path: str
) -> None:
    model = f"old-{UNKNOWN.index(refusal)}-{path.count('v1')}"
    upstream.enqueue(refusal, Script(omits_usage=True), Script(omits_usage=True))
    first = server.chat(model, path=path, stream=True)
    assert first.status_code == 200
    again = server.chat(model, path=path, stream=True)
    assert (again.status_code, again.headers["x-llm-attempts"]) == (200, "1")
    asked = ["stream_options" in (entry.body or {}) for entry in upstream.ledger.entries()]
    assert asked == [True, False, False]
    rows = closed_usage(3 if path == "/v1/chat/completions" else 2)
    assert [row.usage_source for row in rows if row.status != UsageStatus.VOID] == ["estimated"] * 2
    assert [row.status for row in rows].count(UsageStatus.VOID) == len(rows) - 2
    assert all(row.prompt_tokens > 0 for row in rows if row.status != UsageStatus.VOID)


def test_who_asks_for_usage_gets_the_refusal(server: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(UNKNOWN[0])
    asked: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    refused = server.chat("old-asked", **asked)
    assert refused.status_code == 422
    assert "stream_options" in error_of(refused)["message"]
    [row] = closed_usage()
    assert row.status == UsageStatus.SETTLED


def test_one_that_refuses_without_end_is_no_loop(server: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(*UNKNOWN, *UNKNOWN)
    assert server.chat("old-stubborn", stream=True).status_code == 400
    assert len(upstream.ledger.entries()) == 2
    closed_usage(2)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_developers_are_called_as_the_server_calls_them(server: Application, upstream: FakeUpstream, path: str) -> None:
    assert server.chat(path=path, messages=DEVELOPER).status_code == 200
    [entry] = upstream.ledger.entries()
    assert [message["role"] for message in (entry.body or {})["messages"]] == ["system", "user"]


def test_by_default_they_stay_developers(application: Application, upstream: FakeUpstream) -> None:
    assert application.chat(messages=DEVELOPER).status_code == 200
    [entry] = upstream.ledger.entries()
    assert [message["role"] for message in (entry.body or {})["messages"]] == ["developer", "user"]
