"""Follows a pass-through chat stream at the price of a few byte searches a block.

Blocks go on as they came. Only those that mention usage, money, an error or the end are taken apart. Down, exactly
three things change: where the caller did not ask for usage, the usage chunk and the `"usage":null` that we caused are
taken out; what the upstream says of its prices is taken out of every chunk; where the account shows its cost, the usage
chunk gets it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from llm.dialects.base import Reading
from llm.dialects.json_text import with_usage_cost, without_member
from llm.dialects.money_fields import may_hold_money, upstream_cost_of, without_money
from llm.dialects.openai_chat_text import message_text
from llm.dialects.openai_usage import read_usage
from llm.dialects.sse import EventSplitter, read_event, split_events
from llm.dialects.usage_figures import merged_service, service_of
from llm.types import Service, UpstreamCost

# Raw blocks are kept unread for as long as that is cheap: mostly the upstream reports usage, and nobody needs the text.
MAX_RAW_BYTES = 64 * 1024
MAX_TEXT_CHARACTERS = 1024 * 1024
MAX_FAILURE_CHARACTERS = 50

# Followed by the brace that closes the event, it is a member of the event's own object, not of one inside it.
_NULL_USAGE = re.compile(rb',"usage":null(?=(?:,"obfuscation":"[^"\\]*+")?\}\r?\n)')
_NOT_IN_A_CODE = re.compile(r"[^a-z0-9_.-]")
_DONE = b"[DONE]"


class OpenAIChatReader:
    """A `StreamReader`. wants_usage: the caller asked for the usage chunk."""

    def __init__(self, *, wants_usage: bool) -> None:
        self._wants_usage = wants_usage
        self._splitter = EventSplitter()
        self._transcript = _Transcript()
        self._has_data = False
        self._done_event = b""
        self._failure: str | None = None
        self._error: Mapping[str, Any] | None = None
        self._model = self._response_id = ""
        self._service = Service()
        self._usage: Any = None
        self._upstream_cost: UpstreamCost | None = None
        self._is_final = False
        self._usage_event = b""
        self._behind_usage: list[bytes] = []

    @property
    def has_data(self) -> bool:
        return self._has_data

    @property
    def is_complete(self) -> bool:
        # Some servers close the connection without the blank line that ends their last event.
        return bool(self._done_event) or (self._has_data and _is_done_line(self._splitter.pending))

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def error(self) -> Mapping[str, Any] | None:
        return self._error

    @property
    def dropped_characters(self) -> int:
        return self._transcript.dropped_characters

    def feed(self, data: bytes) -> bytes:
        block = self._splitter.feed(data)
        if not block or self._done_event or self._failure is not None:
            return b""
        self._transcript.add(block)
        if not self._wants_usage and b',"usage":null' in block:
            block = _NULL_USAGE.sub(b"", block)
        if self._is_plain(block):
            return block
        return b"".join([self._pass(event) for event in split_events(block)])

    def finish(self, *, cost: str | None = None) -> bytes:
        if self._failure is not None:
            return b""
        usage_event = with_usage_cost(self._usage_event, cost) if cost is not None else self._usage_event
        done_event = self._done_event or (b"data: [DONE]\n\n" if self.is_complete else b"")
        return usage_event + b"".join(self._behind_usage) + done_event

    def reading(self) -> Reading:
        counts, absurd_usage = read_usage(self._usage)
        return Reading(
            counts=counts,
            absurd_usage=absurd_usage,
            model=self._model,
            response_id=self._response_id,
            service=self._service,
            is_final=self._is_final,
            upstream_cost=self._upstream_cost,
        )

    def output_text(self) -> str:
        return self._transcript.text()

    def _is_plain(self, block: bytes) -> bool:
        """Nothing in it is for us. Only structural quotes are unescaped, so no text of a model looks like these."""
        return (
            bool(self._model)
            and not self._is_final
            and block.startswith(b"data:")
            and not self._tells_usage(block)
            and not may_hold_money(block)
            and b'"error"' not in block
            and _DONE not in block
            and b"\nerror:" not in block
        )

    def _tells_usage(self, block: bytes) -> bool:
        if b'"usage"' not in block:
            return False
        return not self._wants_usage or block.count(b'"usage"') != block.count(b'"usage":null')

    def _pass(self, raw: bytes) -> bytes:
        """One event: what goes to the caller of it now."""
        if self._done_event or self._failure is not None:
            return b""
        if self._is_plain(raw):
            return raw
        data = read_event(raw).data
        if data is None:
            return self._pass_without_data(raw)
        self._has_data = True
        if data.strip() == _DONE:
            self._done_event = raw
            return b""
        chunk = _loaded(data)
        if chunk is None:
            return self._released() + raw
        if failure := _failure_of(chunk):
            self._failure, self._error = failure, chunk
            return b""
        self._identify(chunk)
        return self._pass_chunk(without_money(raw), chunk)

    def _pass_chunk(self, raw: bytes, chunk: Mapping[str, Any]) -> bytes:
        choices, usage = chunk.get("choices"), chunk.get("usage")
        if usage is not None:
            self._usage = usage
            self._is_final = _is_last(choices)
        elif choices:
            self._is_final = False
        if isinstance(usage, dict) and choices == [] and not self._wants_usage:
            return b""
        if isinstance(usage, dict) and self._is_final and self._wants_usage:
            released = self._released()
            self._usage_event = raw
            return released
        if usage is None and "usage" in chunk and not self._wants_usage:
            raw = without_member(raw, b"usage")
        if choices == [] and self._usage_event:
            self._behind_usage.append(raw)
            return b""
        return self._released() + raw

    def _pass_without_data(self, raw: bytes) -> bytes:
        """Comments keep a connection alive. A field that SSE does not know is nothing to a client, and may be
        an error in the upstream's own words (llama.cpp once sent `error: {...}`)."""
        if raw.lstrip().startswith(b":"):
            return raw
        if raw.startswith(b"error:"):
            self._error = {"error": _loaded(raw[len(b"error:") :]) or "error"}
            self._failure = _failure_of(self._error)
        return b""

    def _released(self) -> bytes:
        """What was held back as the last usage, but was not the last."""
        if not self._usage_event:
            return b""
        held = self._usage_event + b"".join(self._behind_usage)
        self._usage_event = b""
        self._behind_usage = []
        return held

    def _identify(self, chunk: Mapping[str, Any]) -> None:
        self._model = _text(chunk, "model") or self._model
        self._response_id = _text(chunk, "id") or self._response_id
        self._service = merged_service(self._service, service_of(chunk, chunk.get("usage")))
        if (cost := upstream_cost_of(chunk)) is not None:
            self._upstream_cost = cost


