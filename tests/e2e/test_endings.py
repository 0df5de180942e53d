"""Every way in which an upstream's reply can end has its row, and its caller hears the truth about it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

import orjson
import pytest

from llm.models import Usage
from tests.books import closed_usage
from tests.e2e.callers import CHAT, HELLO, Application, error_of, estimated, events_of, hello, text_of
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream, Script
from tests.fakes.content import filler
from tests.fakes.scripts import ABSURD_USAGE, NEGATIVE_USAGE
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

SAID = "You said: hello there"
SERVED = (9, 4)
"""What the fake upstream bills for the hello and its answer."""
ASKED = estimated("")


@dataclass(frozen=True)
class Ending:
    """What a row says of how its call ended."""

    status: str
    source: str
    outcome: str
    tokens: tuple[int, int]
    upstream_status: int | None = 200
    error_code: str = ""


def ending_of(row: Usage) -> Ending:
    tokens = row.prompt_tokens, row.completion_tokens
    return Ending(row.status, row.usage_source, row.outcome, tokens, row.upstream_status, row.error_code)


SETTLED = Ending("settled", "reported", "ok", SERVED)


def failed(text: str = "", *, upstream_status: int | None = 200) -> Ending:
    """It broke after so much text, and what it cost can only be estimated."""
    return Ending("estimated", "estimated", "upstream_failed", estimated(text), upstream_status, "upstream_error")


def timed_out(text: str = "", *, upstream_status: int | None = 200) -> Ending:
    return Ending("estimated", "estimated", "timeout", estimated(text), upstream_status, "upstream_timeout")


# --- Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["fake-gzip", "fake-crlf", "fake-bytes"])
def test_a_stream_that_arrives_in_an_unusual_way_is_whole(application: Application, model: str) -> None:
    reply = application.chat(model, stream=True)
    assert (reply.status_code, text_of(reply), events_of(reply)[-1]) == (200, SAID, "[DONE]")
    [row] = closed_usage()
    assert ending_of(row) == SETTLED


@pytest.mark.parametrize("model", ["fake-cut-3", "fake-cut-inside-3", "fake-close-3", "fake-error-event-3"])
def test_a_stream_that_breaks_off_ends_in_an_error_event_and_an_estimate(application: Application, model: str) -> None:
    reply = application.chat(model, stream=True)
    assert (reply.status_code, text_of(reply)) == (200, "You said: ")
    assert events_of(reply)[-1]["error"]["code"] == "upstream_error"
    assert "[DONE]" not in events_of(reply)
    [row] = closed_usage()
    assert ending_of(row) == failed("You said: ")


def test_what_came_in_one_piece_with_an_error_event_reaches_the_caller(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(error_after_events=3, is_joined=True))
    reply = application.chat(stream=True)
    assert (reply.status_code, text_of(reply)) == (200, "You said: ")
    assert events_of(reply)[-1]["error"]["code"] == "upstream_error"
    [row] = closed_usage()
    assert ending_of(row) == failed("You said: ")


def test_a_stream_without_its_last_event_is_an_error_whose_reported_usage_counts(application: Application) -> None:
    reply = application.chat("fake-no-done", stream=True)
    assert (reply.status_code, text_of(reply)) == (200, SAID)
    assert events_of(reply)[-1]["error"]["code"] == "upstream_error"
    [row] = closed_usage()
    assert ending_of(row) == Ending("settled", "reported", "upstream_failed", SERVED, 200, "upstream_error")


@pytest.mark.parametrize(
    ("path", "provider", "fields"),
    [
        ("/v1/responses", "anthropic", {"input": "hello there"}),
        (CHAT, "anthropic", {"messages": HELLO}),
        ("/v1/messages", "openai", {"messages": HELLO, "max_tokens": 99}),
        ("/api/chat", "openai", {"messages": HELLO}),
    ],
)
def test_the_reported_usage_of_a_translated_stream_counts_too(
    application: Application, upstream: FakeUpstream, path: str, provider: str, fields: dict[str, Any]
) -> None:
    make_route("other", (provider, "a-model"))
    upstream.enqueue(Script(omits_done=True))
    body = orjson.dumps({"model": "other", "stream": True, **fields})
    assert b"upstream_error" in application.send("POST", path, body=body).content or path == "/v1/messages"
    [row] = closed_usage()
    assert ending_of(row) == Ending("settled", "reported", "upstream_failed", SERVED, 200, "upstream_error")
    assert (row.reported_model, bool(row.upstream_response_id)) == ("a-model", True)


@pytest.mark.parametrize("path", ["/v1/responses", CHAT])
def test_of_a_translated_stream_that_is_cut_the_prompt_is_as_reported(
    application: Application, upstream: FakeUpstream, path: str
) -> None:
    make_route("other", ("anthropic", "a-model"))
    upstream.enqueue(Script(cut_after_events=6, cache_read_tokens=1000))
    said = {"input": "hello there"} if path == "/v1/responses" else {"messages": HELLO}
    application.send("POST", path, body=orjson.dumps({"model": "other", "stream": True, **said}))
    [row] = closed_usage()
    assert (row.status, row.usage_source) == ("estimated", "estimated")
    assert (row.prompt_tokens, row.cache_read_tokens, row.completion_tokens) == (1009, 1000, 4)


@pytest.mark.parametrize(
    "model",
    [
        *("fake-cut-0", "fake-close-0", "fake-error-event-0", "fake-garbage", "fake-html", "fake-empty"),
        "fake-gzip-bomb-100000000",
    ],
)
def test_a_stream_that_fails_before_its_first_event_is_a_502_that_no_sdk_repeats(
    application: Application, upstream: FakeUpstream, model: str
) -> None:
    reply = application.chat(model, stream=True)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
    assert (reply.headers["x-should-retry"], reply.headers["x-llm-attempts"]) == ("false", "1")
    [row] = closed_usage()
    status = row.upstream_status
    assert status in (None, 200)
    assert ending_of(row) == failed(upstream_status=status)
    assert len(upstream.ledger.wait_for(1)) == 1


def test_a_large_event_goes_through_as_it_is(application: Application) -> None:
    reply = application.chat("fake-huge-5000000", stream=True)
    assert (reply.status_code, len(text_of(reply))) == (200, 5_000_000)
    [row] = closed_usage()
    assert ending_of(row) == Ending("settled", "reported", "ok", (9, 1))


def test_an_event_that_is_larger_than_we_hold_ends_the_stream(application: Application) -> None:
    reply = application.chat("fake-huge-20000000", stream=True)
    assert (reply.status_code, text_of(reply)) == (200, "")
    assert events_of(reply)[-1]["error"]["code"] == "upstream_error"
    [row] = closed_usage()
    assert ending_of(row) == failed()


def test_a_chunk_that_is_no_json_goes_through_and_the_usage_behind_it_counts(application: Application) -> None:
    reply = application.chat("fake-truncated", stream=True)
    assert reply.status_code == 200
    assert reply.text.endswith("data: [DONE]\n\n")
    [row] = closed_usage()
    assert ending_of(row) == SETTLED


@pytest.mark.parametrize(
    ("model", "upstream_status"), [("fake-hang-headers", None), ("fake-hang-0", 200), ("fake-comments-0", 200)]
)
def test_a_stream_without_data_in_time_is_a_504_that_no_sdk_repeats(
    application: Application, impatient: Gateway, upstream: FakeUpstream, model: str, upstream_status: int | None
) -> None:
    reply = application.at(impatient).chat(model, stream=True)
    assert (reply.status_code, error_of(reply)["code"]) == (504, "upstream_timeout")
    assert reply.headers["x-should-retry"] == "false"
    [row] = closed_usage()
    assert ending_of(row) == timed_out(upstream_status=upstream_status)
    [entry] = upstream.ledger.wait_for(1)
    assert entry.has_peer_hung_up


@pytest.mark.parametrize("model", ["fake-hang-3", "fake-comments-3"])
def test_a_stream_that_falls_silent_ends_in_an_error_event_and_an_estimate(
    application: Application, impatient: Gateway, upstream: FakeUpstream, model: str
) -> None:
    reply = application.at(impatient).chat(model, stream=True)
    assert (reply.status_code, text_of(reply)) == (200, "You said: ")
    assert events_of(reply)[-1]["error"]["code"] == "upstream_timeout"
    [row] = closed_usage()
    assert ending_of(row) == timed_out("You said: ")
    # Comments are no sign of life: both end for their silence, before the time for the whole call is over.
    assert 800 <= (row.duration_ms or 0) < 2000
    [entry] = upstream.ledger.wait_for(1)
    assert entry.has_peer_hung_up


def test_a_stream_that_drips_for_too_long_is_ended(application: Application, impatient: Gateway) -> None:
    reply = application.at(impatient).chat("fake-drip-0.05", stream=True)
    said = text_of(reply)
    assert said
    assert "".join(filler(100)).startswith(said)
    assert events_of(reply)[-1]["error"]["code"] == "upstream_timeout"
    [row] = closed_usage()
    assert ending_of(row) == timed_out(said)


def test_a_stream_without_usage_is_counted_by_us_and_says_so(application: Application) -> None:
    reply = application.chat("fake-no-usage", stream=True, stream_options={"include_usage": True})
    assert (reply.status_code, text_of(reply), events_of(reply)[-1]) == (200, SAID, "[DONE]")
    [row] = closed_usage()
    assert ending_of(row) == Ending("estimated", "estimated", "ok", estimated(SAID))


# --- Whole replies ----------------------------------------------------------------------------------------------------


def test_a_whole_reply_that_was_compressed_without_being_asked_is_read(application: Application) -> None:
    reply = application.chat("fake-gzip")
    assert (reply.status_code, text_of(reply)) == (200, SAID)
    assert "content-encoding" not in reply.headers
    [row] = closed_usage()
    assert ending_of(row) == SETTLED


@pytest.mark.parametrize(
    "model",
    [
        *("fake-hang-up", "fake-cut-1", "fake-close-1", "fake-truncated", "fake-garbage", "fake-html", "fake-empty"),
        "fake-gzip-bomb-100000000",
    ],
)
def test_a_whole_reply_that_is_none_is_a_502_that_no_sdk_repeats(
    application: Application, upstream: FakeUpstream, model: str
) -> None:
    reply = application.chat(model)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
    assert (reply.headers["x-should-retry"], reply.headers["x-llm-attempts"]) == ("false", "1")
    [row] = closed_usage()
    assert ending_of(row) == failed(upstream_status=None if model == "fake-hang-up" else 200)
    assert len(upstream.ledger.wait_for(1)) == 1


@pytest.mark.parametrize(("model", "upstream_status"), [("fake-hang-headers", None), ("fake-hang-1", 200)])
def test_a_whole_reply_that_does_not_come_in_time_is_a_504_that_no_sdk_repeats(
    application: Application, impatient: Gateway, upstream: FakeUpstream, model: str, upstream_status: int | None
) -> None:
    reply = application.at(impatient).chat(model)
    assert (reply.status_code, error_of(reply)["code"]) == (504, "upstream_timeout")
    assert reply.headers["x-should-retry"] == "false"
    [row] = closed_usage()
    assert ending_of(row) == timed_out(upstream_status=upstream_status)
    [entry] = upstream.ledger.wait_for(1)
    assert entry.has_peer_hung_up


def test_a_whole_reply_without_usage_is_counted_by_us_and_says_so(application: Application) -> None:
    reply = application.chat("fake-no-usage")
    assert (reply.status_code, text_of(reply)) == (200, SAID)
    assert "usage" not in reply.json()
    [row] = closed_usage()
    assert ending_of(row) == Ending("estimated", "estimated", "ok", estimated(SAID))


# --- Figures that can't be true ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("model", "raw"), [("negative", NEGATIVE_USAGE), ("absurd", ABSURD_USAGE)])
def test_figures_that_cannot_be_true_are_kept_aside_and_billed_to_nobody(
    application: Application, model: str, raw: dict[str, int], is_stream: bool
) -> None:
    reply = application.chat(f"fake-{model}-usage", stream=is_stream)
    assert (reply.status_code, text_of(reply)) == (200, SAID)
    [row] = closed_usage()
    assert ending_of(row) == Ending("estimated", "estimated", "ok", estimated(SAID))
    assert (row.is_disputed, row.is_billable) == (True, False)
    assert row.disputed_usage == raw


@pytest.mark.parametrize("is_stream", [False, True])
def test_parts_of_the_prompt_and_of_the_answer_are_told_apart(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(
        Script(cache_read_tokens=1000, reasoning_tokens=500, audio_input_tokens=20, audio_output_tokens=30)
    )
    assert application.chat(stream=is_stream).status_code == 200
    [row] = closed_usage()
    [entry] = upstream.ledger.entries()
    assert (row.prompt_tokens, row.completion_tokens) == (1029, 534) == (entry.prompt_tokens, entry.completion_tokens)
    assert (row.cache_read_tokens, row.reasoning_tokens) == (1000, 500)
    assert (row.audio_input_tokens, row.audio_output_tokens) == (20, 30)
    assert (row.cache_write_5m_tokens, row.cache_write_1h_tokens, row.extra_meters) == (0, 0, {})


# --- Statuses ---------------------------------------------------------------------------------------------------------

UNSENT = (0, 0)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("status", "code"), [(400, None), (404, "model_not_found"), (413, None), (422, None)])
def test_what_the_upstream_refuses_for_the_callers_own_fault_is_told_and_costs_nothing(
    application: Application, upstream: FakeUpstream, status: int, code: str | None, is_stream: bool
) -> None:
    upstream.enqueue(Script(status=status, error_message="You asked for too much."))
    reply = application.chat(stream=is_stream)
    assert reply.status_code == status
    expected = {"message": "You asked for too much.", "type": "invalid_request_error", "param": None}
    assert error_of(reply) == {**expected, "code": code or "invalid_request"}
    assert "x-should-retry" not in reply.headers
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.outcome) == ("settled", "none", "upstream_refused")
    assert ((row.prompt_tokens, row.completion_tokens), row.cost, row.upstream_status) == (UNSENT, Decimal(0), status)


@pytest.mark.parametrize("model", ["fake-401", "fake-403", "fake-status-402", "fake-quota", "fake-redirect"])
def test_what_the_upstream_has_against_us_is_our_failure_and_costs_nothing(
    application: Application, upstream: FakeUpstream, model: str
) -> None:
    reply = application.chat(model)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
    assert "location" not in reply.headers
    [entry] = upstream.ledger.entries()
    [row] = closed_usage()
    assert ending_of(row) == Ending("settled", "none", "upstream_failed", UNSENT, entry.status, "upstream_error")
    assert row.cost == 0


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("model", "status", "outcome"),
    [
        ("fake-429-0.01", 429, "upstream_refused"),
        ("fake-503-0.01", 502, "upstream_failed"),
        ("fake-529", 502, "upstream_failed"),
    ],
)
def test_what_may_pass_is_tried_again_and_each_try_has_its_row(
    application: Application, upstream: FakeUpstream, model: str, status: int, outcome: str, is_stream: bool
) -> None:
    reply = application.chat(model, stream=is_stream)
    assert (reply.status_code, reply.headers["x-llm-attempts"]) == (status, "3")
    assert "x-should-retry" not in reply.headers
    entries = upstream.ledger.entries()
    rows = closed_usage(3)
    assert [row.attempt for row in rows] == [1, 2, 3]
    assert {row.request_id for row in rows} == {rows[0].id}
    assert reply.headers["x-llm-call-id"] == str(rows[-1].id)
    assert [(row.status, row.usage_source, row.outcome) for row in rows] == [("settled", "none", outcome)] * 3
    assert [row.upstream_status for row in rows] == [entry.status for entry in entries]
    assert [(row.cost, row.total_tokens) for row in rows] == [(Decimal(0), 0)] * 3


def test_the_caller_is_told_when_to_come_back_to_an_upstream_that_limits_us(application: Application) -> None:
    reply = application.chat("fake-429-30")
    assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limit_exceeded")
    assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("30", "30000")
    assert reply.headers["x-llm-attempts"] == "1"
    [row] = closed_usage()
    assert (row.outcome, row.upstream_status) == ("upstream_refused", 429)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_second_try_that_works_is_answered_as_if_it_were_the_first(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(Script(status=503))
    reply = application.chat(stream=is_stream)
    assert (reply.status_code, text_of(reply), reply.headers["x-llm-attempts"]) == (200, SAID, "2")
    first, second = closed_usage(2)
    assert ending_of(first) == Ending("settled", "none", "upstream_failed", UNSENT, 503, "upstream_error")
    assert ending_of(second) == SETTLED
    assert reply.headers["x-llm-call-id"] == str(second.id)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("model", ["fake-500", "fake-status-502", "fake-status-504", "fake-html-502"])
def test_a_status_after_which_it_may_have_worked_is_not_tried_again(
    application: Application, upstream: FakeUpstream, model: str, is_stream: bool
) -> None:
    reply = application.chat(model, stream=is_stream)
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
    assert (reply.headers["x-should-retry"], reply.headers["x-llm-attempts"]) == ("false", "1")
    [entry] = upstream.ledger.entries()
    [row] = closed_usage()
    assert ending_of(row) == failed(upstream_status=entry.status)


def test_an_upstream_that_is_not_there_costs_nothing(application: Application, upstream: FakeUpstream) -> None:
    upstream.stop()
    try:
        reply = application.chat()
    finally:
        upstream.start()
    assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_unreachable")
    assert "x-should-retry" not in reply.headers
    rows = closed_usage(3)
    assert [(row.status, row.outcome, row.upstream_status) for row in rows] == [
        ("void", "upstream_unreachable", None)
    ] * 3
    assert [(row.cost, row.total_tokens) for row in rows] == [(Decimal(0), 0)] * 3
    assert upstream.ledger.entries() == ()


# --- What never gets through ------------------------------------------------------------------------------------------

_WAYS_TO_LEAK = {
    "refusal": Script(status=400, echoes_key=True),
    "failure": Script(status=401, echoes_key=True),
    "late failure": Script(status=502, echoes_key=True),
    "text": Script(echoes_key=True),
    "text, byte by byte": Script(echoes_key=True, writes_single_bytes=True),
    "headers": Script(headers={"x-request-id": "{key}", "x-your-key": "{key}"}),
    "cookie": Script(set_cookie="session={key}; Path=/; HttpOnly"),
    "redirect": Script(status=302, redirect_to="/v1/elsewhere?key={key}"),
    "error code": Script(status=400, error_code="{key}"),
    "error event": Script(error_after_events=2, error_message="Your key is {key}."),
    "no JSON": Script(body=b'{"your key": "{key}"'),
    "wrong JSON": Script(body=b'{"id": "{key}", "model": "{key}", "choices": []}'),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("way", list(_WAYS_TO_LEAK))
def test_our_upstream_key_is_in_no_reply_no_row_and_no_log(
    application: Application,
    gateway: Gateway,
    gateway_environment: dict[str, str],
    upstream: FakeUpstream,
    way: str,
    is_stream: bool,
) -> None:
    key = gateway_environment["OPENAI_API_KEY"]
    upstream.enqueue(with_key(_WAYS_TO_LEAK[way], key))
    reply = application.chat(stream=is_stream)
    assert "x-llm-attempts" in reply.headers, (reply.status_code, reply.text)
    [entry] = upstream.ledger.wait_for(1)
    assert entry.credential == key
    [row] = closed_usage()
    for shown in (reply.text, str(reply.headers), str(row.__dict__), gateway.log()):
        assert key not in shown
        assert application.secret not in shown


def with_key(script: Script, key: str) -> Script:
    def put_in(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{key}", key)
        if isinstance(value, bytes):
            return value.replace(b"{key}", key.encode())
        return {name: put_in(text) for name, text in value.items()} if isinstance(value, dict) else value

    return replace(script, **{field.name: put_in(getattr(script, field.name)) for field in fields(script)})


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_upstreams_own_headers_stay_with_us(
    application: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    upstream.enqueue(Script(set_cookie="session=fake-session; Path=/; HttpOnly"))
    reply = application.chat(stream=is_stream)
    assert reply.status_code == 200
    ours = {
        *("content-type", "content-length", "date", "server", "transfer-encoding"),
        *("x-request-id", "openai-processing-ms", "x-llm-call-id", "x-llm-provider", "x-llm-attempts"),
        *("cache-control", "x-accel-buffering"),
    }
    assert set(reply.headers) <= ours
    assert "fake" not in reply.headers["x-request-id"]


def test_no_cookie_is_kept_for_the_next_call(application: Application, upstream: FakeUpstream) -> None:
    application.chat("fake-cookie")
    application.chat("fake-cookie")
    assert ["cookie" in entry.headers for entry in upstream.ledger.entries()] == [False, False]


def test_of_the_callers_headers_only_those_meant_for_the_upstream_reach_it(
    application: Application, upstream: FakeUpstream, gateway_environment: dict[str, str]
) -> None:
    sent = {
        "openai-beta": "assistants=v2",
        "openai-organization": "org-of-the-caller",
        "openai-project": "proj-of-the-caller",
        "cookie": "session=of-the-caller",
        "x-forwarded-for": "192.0.2.1",
        "accept-encoding": "gzip, br",
        "user-agent": "an application",
    }
    reply = application.send("POST", CHAT, headers=sent, body=hello())
    assert reply.status_code == 200
    [entry] = upstream.ledger.entries()
    assert entry.headers["openai-beta"] == "assistants=v2"
    assert entry.headers["accept-encoding"] == "identity"
    assert entry.headers["authorization"] == f"Bearer {gateway_environment['OPENAI_API_KEY']}"
    assert not {"openai-organization", "openai-project", "cookie", "x-forwarded-for", "x-api-key"} & set(entry.headers)
    assert "an application" not in str(entry.headers)
