from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import ResponseErrorEvent

from llm.dialects.base import KeptResponse, ParsedRequest, PassThrough
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.enums import Dialect
from llm.errors import InvalidRequest, UpstreamFailed
from llm.types import Reading, Service, TokenCounts

USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 17,
}
ENCRYPTED = {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}


def parse(**fields: Any) -> ParsedRequest:
    return OPENAI_RESPONSES.parse(orjson.dumps({"input": "Hello", **fields}))


def read(**fields: Any) -> Reading:
    return OPENAI_RESPONSES.read_whole(orjson.dumps({"id": "resp_1", "model": "m", "output": [], **fields}))


def test_it_is_a_pass_through_format() -> None:
    wire: PassThrough = OPENAI_RESPONSES
    assert (wire.dialect, wire.path) == (Dialect.OPENAI_RESPONSES, "/responses")


def test_a_request_is_parsed_as_far_as_the_gateway_needs() -> None:
    raw = (
        b'{"model":"gpt-4o","input":"Hi","stream":true,"max_output_tokens":50,"previous_response_id":"resp_1",'
        b'"service_tier":"flex","tools":[{"type":"web_search"}],"unknown":1.0,'
        b'"prompt_cache_options":{"comparison_response_id":"resp_2"}}'
    )
    assert OPENAI_RESPONSES.parse(raw) == ParsedRequest(
        dialect=Dialect.OPENAI_RESPONSES,
        body=orjson.loads(raw),
        raw=raw,
        model="gpt-4o",
        is_stream=True,
        max_output_tokens=50,
        asked_service=Service("flex"),
        tool_meters=("web_searches",),
        kept_responses=(
            KeptResponse("previous_response_id", "resp_1"),
            KeptResponse("prompt_cache_options.comparison_response_id", "resp_2"),
        ),
    )


@pytest.mark.parametrize(
    ("sent", "known"), [(50, 50), (50.0, 50), (0, 1), (-1, None), (None, None), ("9", None), (1.5, None), (True, None)]
)
def test_a_maximum_that_may_not_be_read_is_none(sent: Any, known: int | None) -> None:
    """Whether it is right is the upstream's to say."""
    assert parse(max_output_tokens=sent).max_output_tokens == known


@pytest.mark.parametrize("sent", [None, 50, 500, -1, "9"])
def test_a_limit_lowers_the_maximum_and_never_raises_it(sent: Any) -> None:
    request = parse(model="gpt-4o", max_output_tokens=sent)
    body = OPENAI_RESPONSES.upstream_body(request, upstream_model="gpt-4o", max_output_tokens=100)
    assert orjson.loads(body)["max_output_tokens"] == (50 if sent == 50 else 100)


def test_a_body_that_needs_no_change_goes_up_byte_for_byte() -> None:
    raw = b'{ "input" : "\\u00fc", "model":"gpt-4o", "x": 1.0e3 }'
    assert OPENAI_RESPONSES.upstream_body(OPENAI_RESPONSES.parse(raw), upstream_model="gpt-4o") == raw
    unnamed = OPENAI_RESPONSES.parse(b'{ "input" : "\\u00fc" }')
    assert OPENAI_RESPONSES.upstream_body(unnamed, upstream_model="m") == b'{ "input" : "\\u00fc" ,"model":"m"}'
    assert OPENAI_RESPONSES.upstream_body(OPENAI_RESPONSES.parse(b"{}"), upstream_model="m") == b'{"model":"m"}'


# --- How large a request may be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "x"},
        {"input": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "output_text"}]}]},
        {"input": [{"type": "function_call", "arguments": "{}"}, {"type": "function_call_output", "output": "x"}]},
        {"input": [{"type": "custom_tool_call_output", "output": [{"type": "input_text", "text": "x"}]}, ENCRYPTED]},
        {"instructions": "x", "input": None},
    ],
)
def test_texts_are_bounded_by_their_bytes(fields: dict[str, Any]) -> None:
    request = parse(**fields)
    assert OPENAI_RESPONSES.extent(request) == (len(request.raw) + 256, "", "")


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
        {"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_url": "https://x"}]}]},
        {"input": [{"type": "reasoning", "summary": []}]},
        {"input": [{"type": "unheard_of"}]},
        {"input": ["x"]},
        {"instructions": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]},
        {"chat_template": "x"},
        {"context_management": [{"type": "compaction"}]},
    ],
)
def test_of_anything_else_nobody_knows_how_large_it_is(fields: dict[str, Any]) -> None:
    assert OPENAI_RESPONSES.extent(parse(**fields)).input_tokens is None


