"""OpenAI's responses: through to the provider and back, with books that equal its usage, and to nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import openai
import orjson
import pytest
from pydantic import BaseModel

from llm.enums import CallOutcome, Dialect, LimitMetric, LimitPer, UsageSource, UsageStatus
from llm.keys import create_key, get_or_create_account
from llm.limits.changes import set_limit
from llm.models import Account, Usage
from llm.providers.counting import count_text_tokens
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of, read_until
from tests.e2e.test_unpriced import make_route, set_price
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

RESPONSES = "/v1/responses"
SAID = "You said: hello there"
MESSAGE = {"type": "message", "role": "user", "content": "hello"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}


def asked(**fields: Any) -> bytes:
    return orjson.dumps({"model": "gpt-4o", "input": "hello there", **fields})


def respond(application: Application, **fields: Any) -> Any:
    return application.send("POST", RESPONSES, body=asked(**fields))


def assert_settled(row: Usage, upstream: FakeUpstream) -> None:
    [entry] = upstream.ledger.entries()
    assert (row.status, row.usage_source, row.outcome) == (UsageStatus.SETTLED, UsageSource.REPORTED, CallOutcome.OK)
    assert (row.dialect, row.upstream_response_id) == (Dialect.OPENAI_RESPONSES, entry.response_id)
    assert (row.prompt_tokens, row.completion_tokens) == (entry.prompt_tokens, entry.completion_tokens)
    assert row.cache_read_tokens == entry.counts.cache_read_tokens
    assert row.reasoning_tokens == entry.counts.reasoning_tokens


# --- What comes back --------------------------------------------------------------------------------------------------


def test_a_whole_response(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(cache_read_tokens=7, reasoning_tokens=5))
    reply = sdk.responses.create(model="gpt-4o", input="hello there")
    assert reply.output_text == SAID
    [row] = closed_usage()
    assert (row.is_stream, row.reported_model, row.service_tier) == (False, "gpt-4o", "default")
    assert (row.cache_read_tokens, row.reasoning_tokens, row.completion_tokens) == (7, 5, 9)
    assert_settled(row, upstream)


def test_a_streamed_response(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    events = list(sdk.responses.create(model="gpt-4o", input="hello there", stream=True))
    assert [event.type for event in (events[0], events[-1])] == ["response.created", "response.completed"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == SAID
    [row] = closed_usage()
    assert row.is_stream
    assert_settled(row, upstream)


def test_the_sdks_stream_helper(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    with sdk.responses.stream(model="gpt-4o", input="hello there") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == SAID
    assert_settled(closed_usage()[0], upstream)


class Verdict(BaseModel):
    answer: str
    confidence: float


def test_the_sdks_parse_helper(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(text='{"answer": "yes", "confidence": 1}'))
    reply = sdk.responses.parse(model="gpt-4o", input="JSON?", text_format=Verdict)
    assert reply.output_parsed == Verdict(answer="yes", confidence=1)
    assert_settled(closed_usage()[0], upstream)


async def test_the_asynchronous_sdk(gateway: Gateway, api_key: str, upstream: FakeUpstream) -> None:
    async with openai.AsyncOpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0) as sdk:
        stream = await sdk.responses.create(model="gpt-4o", input="hello there", stream=True)
        assert [event.type async for event in stream][-1] == "response.completed"


@pytest.mark.parametrize("status", ["incomplete", "completed"])
def test_a_stream_ends_as_the_upstream_ends_it(application: Application, upstream: FakeUpstream, status: str) -> None:
    reply = respond(application, stream=True, max_output_tokens=2 if status == "incomplete" else 100)
    events = events_of_typed(reply.text)
    assert events[-1]["type"] == f"response.{status}"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert_settled(closed_usage()[0], upstream)


def test_request_and_reply_pass_to_the_byte(application: Application, upstream: FakeUpstream) -> None:
    reply = (
        b'{ "id" : "resp_1", "object":"response", "output":[{"type":"new_item","x":[1.50]}], "new": 1.0e3,\n'
        b'"tools":[{"type":"function","name":"f","parameters":{"properties":{"price":{"type":"number"}}}}],\n'
        b'"metadata":{"cost_center":"4711"}, "billing":{"payer":"developer"},\n'
        b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}\n'
    )
    upstream.enqueue(Script(body=reply))
    sent = b'{ "model":"gpt-4o", "input" : [ {"type":"unheard_of","text":"\\u00fc"} ], "unknown": {"x": 1.0} }'
    assert application.send("POST", RESPONSES, body=sent).content == reply
    assert upstream.ledger.entries()[0].raw == sent
    assert closed_usage()[0].total_tokens == 7


def test_unknown_events_pass_untouched(application: Application, upstream: FakeUpstream) -> None:
    stream = (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","model":"m"}}\n\n'
        b': a comment\n\nevent: response.brand_new\ndata: {"type":"response.brand_new","x": [1.50]}\n\n'
        b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_1","model":"m",'
        b'"output":[],"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}}\n\n'
    )
    upstream.enqueue(Script(body=stream, content_type="text/event-stream"))
    assert respond(application, stream=True).content == stream
    assert closed_usage()[0].total_tokens == 7


def test_prices_of_the_upstream_go_and_ours_come(
    application: Application, upstream: FakeUpstream, show_cost: None
) -> None:
    set_price(input="2", output="10")
    usage = b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7,"cost":0.5}'
    shown = b'"usage":{"cost": 0.000046, "input_tokens":3,"output_tokens":4,"total_tokens":7}'
    whole = b'{"id":"resp_1","object":"response","model":"gpt-4o","output":[],%s}'
    upstream.enqueue(Script(body=whole % usage))
    reply = respond(application)
    assert (reply.content, reply.headers["x-llm-cost"]) == (whole % shown, "0.000046")
    event = b'event: response.completed\ndata: {"type":"response.completed","response":' + whole + b"}\n\n"
    upstream.enqueue(Script(body=event % usage, content_type="text/event-stream"))
    assert respond(application, stream=True).content == event % shown
    assert {(row.cost, row.upstream_cost) for row in closed_usage(2)} == {(Decimal("0.000046"), Decimal("0.5"))}


def events_of_typed(text: str) -> list[Any]:
    """Each event's data, whose type its name repeats."""
    events = []
    for event in text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        events.append(orjson.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


# --- Where it ends otherwise ------------------------------------------------------------------------------------------


def test_a_stream_that_breaks_off_ends_in_an_error_event_and_an_estimate(
    sdk: openai.OpenAI, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(cut_after_events=6))
    said = ""
    stream = sdk.responses.create(model="gpt-4o", input="hello there", stream=True)
    with pytest.raises(openai.APIError, match="The provider “openai”") as broken:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert broken.value.code == "upstream_error"
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.outcome) == ("estimated", "estimated", "upstream_failed")
    assert (said, row.completion_tokens) == ("", count_text_tokens("You said: "))
    assert row.prompt_tokens > 0
    assert row.upstream_response_id.startswith("resp_")


