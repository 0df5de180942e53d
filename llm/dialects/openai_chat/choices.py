"""What chat completions and the older completions share: replies and chunks with choices, output maxima."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from llm.dialects.base import ParsedRequest, Server
from llm.dialects.end_users import metadata_tags, openai_end_user
from llm.dialects.error_shapes import says_error
from llm.dialects.kept_objects import refuse_kept, refuse_kept_objects
from llm.dialects.money_fields import read_upstream_cost
from llm.dialects.openai_chat.dialect import OpenAIDialect
from llm.dialects.openai_chat.extent import tool_meters
from llm.dialects.openai_chat.fields import asked_service, find_routing_fields
from llm.dialects.openai_chat.output import lowered_output, read_output
from llm.dialects.openai_chat.usage import read_usage
from llm.dialects.reply_fields import loaded_reply, text_in
from llm.dialects.request_fields import checked_model, read_flag, read_object
from llm.dialects.usage_figures import read_service, reports_tool_units
from llm.enums import Dialect
from llm.errors import UpstreamFailed
from llm.types import Reading


class ChoicesDialect(OpenAIDialect, ABC):
    """The part of a `PassThrough` wire format for replies with choices."""

    dialect: Dialect

    def parsed(self, raw: bytes, body: dict[str, Any]) -> ParsedRequest:
        """body: already validated for the endpoint's specifics. Raises InvalidRequest."""
        refuse_kept_objects(raw, body)
        if body.get("previous_response_id") is not None:
            refuse_kept("previous_response_id")
        is_stream = read_flag(body, "stream")
        output = read_output(body)
        return ParsedRequest(
            dialect=self.dialect,
            body=body,
            raw=raw,
            model=checked_model(body.get("model")),
            is_stream=is_stream,
            wants_stream_usage=is_stream and read_object(body, "stream_options").get("include_usage") is True,
            max_output_tokens=output.maximum,
            thinking_tokens=output.thinking,
            choices=output.choices,
            routing_fields=find_routing_fields(body),
            asked_service=asked_service(body),
            tool_meters=tool_meters(body),
            end_user=openai_end_user(body),
            tags=metadata_tags(body),
        )

    def changes_for(self, request: ParsedRequest, server: Server) -> dict[str, Any]:
        if request.is_stream and not request.wants_stream_usage and server.takes_stream_options:
            return {"stream_options": {**read_object(request.body, "stream_options"), "include_usage": True}}
        return {}

    def lowered_output(self, request: ParsedRequest, maximum: int, server: Server) -> dict[str, Any]:
        return lowered_output(request.body, maximum, server.maximum_field)

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        reply = self._checked_reply(body, reply)
        counts, absurd_usage = read_usage(reply.get("usage"))
        return Reading(
            counts=counts,
            absurd_usage=absurd_usage,
            model=text_in(reply, "model"),
            response_id=text_in(reply, "id"),
            service=read_service(reply, reply.get("usage")),
            is_final=True,
            upstream_cost=read_upstream_cost(reply),
            reports_tools=reports_tool_units(reply.get("usage")),
        )

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        choices = self._checked_reply(body, reply)["choices"]
        return "".join(self.choice_text(choice) for choice in choices if isinstance(choice, dict))

    @abstractmethod
    def choice_text(self, choice: Mapping[str, Any]) -> str:
        """The generated text of a choice in a whole reply. Never raises."""

    def _checked_reply(self, body: bytes, reply: Any) -> dict[str, Any]:
        reply = loaded_reply(body, reply)
        if (
            isinstance(reply, dict)
            and isinstance(reply.get("choices"), list)
            and (reply["choices"] or not says_error(reply))
        ):
            return reply
        raise UpstreamFailed("The upstream sent a reply that is not a completion.", may_have_worked=True)
