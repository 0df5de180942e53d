"""What is kept at a provider is another account's for all we know, in whatever dialect and spelling it is named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import PassThrough
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.dialects.openai_completions.wire import OPENAI_COMPLETIONS
from llm.dialects.openai_embeddings.wire import OPENAI_EMBEDDINGS
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.errors import InvalidRequest

REQUESTS: list[tuple[PassThrough, dict[str, Any]]] = [
    (OPENAI_CHAT, {"messages": [{"role": "user", "content": "x"}]}),
    (OPENAI_COMPLETIONS, {"prompt": "x"}),
    (OPENAI_EMBEDDINGS, {"input": "x"}),
    (OPENAI_RESPONSES, {"input": "x"}),
]


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"conversation_id": "conv_1"},
        {"conversationId": "conv_1"},
        {"thread_id": "t"},
        {"ThreadID": "t"},
        {"context_id": "c"},
        {"cached_content": "cachedContents/1"},
        {"extra": {"CachedContent": "cachedContents/1"}},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
        {"tools": [{"type": "file_search", "VectorStoreIds": ["vs_1"]}]},
        {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "ID": "cntr_1"}}]},
        {"tool_resources": {"code_interpreter": {"file-ids": ["file-1"]}}},
        {"instructions": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
        {"new": [[{"fileId": "file-1"}]]},
    ],
)
@pytest.mark.parametrize(("wire", "body"), REQUESTS)
def test_it_is_refused_by_name(wire: PassThrough, body: dict[str, Any], fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        wire.parse(orjson.dumps({**body, **fields}))
    assert refused.value.param is not None
    assert "stored by the provider" in refused.value.message or "case-sensitive" in refused.value.message


@pytest.mark.parametrize(("wire", "body"), REQUESTS)
def test_letters_written_as_escapes_hide_nothing(wire: PassThrough, body: dict[str, Any]) -> None:
    raw = orjson.dumps({**body, "x": {"file_id": "f"}}).replace(b"file_id", rb"\u0066ile_id")
    with pytest.raises(InvalidRequest, match="stored by the provider"):
        wire.parse(raw)


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation": None, "file_id": None, "thread_id": ""},
        {"metadata": {"file_id": "mine", "conversation_id": "mine"}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"file_id": {"type": "string"}}}}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": []}}]},
        {"file": "x", "container": None, "thread": "x", "context": "x"},
    ],
)
@pytest.mark.parametrize(("wire", "body"), REQUESTS)
def test_what_callers_name_themselves_passes(wire: PassThrough, body: dict[str, Any], fields: dict[str, Any]) -> None:
    assert wire.parse(orjson.dumps({**body, **fields})).body == {**body, **fields}


@pytest.mark.parametrize("wire", [OPENAI_CHAT, OPENAI_COMPLETIONS])
def test_only_responses_go_on_from_a_response(wire: PassThrough) -> None:
    body = dict(REQUESTS)[wire]
    with pytest.raises(InvalidRequest, match="previous_response_id"):
        wire.parse(orjson.dumps({**body, "previous_response_id": "resp_1"}))


@pytest.mark.parametrize("name", ["\u017fkill_id", "\\u017fkill_id", "s\u212aill_id", "\\u0073\\u212aill_id"])
@pytest.mark.parametrize(("wire", "body"), REQUESTS)
def test_letters_that_are_the_same_in_another_case_hide_nothing(
    wire: PassThrough, body: dict[str, Any], name: str
) -> None:
    raw = orjson.dumps({**body, "x": {"?": "s"}}).replace(b"?", name.encode())
    with pytest.raises(InvalidRequest, match="stored by the provider"):
        wire.parse(raw)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages[0].audio.id"),
        ({"audio": {"voice": {"id": "voice_1"}, "format": "wav"}}, "audio.voice.id"),
    ],
)
def test_spoken_answers_and_voices_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest, match="stored by the provider") as refused:
        OPENAI_CHAT.parse(orjson.dumps({"messages": [{"role": "user", "content": "x"}], **fields}))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ({"content": [{"type": "new", "file_id": "f"}]}, "content[0].file_id"),
        (
            {"content": [{"type": "new", "inner": [{"source": {"fileIds": ["f"]}}]}]},
            "content[0].inner[0].source.fileIds",
        ),
        ({"content": "x", "file_id": "f"}, "file_id"),
    ],
)
def test_files_in_what_is_unknown_are_refused_in_messages_too(message: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest, match="can't tell whose it is") as refused:
        ANTHROPIC_MESSAGES.parse(orjson.dumps({"messages": [{"role": "user", **message}]}))
    assert refused.value.param == f"messages[0].{path}"


def test_results_and_what_models_write_may_name_files() -> None:
    output = {"type": "bash_code_execution_output", "file_id": "file_1"}
    result = {"type": "bash_code_execution_tool_result", "content": {"type": "x", "content": [output]}}
    call = {"type": "tool_use", "id": "t", "name": "read", "input": {"file_id": "mine"}}
    body = {"messages": [{"role": "assistant", "content": [call, result]}], "metadata": {"file_id": "mine"}}
    assert ANTHROPIC_MESSAGES.parse(orjson.dumps(body)).body == body


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "status": "completed"},
        {"type": "web_search_call"},
        {"type": "file_search_call", "queries": [], "results": None},
        {"type": "mcp_list_tools", "server_label": "s"},
        {"type": "unknown"},
    ],
)
def test_an_item_that_says_nothing_refers_to_the_stored_one(item: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="stored by the provider") as refused:
        OPENAI_RESPONSES.parse(orjson.dumps({"input": [{"role": "user", "content": "x"}, {"id": "i_1", **item}]}))
    assert refused.value.param == "input[1].id"


def test_items_with_their_content_and_reasoning_pass() -> None:
    items = [
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
        {"id": "fo_1", "type": "function_call_output", "call_id": "c", "output": ""},
    ]
    assert OPENAI_RESPONSES.parse(orjson.dumps({"input": items})).body == {"input": items}
