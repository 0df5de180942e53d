"""OpenAI's `POST /v1/responses/compact`: a conversation as a shorter input for the next response.

Its model writes what no maximum bounds: there is no field for one. The reply names no model, and its output holds the
caller's own messages, so no item of it is a tool that the provider has run.
Source, read 2026-11: openai 3.54 (`types/responses/response_compact_params.py`, `compacted_response.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llm.dialects.base import ParsedRequest
from llm.dialects.openai_responses.text import items_of
from llm.dialects.openai_responses.wire import ResponsesPassThrough, checked_reply
from llm.dialects.reply_fields import text_in
from llm.types import Reading

_COMPACTED = ("compaction", "compaction_summary")


class CompactResponses(ResponsesPassThrough):
    """The `PassThrough` wire format of it, billed by its usage."""

    path = "/responses/compact"
    name = "compactions (POST /v1/responses/compact)"
    is_on_every_server = False
    stores_by_default = False

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        request = super().parse(raw, body)
        return replace(request, is_stream=False, max_output_tokens=None, takes_maximum=False, tool_meters=())

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        return super().read_whole(body, {**checked_reply(body, reply), "output": []})

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        """What was written, in the encrypted form, as nobody else can read it: the rest is the caller's own."""
        items = items_of(checked_reply(body, reply)["output"])
        return "".join(text_in(item, "encrypted_content") for item in items if item.get("type") in _COMPACTED)


COMPACT_RESPONSES = CompactResponses()