def test_an_error_event_of_the_upstream_is_told_in_our_words(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(error_after_events=5))
    last = events_of_typed(respond(application, stream=True).text)[-1]
    assert (last["type"], last["code"], last["error"]["code"]) == ("error", "upstream_error", "upstream_error")
    assert "reported an error in the middle of its answer" in last["message"] == last["error"]["message"]
    assert closed_usage()[0].status == UsageStatus.ESTIMATED


FAILED = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","model":"m"}}\n\n'
    b'event: response.failed\ndata: {"type":"response.failed","response":{"id":"resp_1","model":"m","status":"failed",'
    b'"error":{"code":"%s","message":"in organization org-ours"},"output":[],'
    b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}}\n\n'
)


def test_a_response_that_failed_passes_and_its_usage_counts(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(body=FAILED % b"server_error", content_type="text/event-stream"))
    assert respond(application, stream=True).content == FAILED % b"server_error"
    [row] = closed_usage()
    assert (row.total_tokens, row.usage_source, row.outcome) == (7, UsageSource.REPORTED, CallOutcome.OK)


def test_what_a_provider_has_against_our_account_is_no_callers_business(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(body=FAILED % b"rate_limit_exceeded", content_type="text/event-stream"))
    text = respond(application, stream=True).text
    assert "org-ours" not in text
    assert events_of_typed(text)[-1]["code"] == "upstream_error"
    [row] = closed_usage()
    assert (row.total_tokens, row.usage_source, row.outcome) == (7, UsageSource.REPORTED, CallOutcome.UPSTREAM_FAILED)
    whole = {
        "id": "resp_2",
        "object": "response",
        "output": [],
        "error": {"code": "insufficient_quota", "message": "org-ours"},
    }
    upstream.enqueue(Script(body=orjson.dumps(whole)))
    refused = respond(application)
    assert refused.status_code >= 429
    assert "org-ours" not in refused.text


