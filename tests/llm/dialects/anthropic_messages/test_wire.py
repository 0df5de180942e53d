from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import Extent, ParsedRequest, PassThrough
from llm.dialects.usage_figures import UNREPORTED_TOOLS, WEB_SEARCHES
from llm.enums import Dialect
from llm.errors import InvalidRequest, UpstreamFailed
from llm.types import Reading, Service, TokenCounts

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def parse(**fields: Any) -> ParsedRequest:
    return ANTHROPIC_MESSAGES.parse(orjson.dumps({"model": "m", "max_tokens": 100, "messages": HELLO, **fields}))


def content(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(blocks)}]


def test_it_is_a_pass_through_dialect() -> None:
    wire: PassThrough = ANTHROPIC_MESSAGES
    assert (wire.dialect, wire.path) == (Dialect.ANTHROPIC_MESSAGES, "/v1/messages")


def test_a_request_is_read_as_far_as_the_books_need_it() -> None:
    request = parse(stream=True, service_tier="auto", speed="fast", inference_geo="us", metadata={"user_id": "u"})
    assert (request.model, request.is_stream, request.wants_stream_usage) == ("m", True, True)
    assert (request.max_output_tokens, request.choices, request.thinking_tokens) == (100, 1, 0)
    assert request.asked_service == Service("auto", "fast", "us")
    assert (request.routing_fields, request.tool_meters) == ((), ())


@pytest.mark.parametrize(
    ("sent", "counts_as"), [(None, None), (-1, None), ("many", None), (True, None), (0, 1), (1000.0, 1000), (7, 7)]
)
def test_an_odd_maximum_passes_as_sent(sent: object, counts_as: int | None) -> None:
    request = parse(max_tokens=sent)
    assert request.max_output_tokens == counts_as
    assert ANTHROPIC_MESSAGES.upstream_body(request, upstream_model="m") == request.raw


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": "hello"},
        {"messages": [7, {"role": "wizard", "content": [7, {"type": ["text"]}]}]},
        {"tools": "all", "system": 7, "thinking": 7, "metadata": 7, "tool_choice": 7},
        {"new_field": {"deep": [1.50]}},
    ],
)
def test_what_is_the_providers_to_judge_passes(fields: dict[str, Any]) -> None:
    request = parse(**fields)
    assert ANTHROPIC_MESSAGES.upstream_body(request, upstream_model="m") == request.raw
    ANTHROPIC_MESSAGES.extent(request)
    ANTHROPIC_MESSAGES.prompt_text(request)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"MODEL": "x"}, "model"),
        ({"Max_Tokens": 9}, "max_tokens"),
        ({"messages": [{"Role": "user"}]}, "messages.role"),
        ({"messages": content({"type": "image", "Source": {}})}, "messages.content.source"),
        (
            {"messages": content({"type": "tool_result", "content": [{"type": "image", "Source": {}}]})},
            "messages.content.content.source",
        ),
        ({"tools": [{"Type": "web_search_20250305"}]}, "tools.type"),
        ({"model": 7}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"stream": "true"}, "stream"),
        ({"container": "container_1"}, "container"),
        ({"container": {"id": "container_1"}}, "container"),
        ({"container": {"skills": [{"type": "custom", "skill_id": "s"}]}}, "container"),
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
        ({"fallback_credit_token": "t"}, "fallback_credit_token"),
        ({"diagnostics": {"previous_message_id": "msg_1"}}, "diagnostics.previous_message_id"),
        ({"billing_policy": {"type": "billing_policy", "bill_to": "user_profile"}}, "billing_policy"),
        (
            {"messages": content({"type": "document", "source": {"type": "file", "file_id": "file_1"}})},
            "messages[0].content[0].source.file_id",
        ),
        (
            {
                "messages": content(
                    {"type": "tool_result", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                )
            },
            "messages[0].content[0].content[0].source.file_id",
        ),
        ({"messages": content({"type": "container_upload", "file_id": "f"})}, "messages[0].content[0].file_id"),
    ],
)
def test_what_would_make_the_books_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse(**fields)
    assert refusal.value.param == param


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="repeats the key"):
        ANTHROPIC_MESSAGES.parse(b'{"model":"a","messages":[],"model":"b"}')