class _Transcript:
    """The generated text of a stream, in bounded memory."""

    def __init__(self) -> None:
        self.dropped_characters = 0
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._texts: list[str] = []
        self._characters = 0

    def add(self, block: bytes) -> None:
        self._raw.append(block)
        self._raw_bytes += len(block)
        if self._raw_bytes > MAX_RAW_BYTES:
            self._fold()

    def text(self) -> str:
        self._fold()
        return "".join(self._texts)

    def _fold(self) -> None:
        lines = b"".join(self._raw).splitlines()
        text = "".join([_chunk_text(line[len(b"data:") :]) for line in lines if line.startswith(b"data:")])
        self._raw = []
        self._raw_bytes = 0
        kept = text[: MAX_TEXT_CHARACTERS - self._characters]
        self.dropped_characters += len(text) - len(kept)
        self._characters += len(kept)
        if kept:
            self._texts.append(kept)


def _chunk_text(data: bytes) -> str:
    chunk = _loaded(data)
    choices = chunk.get("choices") if chunk else None
    if not isinstance(choices, list):
        return ""
    return "".join([message_text(choice.get("delta")) for choice in choices if isinstance(choice, dict)])


def _is_last(choices: Any) -> bool:
    """Whether a chunk with usage ends the stream: it has no choices, or says why each of them ended."""
    if not isinstance(choices, list):
        return False
    return all(isinstance(choice, dict) and choice.get("finish_reason") for choice in choices)


def _is_done_line(raw: bytes) -> bool:
    return raw.startswith(b"data:") and raw[len(b"data:") :].strip() == _DONE


def _failure_of(chunk: Mapping[str, Any]) -> str | None:
    """The type of an error event, cleaned."""
    error = chunk if chunk.get("object") == "error" else chunk.get("error")
    if not error:
        return None
    fields = error if isinstance(error, dict) else {}
    kind = fields.get("type") or fields.get("code") or "error"
    return _NOT_IN_A_CODE.sub("", str(kind).lower())[:MAX_FAILURE_CHARACTERS] or "error"


def _text(chunk: Mapping[str, Any], name: str) -> str:
    value = chunk.get(name)
    return value if isinstance(value, str) else ""


def _loaded(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