def test_a_response_without_usage_is_estimated(application: Application, upstream: FakeUpstream) -> None:
    for is_stream in (False, True):
        upstream.enqueue(Script(omits_usage=True))
        assert respond(application, stream=is_stream).status_code == 200
    for row in closed_usage(2):
        assert (row.status, row.usage_source, row.outcome) == ("estimated", "estimated", "ok")
        assert row.completion_tokens == count_text_tokens(SAID)


def test_a_caller_who_hangs_up_is_charged_what_the_provider_reports(
    application: Application, upstream: FakeUpstream
) -> None:
    upstream.enqueue(Script(chunks=6, event_delay_s=0.05))
    connection = application.connect()
    connection.sendall(application.request_bytes(asked(stream=True), path=RESPONSES))
    read_until(connection, b'"word0 "')
    connection.close()
    [row] = closed_usage()
    assert (row.status, row.usage_source, row.outcome, row.completion_tokens) == (
        "settled",
        "drained",
        "client_gone",
        6,
    )


def test_a_whole_reply_that_is_none_is_a_502(application: Application, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(body=b'{"object":"response"}'))
    assert (respond(application).status_code, closed_usage()[0].outcome) == (502, CallOutcome.UPSTREAM_FAILED)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_errors_are_the_sdks_own_classes(
    sdk: openai.OpenAI, upstream: FakeUpstream, status: int, kind: type[openai.APIStatusError]
) -> None:
    upstream.set_default(Script(status=status))
    with pytest.raises(kind):
        sdk.responses.create(model="gpt-4o", input="hello there")


def test_a_wrong_key(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    stranger = sdk.with_options(api_key="llm_nobody")
    with pytest.raises(openai.AuthenticationError):
        stranger.responses.create(model="gpt-4o", input="x")
    with pytest.raises(openai.AuthenticationError):
        stranger.responses.retrieve("resp_1")
    assert_nothing_happened(upstream)


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"background_options": {"continuation_id": "x"}}, "background_options"),
        ({"stream": "true"}, "stream"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [MESSAGE, {"id": "msg_1"}]}, "input[1].id"),
        ({"input": [{"type": "image_generation_call", "id": "ig_1"}]}, "input[0].id"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"file_id": "file-1"}]}]},
            "input[0].output[0].file_id",
        ),
        ({"input": [{"type": "code_interpreter_call", "container_id": "cntr_1"}]}, "input[0].container_id"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[0].vector_store_ids"),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "tools[0].container"),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]},
            "tools[0].container.file_ids",
        ),
        ({"previous_response_id": 7}, "previous_response_id"),
        ({"Conversation": "conv_1"}, "conversation"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "File_Id": "f"}]}]}, "input.content.file_id"),
        ({"api_base": "https://elsewhere"}, "api_base"),
    ],
)
def test_what_is_refused_is_named(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any], param: str
) -> None:
    refused = respond(application, **fields)
    assert (refused.status_code, error_of(refused)["param"]) == (400, param)
    assert_nothing_happened(upstream)


def test_a_chat_is_told_where_it_belongs(application: Application, upstream: FakeUpstream) -> None:
    refused = application.chat(path=RESPONSES)
    assert refused.status_code == 400
    assert "POST /v1/chat/completions" in error_of(refused)["message"]
    assert_nothing_happened(upstream)