def test_what_names_nothing_of_the_providers_passes() -> None:
    parse(
        container={"skills": [{"type": "anthropic", "skill_id": "pdf"}]},
        diagnostics={"previous_message_id": None},
        billing_policy={"type": "billing_policy", "bill_to": "self"},
    )


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"fallbacks": [{"model": "other"}]}, ("fallbacks",)),
        ({"litellm_params": {}}, ("litellm_params",)),
        ({"tools": [TOOL, {"type": "advisor_20260301", "name": "advisor", "model": "x"}]}, ("tools[1].model",)),
    ],
)
def test_fields_that_choose_another_model(fields: dict[str, Any], found: tuple[str, ...]) -> None:
    assert parse(**fields).routing_fields == found


# --- Extent -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "added"),
    [
        ({}, 256),
        ({"system": [{"type": "text", "text": "x"}]}, 256),
        ({"messages": content({"type": "text", "text": "x"}, {"type": "thinking", "thinking": "t"})}, 256),
        ({"messages": content({"type": "document", "source": {"type": "text", "data": "x"}})}, 256),
        ({"tools": [TOOL]}, 256 + 1024),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, 256 + 1024 + 2048),
    ],
)
def test_text_is_bounded_by_its_bytes(fields: dict[str, Any], added: int) -> None:
    request = parse(**fields)
    assert ANTHROPIC_MESSAGES.extent(request) == Extent(len(request.raw) + added)


@pytest.mark.parametrize(
    ("fields", "extent"),
    [
        ({"messages": content({"type": "image", "source": {"type": "url"}})}, Extent(None)),
        ({"messages": content({"type": "document", "source": {"type": "base64"}})}, Extent(None)),
        ({"messages": content({"type": "tool_result", "content": [{"type": "image"}]})}, Extent(None)),
        ({"messages": content({"type": "hologram"})}, Extent(None)),
        ({"tools": [{"type": "web_search_20250305"}]}, Extent(None, "tools that the provider runs")),
        ({"tools": [{"type": "hologram_2027"}]}, Extent(None, "tools that the provider runs")),
        ({"mcp_servers": [{"url": "https://x"}]}, Extent(None, "tools that the provider runs")),
        ({"fallbacks": "default"}, Extent(None)),
        (
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            Extent(None, "", "a compaction of the conversation"),
        ),
    ],
)
def test_what_has_no_bound(fields: dict[str, Any], extent: Extent) -> None:
    assert ANTHROPIC_MESSAGES.extent(parse(**fields)) == extent


@pytest.mark.parametrize(
    ("tools", "meters"),
    [
        ([TOOL, {"type": "custom", **TOOL}, {"type": "computer_20251124"}], ()),
        ([{"type": "web_search_20250305"}, {"type": "web_fetch_20250910"}], ()),
        ([{"type": "code_execution_20250825"}], (UNREPORTED_TOOLS,)),
        ([{"type": "code_execution_20260120"}, {"type": "web_search_20260209"}], ()),
        ([{"type": "code_execution_20250825"}, {"type": "web_search_20250305"}], (UNREPORTED_TOOLS,)),
        ([{"type": "hologram_2027"}], (UNREPORTED_TOOLS,)),
    ],
)
def test_meters_of_tools_whose_cost_no_reply_reports(tools: list[dict[str, Any]], meters: tuple[str, ...]) -> None:
    assert parse(tools=tools).tool_meters == meters


# --- Up ---------------------------------------------------------------------------------------------------------------


def test_the_models_name_is_replaced_and_nothing_else() -> None:
    raw = b'{"messages":[{"role":"user","content":"\\u00e9"}], "max_tokens": 5, "x": 1.50, "model": "public"}'
    request = ANTHROPIC_MESSAGES.parse(raw)
    assert ANTHROPIC_MESSAGES.upstream_body(request, upstream_model="public") is request.raw
    body = orjson.loads(ANTHROPIC_MESSAGES.upstream_body(request, upstream_model="claude"))
    assert body == {**orjson.loads(raw), "model": "claude"}


@pytest.mark.parametrize(
    ("fields", "lowered"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5000}, {"max_tokens": 3000}),
        ({"max_tokens": -1}, {"max_tokens": 3000}),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 4000, "display": "omitted"}},
            {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 1499, "display": "omitted"}},
        ),
        (
            {"max_tokens": 5000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
    ],
)
def test_a_limit_lowers_the_maximum_and_never_raises_it(fields: dict[str, Any], lowered: dict[str, Any]) -> None:
    request = parse(**fields)
    body = orjson.loads(ANTHROPIC_MESSAGES.upstream_body(request, upstream_model="m", max_output_tokens=3000))
    assert body == {**orjson.loads(request.raw), **lowered}