@pytest.mark.parametrize(
    ("tools", "meters"),
    [
        ([{"type": "function"}, {"type": "custom"}, {"type": "mcp"}, {"type": "computer_use_preview"}], ()),
        ([{"type": "namespace", "tools": [{"type": "function"}]}], ()),
        ([{"type": "shell", "environment": {"type": "local"}}], ()),
        ([{"type": "web_search_preview"}], ("web_searches",)),
        ([{"type": "web_search"}, {"type": "image_generation"}], ("web_searches", "unreported_tools")),
        ([{"type": "shell"}], ("unreported_tools",)),
        ([{"type": ["x"]}], ("unreported_tools",)),
    ],
)
def test_tools_with_a_fee_are_meters(tools: list[Any], meters: tuple[str, ...]) -> None:
    assert parse(tools=tools).tool_meters == meters


@pytest.mark.parametrize(
    ("fields", "bought"),
    [
        ({"prediction": {"type": "content", "content": "x"}}, "a predicted output"),
        ({"modalities": ["image"]}, "output other than text and audio"),
        ({"context_management": [{"type": "compaction"}]}, "a compaction of the conversation"),
    ],
)
def test_output_beside_the_maximum_has_no_bound(fields: dict[str, Any], bought: str) -> None:
    assert OPENAI_RESPONSES.extent(parse(**fields)).unbounded_output == bought


def test_other_names_of_the_output_raise_its_bound_and_are_lowered_with_it() -> None:
    request = parse(model="m", max_output_tokens=50, max_tokens=900, n=3, thinking={"budget_tokens": 100})
    assert (request.max_output_tokens, request.thinking_tokens, request.choices) == (1_000, 100, 3)
    assert parse(max_tokens=900).max_output_tokens is None
    body = orjson.loads(OPENAI_RESPONSES.upstream_body(request, upstream_model="m", max_output_tokens=200))
    assert max(body["max_output_tokens"], body["max_tokens"]) + body["thinking"]["budget_tokens"] <= 200


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"tools": [{"type": "image_generation", "model": "dear"}]}, ("tools[0].model",)),
        ({"tools": [{"type": "namespace", "tools": []}, {"type": "x", "model": "dear"}]}, ("tools[1].model",)),
        ({"moderation": {"model": "dear"}}, ("moderation.model",)),
        ({"input": [{"model": "said"}], "metadata": {"model": "mine"}, "tools": [{"model": None}]}, ()),
    ],
)
def test_a_model_of_its_own_inside_a_field_chooses_who_serves(fields: dict[str, Any], found: tuple[str, ...]) -> None:
    assert parse(**fields).routing_fields == found


# --- What is kept at the provider -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["input", "instructions"])
@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"type": "item_reference", "id": "msg_1", "role": "user", "content": "x"},
        {"id": "msg_1"},
        {"id": "msg_1", "extra": True},
        {"id": "msg_1", "type": None, "content": None},
        {"id": "msg_1", "type": "message", "role": "assistant", "content": None},
        {"id": "ig_1", "type": "image_generation_call", "result": None},
        {"id": "ig_1", "type": "image_generation_call"},
        {"id": "cmp_1", "type": "compaction"},
        {"id": "x_1", "type": ["item_reference"]},
    ],
)
def test_an_item_that_stands_for_one_that_is_kept_is_refused(name: str, item: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(**{name: [{"role": "user", "content": "x"}, item]})
    assert refused.value.param == f"{name}[1].id"


def test_an_item_that_repeats_its_content_passes_with_its_id() -> None:
    parse(
        input=[
            {"id": "msg_1", "type": "message", "role": "assistant", "content": []},
            {"id": "rs_1", "type": "reasoning", "summary": []},
            {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"id": "ig_1", "type": "image_generation_call", "result": "iVBO"},
        ]
    )


def test_nobody_chooses_the_id_of_a_response() -> None:
    with pytest.raises(InvalidRequest, match="request_id"):
        parse(request_id="resp_of_somebody_else")


def test_what_names_nothing_that_is_kept_passes() -> None:
    parse(
        conversation=None,
        prompt=None,
        background=False,
        previous_response_id=None,
        input=[{"role": "user", "content": [{"type": "input_file", "file_id": None, "file_data": "data:,"}]}],
        tools=[{"type": "code_interpreter", "container": {"type": "auto", "file_ids": []}}],
    )


def test_a_field_that_an_other_case_hides_is_refused() -> None:
    for hidden in (
        {"moderation": {"Model": "x"}},
        {"Background": True},
        {"input": [{"ID": "x"}]},
        {"tools": [{"Container": "x"}]},
    ):
        with pytest.raises(InvalidRequest, match="case-sensitive"):
            parse(**hidden)


# --- Replies ----------------------------------------------------------------------------------------------------------


def test_usage_is_read_in_the_responses_words() -> None:
    reading = read(usage=USAGE, service_tier="default", cost="x")
    counts = TokenCounts(10, 7, cache_read_tokens=4, cache_write_5m_tokens=5, reasoning_tokens=3)
    assert reading == Reading(
        counts, model="m", response_id="resp_1", service=Service("default"), is_final=True, reports_tools=True
    )


def test_what_is_kept_for_long_is_booked_apart() -> None:
    details = {"cached_tokens": 0, "cache_write_tokens": 5, "cache_write_tokens_details": {"ttl_12h_tokens": 2}}
    counts = read(usage={**USAGE, "input_tokens_details": details}).counts
    assert counts is not None
    assert (counts.cache_write_5m_tokens, counts.cache_write_1h_tokens) == (3, 2)


@pytest.mark.parametrize(
    ("usage", "is_absurd"),
    [(None, False), ({}, False), ({"input_tokens": 3}, False), ({"input_tokens": -1, "output_tokens": 1}, True)],
)
def test_usage_that_is_missing_or_absurd(usage: Any, is_absurd: bool) -> None:
    reading = read(usage=usage)
    assert (reading.counts, reading.absurd_usage is not None) == (None, is_absurd)
    assert not reading.reports_tools


def test_searches_are_counted_as_the_response_counts_them() -> None:
    output = [{"type": "web_search_call", "action": {"type": "search"}}]
    counts = read(usage=USAGE, output=output, tool_usage={"web_search": {"num_requests": 3}}).counts
    assert counts is not None
    assert counts.extra_meters == {"web_searches": 3}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id":"x"}', b'{"output":{}}', b'{"error":{"message":"x"}}'])
def test_what_is_no_response_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        OPENAI_RESPONSES.read_whole(body)


def test_the_text_of_a_reply_is_all_that_was_generated() -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "b"}, {"type": "refusal", "refusal": "c"}]},
        {"type": "function_call", "name": "d", "arguments": "e"},
        {"type": "new", "content": 7},
        "x",
    ]
    assert OPENAI_RESPONSES.whole_text(orjson.dumps({"output": output})) == "abcde"


