"""OpenAI's older completions: `POST /v1/completions`, complete and streamed, passed through.

Source, read 2026-11: openai 3.54 (`types/completion_create_params.py`, `types/completion.py`). With several prompts,
each is answered by that many choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm.dialects.base import Extent, ParsedRequest, Server, StreamReader
from llm.dialects.openai_chat.choices import ChoicesDialect
from llm.dialects.openai_chat.extent import measure_extent
from llm.dialects.openai_chat.fields import REQUEST
from llm.dialects.openai_chat.inputs import inputs_text, is_token_list, listed_inputs
from llm.dialects.openai_chat.stream import OpenAIChatReader
from llm.dialects.reply_fields import text_in
from llm.dialects.request_fields import Shape
from llm.dialects.strict_json import load_object
from llm.enums import Dialect
from llm.errors import InvalidRequest

_REQUEST = Shape(REQUEST.keys | {"echo", "prompt_embeds", "suffix"}, REQUEST.inside)


class OpenAICompletions(ChoicesDialect):
    """The `PassThrough` wire format of the older completions."""

    dialect = Dialect.OPENAI_COMPLETIONS
    path = "/completions"
    name = "text completions (POST /v1/completions)"

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        body = load_object(raw) if body is None else body
        _REQUEST.refuse_other_cases(body)
        if "messages" in body and "prompt" not in body:
            raise InvalidRequest(
                "'messages' belongs to chat completions: send this request to POST /v1/chat/completions.",
                param="messages",
            )
        request = self.parsed(raw, body)
        prompts = len(listed_inputs(body.get("prompt"))) + len(listed_inputs(body.get("prompt_embeds")))
        return replace(request, choices=request.choices * max(1, prompts))

    def lowered_output(self, request: ParsedRequest, maximum: int, server: Server) -> dict[str, Any]:
        """Completions have always had the same field for the maximum."""
        return super().lowered_output(request, maximum, server._replace(maximum_field="max_tokens"))

    def prompt_text(self, request: ParsedRequest) -> str:
        return f"{inputs_text(request.body.get('prompt'))}\n{text_in(request.body, 'suffix')}".rstrip("\n")

    def extent(self, request: ParsedRequest) -> Extent:
        """Bounded by the body's bytes: a token of a list takes at least one of them too."""
        prompts = listed_inputs(request.body.get("prompt"))
        extent = measure_extent(request.body, len(request.raw))
        is_known = all(isinstance(prompt, str) or is_token_list(prompt) for prompt in prompts)
        return extent if is_known and request.body.get("prompt_embeds") is None else extent._replace(input_tokens=None)

    def choice_text(self, choice: Mapping[str, Any]) -> str:
        return text_in(choice, "text")

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        return OpenAIChatReader(wants_usage=request.wants_stream_usage, choice_text=self.choice_text)


OPENAI_COMPLETIONS = OpenAICompletions()
