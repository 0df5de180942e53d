"""Counts tokens of a call whose upstream reported no usage."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import structlog

from llm.dialects.base import ParsedRequest, WireFormat
from llm.dialects.usage_figures import MAX_TOKENS
from llm.providers.base import BaseLLMProvider
from llm.providers.counting import count_message_tokens
from llm.types import ChatMessage, ChatRequest, TokenCounts

log = structlog.get_logger("llm.calls")


def estimate(
    provider: BaseLLMProvider, wire: WireFormat, request: ParsedRequest, text: str, *, unkept_characters: int = 0
) -> TokenCounts:
    """Tokens of the prompt and of the generated text, according to the provider's `count_tokens`.

    unkept_characters: of the text, beyond what `text` holds; they count like the average of the others.
    """
    prompt = _count(provider, _prompt_of(wire, request), request.model)
    completion = 0
    if text:
        # A message has an overhead that generated text doesn't have.
        empty = _count(provider, (ChatMessage(role="assistant"),), request.model)
        completion = max(0, _count(provider, (ChatMessage(role="assistant", content=text),), request.model) - empty)
        completion += completion * unkept_characters // len(text)
    return TokenCounts(prompt_tokens=prompt, completion_tokens=completion)


def estimate_chat(provider: BaseLLMProvider, chat: ChatRequest, *, model: str) -> int:
    """Tokens of a translated request, tool definitions included."""
    tools = "\n".join(f"{tool.name} {tool.description} {orjson.dumps(tool.parameters).decode()}" for tool in chat.tools)
    described = (ChatMessage("system", tools),) if tools else ()
    return _count(provider, (*chat.messages, *described), model)


def _prompt_of(wire: WireFormat, request: ParsedRequest) -> tuple[ChatMessage, ...]:
    """All text in one message, and as many empty ones as there were others, for the overhead of each."""
    messages = request.body.get("messages")
    others = len(messages) - 1 if isinstance(messages, list) and messages else 0
    empty = ChatMessage(role="user")
    return (ChatMessage(role="user", content=wire.prompt_text(request)), *(empty for _ in range(others)))


def _count(provider: BaseLLMProvider, messages: Sequence[ChatMessage], model: str) -> int:
    try:
        return _checked(provider.count_tokens(messages, model))
    except Exception as error:  # noqa: BLE001  # a custom provider's own code: whatever it raises, the call is counted
        log.warning("provider.count_tokens_failed", provider=type(provider).__name__, error=type(error).__name__)
        return count_message_tokens(messages)


def _checked(count: object) -> int:
    if type(count) is not int or not 0 <= count <= MAX_TOKENS:
        raise ValueError("not a number of tokens that can be recorded")
    return count