def test_the_text_of_a_prompt_is_all_that_is_read() -> None:
    request = parse(
        instructions="a",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "b"}]}, {"content": "c"}, {"output": "d"}],
    )
    assert OPENAI_RESPONSES.prompt_text(request) == "a\nb\nc\nd"


@pytest.mark.parametrize(
    ("member", "is_cut"),
    [
        (b'"cost":1', True),
        (b'"usage":{"cost":1}', True),
        (b'"tools":[{"parameters":{"properties":{"price":{}}}}]', False),
        (b'"text":{"format":{"schema":{"properties":{"total_cost":{}}}}}', False),
        (b'"metadata":{"cost_center":"1"}', False),
        (b'"output":[{"type":"mcp_list_tools","tools":[{"input_schema":{"price":1}}]}]', False),
        (b'"output":[{"type":"new","cost":1}]', True),
    ],
)
@pytest.mark.parametrize("frame", [b'{"object":"response",%s}', b'{"type":"x","response":{"object":"response",%s}}'])
def test_prices_are_cut_and_the_callers_own_words_are_not(frame: bytes, member: bytes, is_cut: bool) -> None:
    body = frame % member
    assert (OPENAI_RESPONSES.without_money(body) != body) is is_cut


def test_an_error_on_a_stream_is_written_as_documented_and_as_the_sdk_reads_it() -> None:
    event = OPENAI_RESPONSES.render_stream_error(
        UpstreamFailed("It broke."), request_id="req_1", origin={"attempts": 2}
    )
    name, data = event.removesuffix(b"\n\n").split(b"\n")
    assert name == b"event: error"
    document = orjson.loads(data.removeprefix(b"data: "))
    assert ResponseErrorEvent.model_validate(document).message == document["error"]["message"] == "It broke."
    assert (document["error"]["status"], document["error"]["attempts"]) == (502, 2)


OURS = {"type": "reasoning", "summary": [], "encrypted_content": "llm-gateway.signature:s"}


def test_our_own_reasoning_is_not_sent_to_openai() -> None:
    others: list[Any] = [ENCRYPTED, {"role": "user", "content": "llm-gateway.signature:"}, "x", {"type": "reasoning"}]
    request = OPENAI_RESPONSES.parse(orjson.dumps({"model": "m", "input": [OURS, *others, OURS], "x": 1.0}))
    body = OPENAI_RESPONSES.upstream_body(request, upstream_model="m")
    assert orjson.loads(body) == {"model": "m", "input": others, "x": 1.0}
    untouched = OPENAI_RESPONSES.parse(orjson.dumps({"input": others, "model": "m"}))
    assert OPENAI_RESPONSES.upstream_body(untouched, upstream_model="m") == untouched.raw
    words = OPENAI_RESPONSES.parse(b'{"input":"llm-gateway.signature:","model":"m"}')
    assert OPENAI_RESPONSES.upstream_body(words, upstream_model="m") == words.raw
