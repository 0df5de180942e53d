"""What is kept at a provider is another account's for all we know, in whatever dialect and spelling it is named."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

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