def test_names_of_the_callers_own_are_no_ids(application: Application) -> None:
    schema = {"type": "object", "properties": {"file_id": {"type": "string"}}}
    tools = [{"type": "function", "name": "f", "parameters": schema}]
    text = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    items = [
        MESSAGE,
        {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
        REASONING,
    ]
    reply = respond(application, tools=tools, text=text, input=items, metadata={"file_id": "mine"}, background=False)
    assert reply.status_code == 200


def test_a_compatible_server_that_has_responses(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = start_gateway(
        LLM_PROVIDER="openai_compatible",
        LLM_BASE_URL=upstream.openai_base_url,
        LLM_COMPATIBLE_DIALECTS="chat,responses",
    )
    assert respond(application.at(gateway)).status_code == 200
    assert closed_usage()[0].provider == "openai_compatible"


# --- Whose a response is ----------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(application: Application) -> Application:
    """A caller of another account."""
    return application.using(create_key(get_or_create_account("others"), name="theirs")[1])


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_account_goes_on_from_its_own_response_and_from_no_other(
    application: Application, stranger: Application, upstream: FakeUpstream, is_stream: bool
) -> None:
    assert respond(application, stream=is_stream).status_code == 200
    made = closed_usage()[0].upstream_response_id
    assert respond(application, previous_response_id=made).status_code == 200
    colleague = application.using(create_key(get_or_create_account("acme"), name="another key")[1])
    assert respond(colleague, previous_response_id=made).status_code == 200
    calls = len(upstream.ledger.entries())
    foreign = respond(stranger, previous_response_id=made)
    missing = respond(stranger, previous_response_id=made[:-1] + "x")
    for refused in (foreign, missing):
        assert (refused.status_code, error_of(refused)["code"]) == (400, "previous_response_not_found")
        assert error_of(refused)["param"] == "previous_response_id"
    assert foreign.text.replace(made, "") == missing.text.replace(made[:-1] + "x", "")
    assert (len(upstream.ledger.entries()), len(closed_usage(3))) == (calls, 3)


@pytest.mark.parametrize("made", ["", "resp_\u00fc", "resp_1/cancel", "x" * 300])
def test_an_id_that_can_be_none_is_not_found(application: Application, upstream: FakeUpstream, made: str) -> None:
    refused = respond(application, previous_response_id=made)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "previous_response_not_found")
    assert_nothing_happened(upstream)


def test_a_response_is_gone_on_from_where_it_was_made(
    application: Application, start_gateway: Callable[..., Gateway], upstream: FakeUpstream
) -> None:
    gateway = start_gateway(LLM_BASE_URL=upstream.openai_base_url, LLM_COMPATIBLE_DIALECTS="chat,responses")
    make_route("here", ("openai_compatible", "gpt-4o"))
    make_route("both", ("openai_compatible", "gpt-4o"), ("openai", "gpt-4o"))
    there = application.at(gateway)
    made = respond(there).json()["id"]
    assert respond(there, model="here", previous_response_id=made).status_code == 400
    assert respond(there, model="both", previous_response_id=made).status_code == 200
    assert [row.provider for row in closed_usage(2)] == ["openai", "openai"]


def test_what_an_account_has_made_it_can_ask_for_and_delete(
    sdk: openai.OpenAI, stranger: Application, upstream: FakeUpstream
) -> None:
    schema = {"type": "object", "properties": {"price": {"type": "number"}}}
    tools: Any = [{"type": "function", "name": "f", "parameters": schema, "strict": False}]
    made = sdk.responses.create(model="gpt-4o", input="hello there", tools=tools).id
    kept = sdk.responses.retrieve(made, include=["message.output_text.logprobs"])
    assert kept.id == made
    assert kept.usage is not None
    assert not hasattr(kept.usage, "cost")
    assert kept.tools[0].to_dict()["parameters"] == schema
    assert upstream.ledger.entries()[-1].path == f"{RESPONSES}/{made}?include%5B%5D=message.output_text.logprobs"
    assert [getattr(item, "content", None) for item in sdk.responses.input_items.list(made, limit=5)] == ["hello there"]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        sdk.responses.cancel(made)
    asked_for = len(upstream.ledger.entries())
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        for each in (made, "resp_missing"):
            refused = stranger.send(method, f"{RESPONSES}/{each}{rest}")
            assert (refused.status_code, error_of(refused)["code"]) == (404, "not_found")
            assert error_of(refused)["message"] == f"Response with id '{each}' not found."
    assert len(upstream.ledger.entries()) == asked_for
    sdk.responses.delete(made)
    with pytest.raises(openai.NotFoundError, match="not found"):
        sdk.responses.retrieve(made)
    with pytest.raises(openai.BadRequestError, match=f"Previous response with id '{made}' not found"):
        sdk.responses.create(model="gpt-4o", input="and now", previous_response_id=made)
    assert [row.outcome for row in closed_usage(2)] == ["ok", "upstream_refused"]


def test_a_kept_response_is_not_streamed(application: Application, upstream: FakeUpstream) -> None:
    made = respond(application).json()["id"]
    for query in ("stream=true", "stream=false&stream=true", "Stream=1", "stream="):
        refused = application.send("GET", f"{RESPONSES}/{made}?{query}")
        assert (refused.status_code, error_of(refused)["param"]) == (400, "stream")
    assert application.send("GET", f"{RESPONSES}/{made}?stream=false").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome</html>",
        b"[]",
        b'event: response.created\ndata: {"type":"response.created"}\n\n',
        orjson.dumps(
            {
                "id": "resp_1",
                "object": "response",
                "status": "failed",
                "error": {"code": "rate_limit_exceeded", "message": "Rate limit reached in organization org-acme"},
            }
        ),
    ],
)
def test_what_is_no_kept_response_is_a_502_in_our_words(
    application: Application, upstream: FakeUpstream, body: bytes
) -> None:
    made = respond(application).json()["id"]
    upstream.enqueue(Script(body=body))
    reply = application.send("GET", f"{RESPONSES}/{made}")
    assert reply.status_code == 502
    assert "org-acme" not in reply.text


