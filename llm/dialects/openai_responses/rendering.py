"""Translated replies as responses, complete and as a stream of typed events.

They aren't stored anywhere, which `store: false` says. Their ids are ours, and only serve to tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import orjson

from llm.dialects.base import ParsedRequest
from llm.dialects.openai_responses.stream import with_response_cost
from llm.dialects.openai_responses.thinking import reasoning_item, summary_part
from llm.dialects.openai_responses.tools import namespaces_by_function
from llm.types import (
    ChatResponse,
    FinishReason,
    Heartbeat,
    Reading,
    StreamEnd,
    StreamItem,
    Thinking,
    ThinkingDelta,
    TokenCounts,
    ToolCallDelta,
)

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Members that repeat the request, and their values if it doesn't have them."""
_INCOMPLETE: Mapping[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}

JSON = dict[str, Any]
_Kind = Literal["rs", "msg", "fc"]
"""Kind of an item, as a prefix of its id: reasoning, a message, a function call."""


def render_whole(response: ChatResponse, body: Mapping[str, Any], *, request_id: str, created: int) -> bytes:
    """body: the caller's."""
    frame = _Frame(body, request_id, created, response.model)
    items = [reasoning_item(frame.item_id("rs", index), each) for index, each in enumerate(response.thinking)]
    if response.reply:
        items.append(_message_item(frame.item_id("msg", len(items)), response.reply))
    for call in response.tool_calls:
        item_id = frame.item_id("fc", len(items))
        items.append(_call_item(item_id, call.id, call.name, call.arguments, frame.namespace(call.name)))
    return orjson.dumps(frame.ended(items, response))


class OpenAIResponsesWriter:
    """A `StreamWriter`. An item ends where the next one begins, except calls: pieces of several may be interleaved."""

    def __init__(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> None:
        self._frame = _Frame(request.body, request_id, created, model)
        self._numbers = count()
        self._items: list[_OpenItem] = []
        self._thoughts: dict[int, _OpenItem] = {}
        self._calls: dict[int, _OpenItem] = {}

    def start(self) -> bytes:
        response = self._frame.begun()
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def item(self, item: StreamItem) -> bytes:
        if isinstance(item, str):
            return self._add_text(item)
        if isinstance(item, ThinkingDelta):
            return self._add_thinking(item)
        return b"" if isinstance(item, StreamEnd | Heartbeat | Reading) else self._add_call(item)

    def finish(self, response: ChatResponse, *, cost: str | None = None) -> bytes:
        closing = b"".join([self._close(item) for item in self._items if item.is_open])
        whole = self._frame.ended([item.document() for item in self._items], response)
        last = self._event(f"response.{whole['status']}", response=whole)
        return closing + (last if cost is None else with_response_cost(last, cost))

    def _add_text(self, text: str) -> bytes:
        opening = b""
        message = self._items[-1] if self._items else None
        if message is None or message.kind != "msg":
            message, opening = self._open("msg")
            opening += self._event("response.content_part.added", **message.part_place, part=_text_part(""))
        message.texts.append(text)
        delta = self._event("response.output_text.delta", **message.part_place, delta=text, logprobs=[])
        return opening + delta

    def _add_call(self, delta: ToolCallDelta) -> bytes:
        opening, call = b"", self._calls.get(delta.index)
        if call is None:
            call, opening = self._open("fc", call_id=delta.id, name=delta.name)
            self._calls[delta.index] = call
        if not delta.arguments:
            return opening
        call.texts.append(delta.arguments)
        return opening + self._event("response.function_call_arguments.delta", **call.place, delta=delta.arguments)

    def _add_thinking(self, delta: ThinkingDelta) -> bytes:
        opening, thought = b"", self._thoughts.get(delta.index)
        if thought is None or not thought.is_open or thought.data or delta.data:
            thought, opening = self._open("rs")
            self._thoughts[delta.index] = thought
        thought.signature, thought.data = delta.signature or thought.signature, delta.data
        if not delta.text:
            return opening
        if not thought.texts:
            opening += self._event("response.reasoning_summary_part.added", **thought.part_place, part=summary_part(""))
        thought.texts.append(delta.text)
        return opening + self._event("response.reasoning_summary_text.delta", **thought.part_place, delta=delta.text)

    def _open(self, kind: _Kind, *, call_id: str = "", name: str = "") -> tuple[_OpenItem, bytes]:
        """Adds an item; returns the events that end the previous one and begin this one."""
        before = self._items[-1] if self._items else None
        closing = self._close(before) if before is not None and before.is_open and before.kind != "fc" else b""
        index = len(self._items)
        item_id = self._frame.item_id(kind, index)
        namespace = self._frame.namespace(name)
        item = _OpenItem(kind, item_id, index, call_id=call_id or item_id, name=name, namespace=namespace)
        self._items.append(item)
        begun = {**item.document(), "status": "in_progress", **({"content": []} if kind == "msg" else {})}
        return item, closing + self._event("response.output_item.added", output_index=index, item=begun)

    def _close(self, item: _OpenItem) -> bytes:
        item.is_open = False
        done = b"".join([self._event(kind, **fields) for kind, fields in item.endings()])
        return done + self._event("response.output_item.done", output_index=item.index, item=item.document())

    def _event(self, kind: str, **fields: Any) -> bytes:
        document = {"type": kind, "sequence_number": next(self._numbers), **fields}
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(document))