# --- Down -------------------------------------------------------------------------------------------------------------

REPLY: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-x",
    "content": [{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "b"}],
    "usage": {"input_tokens": 3, "output_tokens": 2, "service_tier": "priority", "inference_geo": "us"},
}


def test_a_whole_reply_is_read() -> None:
    assert ANTHROPIC_MESSAGES.read_whole(orjson.dumps(REPLY)) == Reading(
        counts=TokenCounts(prompt_tokens=3, completion_tokens=2),
        model="claude-x",
        response_id="msg_1",
        service=Service("priority", "", "us"),
        is_final=True,
        reports_tools=True,
    )
    assert ANTHROPIC_MESSAGES.whole_text(orjson.dumps(REPLY)) == "a b"


def test_searches_and_code_that_a_whole_reply_shows() -> None:
    search = {"type": "server_tool_use", "name": "web_search", "input": {}}
    code = {"type": "server_tool_use", "name": "code_execution", "input": {}}
    reading = ANTHROPIC_MESSAGES.read_whole(orjson.dumps({**REPLY, "content": [search, search]}))
    assert reading.counts is not None
    assert (reading.counts.extra_meters, reading.reports_tools) == ({WEB_SEARCHES: 2}, True)
    assert not ANTHROPIC_MESSAGES.read_whole(orjson.dumps({**REPLY, "content": [code]})).reports_tools


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"content":"x"}', b'{"type":"error","error":{"type":"x"},"content":[]}']
)
def test_what_is_no_message_is_a_failure(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        ANTHROPIC_MESSAGES.read_whole(body)


def test_prices_of_the_upstream_go_and_a_tools_input_stays() -> None:
    content = [{"type": "tool_use", "id": "t", "name": "buy", "input": {"price": 7, "cost": {"usd": 1}}}]
    body = orjson.dumps({"content": content, "cost": 1, "usage": {"cost": 0.5, "input_tokens": 3}})
    kept = orjson.dumps({"content": content, "usage": {"input_tokens": 3}})
    assert ANTHROPIC_MESSAGES.without_money(body) == kept
    assert ANTHROPIC_MESSAGES.with_cost(kept, "0.25") == kept.replace(b'"usage":{', b'"usage":{"cost": 0.25, ')


def test_the_text_of_a_prompt_is_all_that_the_model_reads() -> None:
    request = parse(
        system=[{"type": "text", "text": "Be brief."}],
        messages=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "tool_use", "name": "b", "input": {"c": 1}}]},
            *content(
                {"type": "tool_result", "content": [{"type": "text", "text": "d"}]},
                {"type": "document", "title": "e", "source": {"type": "text", "data": "f"}},
            ),
        ],
        tools=[TOOL],
    )
    text = 'Be brief.\na\nb {"c":1}\nd e f\n[{"name":"weather","input_schema":{"type":"object"}}]'
    assert ANTHROPIC_MESSAGES.prompt_text(request) == text


def test_unsigned_thinking_is_not_sent_to_anthropic() -> None:
    unsigned = {"type": "thinking", "thinking": "a", "signature": ""}
    signed = [{**unsigned, "signature": "s"}, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "b"}]
    others: list[Any] = [
        {"role": "user", "content": '{"signature": ""}'},
        {"role": "assistant", "content": [unsigned]},
        {"role": "user", "content": [{"type": "tool_result", "signature": ""}, "x"]},
        "x",
    ]
    body = {"model": "m", "messages": [{"role": "assistant", "content": [unsigned, *signed]}, *others], "x": 1.0}
    request = ANTHROPIC_MESSAGES.parse(orjson.dumps(body))
    sent = orjson.loads(ANTHROPIC_MESSAGES.upstream_body(request, upstream_model="m"))
    assert sent == {**body, "messages": [{"role": "assistant", "content": signed}, *others]}
    untouched = ANTHROPIC_MESSAGES.parse(orjson.dumps({"model": "m", "messages": others}))
    assert ANTHROPIC_MESSAGES.upstream_body(untouched, upstream_model="m") == untouched.raw