@pytest.mark.parametrize("each", ["..", ".", "...", "%2e%2e", "..%2fmodels"])
def test_an_id_is_no_way_to_another_address(application: Application, upstream: FakeUpstream, each: str) -> None:
    assert application.send("GET", f"{RESPONSES}/{each}/input_items").status_code == 404
    assert_nothing_happened(upstream)


def test_an_id_that_two_accounts_have_is_nobodys(
    application: Application, stranger: Application, upstream: FakeUpstream
) -> None:
    """A server that lets its callers choose ids shows whatever it keeps under one."""
    made = respond(application).json()["id"]
    taken = {"id": made, "object": "response", "model": "gpt-4o", "output": [], "usage": None}
    upstream.enqueue(Script(body=orjson.dumps(taken)))
    assert respond(stranger).json()["id"] == made
    closed_usage(2)
    for caller in (application, stranger):
        assert caller.send("GET", f"{RESPONSES}/{made}").status_code == 404
        assert respond(caller, previous_response_id=made).status_code == 400


# --- Limits and tools -------------------------------------------------------------------------------------------------


def test_a_limit_lowers_the_maximum(application: Application, account: Account, upstream: FakeUpstream) -> None:
    set_limit(account, None, LimitMetric.TOKENS, LimitPer.DAY, 2_000, None)
    reply = respond(application, max_output_tokens=50_000)
    maximum = int(reply.headers["x-llm-max-output-tokens"])
    assert upstream.ledger.entries()[0].body["max_output_tokens"] == maximum < 2_000
    closed_usage()
    assert respond(application, max_output_tokens=100).status_code == 200
    assert respond(application, max_output_tokens=1_900).status_code == 429
    assert respond(application, input="x" * 3_000).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        *({"tools": [{"type": kind}]} for kind in ("web_search", "web_search_preview_2025_03_11", "image_generation")),
        *({"tools": [{"type": kind}]} for kind in ("code_interpreter", "mcp", "computer_use_preview", "local_shell")),
        {"tools": [{"type": "namespace", "tools": [{"type": "file_search"}]}]},
        {"tool_choice": {"type": "web_search"}},
        {"tools": ["web_search"]},
    ],
)
@pytest.mark.parametrize("metric", [LimitMetric.COST, LimitMetric.TOKENS])
def test_tools_of_the_provider_are_refused_under_a_limit_that_needs_a_bound(
    application: Application, account: Account, upstream: FakeUpstream, fields: dict[str, Any], metric: LimitMetric
) -> None:
    set_price(input="2", output="10")
    set_limit(account, None, metric, LimitPer.DAY, 10_000_000, None)
    refused = respond(application, **fields)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "limit_not_applicable")
    assert_nothing_happened(upstream)
    own = [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]
    assert respond(application, tools=[*own, {"type": "namespace", "tools": own}]).status_code == 200


@pytest.mark.parametrize(
    ("items", "meters"),
    [
        ([], {}),
        ([{"type": "web_search_call", "action": {"type": "search"}}, {"type": "web_search_call"}], {"web_searches": 2}),
        ([{"type": "web_search_call", "action": {"type": "open_page"}}], {}),
        ([{"type": "code_interpreter_call"}], {"unreported_tools": 1, "web_searches": 1}),
        ([{"type": "function_call"}, {"type": "local_shell_call"}, {"type": "mcp_call"}, {"type": "reasoning"}], {}),
    ],
)
def test_tools_that_ran_are_meters(
    application: Application, upstream: FakeUpstream, items: list[Any], meters: dict[str, int]
) -> None:
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    body = {"id": "resp_1", "object": "response", "model": "gpt-4o", "output": items, "usage": usage}
    upstream.enqueue(Script(body=orjson.dumps(body)))
    respond(application, tools=[{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}])
    [row] = closed_usage()
    assert (row.extra_meters, row.total_tokens) == (meters, 7)
    assert ("tools_unreported" in row.flags) is ("unreported_tools" in meters)
