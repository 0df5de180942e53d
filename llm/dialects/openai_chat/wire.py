"""OpenAI's Chat Completions: `POST /v1/chat/completions`, also spoken by every OpenAI-compatible server.

A request is validated only as far as the gateway depends on it. Everything else, including unknown fields, is up to the
upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.base import Extent, ParsedRequest, Server, StreamReader, StreamWriter
from llm.dialects.field_names import Names, renamed, renamed_tool
from llm.dialects.kept_objects import refuse_kept
from llm.dialects.openai_chat import rendering
from llm.dialects.openai_chat.choices import ChoicesDialect
from llm.dialects.openai_chat.extent import measure_extent
from llm.dialects.openai_chat.fields import REQUEST
from llm.dialects.openai_chat.stream import OpenAIChatReader
from llm.dialects.openai_chat.text import message_text, prompt_text
from llm.dialects.openai_chat.translation import to_chat
from llm.dialects.strict_json import load_object
from llm.enums import Dialect
from llm.errors import InvalidRequest
from llm.types import ChatRequest, ChatResponse


class OpenAIChat(ChoicesDialect):
    """The `PassThrough` wire format of chat completions."""

    dialect = Dialect.OPENAI_CHAT
    path = "/chat/completions"
    name = "chat completions (POST /v1/chat/completions)"

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        body = load_object(raw) if body is None else body
        REQUEST.refuse_other_cases(body)
        check_messages(body.get("messages"))
        _refuse_kept_sounds(body)
        return self.parsed(raw, body)

    def changes_for(self, request: ParsedRequest, server: Server) -> dict[str, Any]:
        changes = super().changes_for(request, server)
        if request.forbids_storage and server.stores_chats and request.body.get("store") is None:
            changes["store"] = False
        messages = request.body["messages"]
        if server.developer_role != DEVELOPER and any(map(_is_developers, messages)):
            changes["messages"] = [
                {**message, "role": server.developer_role} if _is_developers(message) else message
                for message in messages
            ]
        return changes

    def to_chat(self, request: ParsedRequest, *, upstream_model: str) -> ChatRequest:
        return to_chat(request.body, model=upstream_model)

    def own_name(self, param: str, request: ParsedRequest) -> str:
        if request.body.get("functions") and not request.body.get("tools"):
            return renamed_tool(renamed(param, _OLD_NAMES), "functions[{}]".format)
        return param

    def prompt_text(self, request: ParsedRequest) -> str:
        return prompt_text(request.body)

    def extent(self, request: ParsedRequest) -> Extent:
        return measure_extent(request.body, len(request.raw))

    def choice_text(self, choice: Mapping[str, Any]) -> str:
        return message_text(choice.get("message"))

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        return rendering.render_whole(response, request.body, request_id=request_id, created=created)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        return OpenAIChatReader(wants_usage=request.wants_stream_usage, choice_text=_delta_text)

    def stream_writer(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> StreamWriter:
        return rendering.OpenAIChatWriter(request, model=model, request_id=request_id, created=created)


OPENAI_CHAT = OpenAIChat()
DEVELOPER = "developer"
_OLD_NAMES: Names = (("tool_choice", "function_call"),)


def check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list of at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest("Each message must be an object.", param=f"messages[{index}]")
        if not isinstance(message.get("role"), str):
            raise InvalidRequest("Each message needs a 'role', a string.", param=f"messages[{index}].role")


def _refuse_kept_sounds(body: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for the id of an earlier spoken answer, or of a voice that somebody has made."""
    for index, message in enumerate(body["messages"]):
        if _names_kept(message.get("audio")):
            refuse_kept(f"messages[{index}].audio.id")
    audio = body.get("audio")
    if isinstance(audio, dict) and _names_kept(audio.get("voice")):
        refuse_kept("audio.voice.id")


def _names_kept(value: Any) -> bool:
    return isinstance(value, dict) and value.get("id") is not None


def _is_developers(message: Mapping[str, Any]) -> bool:
    return bool(message["role"] == DEVELOPER)


def _delta_text(choice: Mapping[str, Any]) -> str:
    return message_text(choice.get("delta"))