@dataclass(slots=True)
class _OpenItem:
    """An item of the output while it is written: reasoning, a message, or a function call."""

    kind: _Kind
    id: str
    index: int
    call_id: str = ""
    name: str = ""
    namespace: str | None = None
    signature: str = ""
    data: str = ""
    texts: list[str] = field(default_factory=list)
    is_open: bool = True

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def arguments(self) -> str:
        return self.text or "{}"

    @property
    def place(self) -> JSON:
        return {"item_id": self.id, "output_index": self.index}

    @property
    def part_place(self) -> JSON:
        return {**self.place, "summary_index" if self.kind == "rs" else "content_index": 0}

    def document(self) -> JSON:
        if self.kind == "rs":
            return reasoning_item(self.id, Thinking(self.text, self.signature, self.data))
        if self.kind == "msg":
            return _message_item(self.id, self.text)
        arguments = self.text if self.is_open else self.arguments
        return _call_item(self.id, self.call_id, self.name, arguments, self.namespace)

    def endings(self) -> Iterator[tuple[str, JSON]]:
        """The events, with their members, that end the item's content."""
        if self.kind == "fc":
            called = {"name": self.name, "arguments": self.arguments}
            yield "response.function_call_arguments.done", {**self.place, **called}
        elif self.kind == "msg":
            yield "response.output_text.done", {**self.part_place, "text": self.text, "logprobs": []}
            yield "response.content_part.done", {**self.part_place, "part": _text_part(self.text)}
        elif self.texts:
            yield "response.reasoning_summary_text.done", {**self.part_place, "text": self.text}
            yield "response.reasoning_summary_part.done", {**self.part_place, "part": summary_part(self.text)}


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all renderings of one response share. request: the caller's body."""

    request: Mapping[str, Any]
    request_id: str
    created: int
    model: str

    def item_id(self, kind: str, index: int) -> str:
        return f"{kind}_{self._own_id}{index:04d}"

    def namespace(self, function: str) -> str | None:
        """Which the caller has put this function in."""
        return namespaces_by_function(self.request).get(function) if function else None

    def begun(self) -> JSON:
        return self._response("in_progress", [], None)

    def ended(self, items: list[JSON], response: ChatResponse) -> JSON:
        """response: with its final figures."""
        why = _INCOMPLETE.get(response.finish_reason)
        whole = self._response("completed" if why is None else "incomplete", items, usage_object(response.usage))
        return whole if why is None else {**whole, "incomplete_details": {"reason": why}}

    @property
    def _own_id(self) -> str:
        return self.request_id.removeprefix("req_")

    def _response(self, status: str, items: list[JSON], usage: JSON | None) -> JSON:
        said = {name: value for name in _ECHOED if (value := self.request.get(name)) is not None}
        return {
            "id": f"resp_{self._own_id}",
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": items,
            "previous_response_id": None,
            "store": False,
            **_ECHOED,
            **said,
            "usage": usage,
        }


def usage_object(counts: TokenCounts | None) -> JSON:
    """In OpenAI's form for responses."""
    counts = counts or TokenCounts()
    written = counts.cache_write_5m_tokens + counts.cache_write_1h_tokens
    return {
        "input_tokens": counts.prompt_tokens,
        "input_tokens_details": {"cached_tokens": counts.cache_read_tokens, "cache_write_tokens": written},
        "output_tokens": counts.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning_tokens},
        "total_tokens": counts.total_tokens,
    }


def _message_item(item_id: str, text: str) -> JSON:
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [_text_part(text)]}


def _text_part(text: str) -> JSON:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _call_item(item_id: str, call_id: str, name: str, arguments: str, namespace: str | None) -> JSON:
    call = {"id": item_id, "type": "function_call", "status": "completed", "call_id": call_id, "name": name}
    return {**call, "arguments": arguments, **({} if namespace is None else {"namespace": namespace})}
