"""Anthropic's messages: `/v1/messages`, whole and as a stream."""

from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from itertools import takewhile
from typing import Any

import orjson

from tests.fakes.anthropic_rules import check_rules
from tests.fakes.content import choose_tool
from tests.fakes.ledger import JSON, Counts
from tests.fakes.scripts import Script
from tests.fakes.wire import (
    TOOL_CALL_TOKENS,
    Asked,
    BadRequestError,
    Content,
    Prompt,
    Reply,
    content_tokens,
    count_tokens,
    last_user_text,
    messages_of,
    prompt_tokens,
)

DIALECT = "anthropic.messages"
ARGUMENT_PIECE_CHARS = 9
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
# The real one pads some events with blanks before the closing brace.
STOP = b'event: message_stop\ndata: {"type":"message_stop"         }\n\n'

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
TOOL_MODES = {"any": "required", "tool": "required", "none": "none"}


def read_prompt(body: JSON) -> Prompt:
    messages = messages_of(body, "messages")
    if not isinstance(body.get("max_tokens"), int):
        raise BadRequestError("max_tokens: Field required")
    _check_thinking(body, messages)
    check_rules(body)
    contents = ([body["system"]] if body.get("system") else []) + [message.get("content") for message in messages]
    tools = {tool["name"]: tool.get("input_schema") for tool in body.get("tools") or []}
    choice = body.get("tool_choice") or {}
    mode, named = TOOL_MODES.get(choice.get("type", "auto"), "auto"), choice.get("name")
    said = last_user_text(messages)
    written, ttl = _cache_written(contents)
    return Prompt(
        tokens=prompt_tokens(contents, tools=len(tools)),
        last_user_text=said,
        tool=choose_tool(tools, mode=mode, named=named, last_user_text=said),
        wants_json=((body.get("output_config") or {}).get("format") or {}).get("type") == "json_schema",
        max_tokens=body["max_tokens"],
        cache_write_5m_tokens=written if ttl == "5m" else 0,
        cache_write_1h_tokens=written if ttl == "1h" else 0,
    )


def signature_of(text: str) -> str:
    """What proves a block of thinking to be the fake's own."""
    return "sig_" + sha256(text.encode()).hexdigest()[:24]


def redacted(text: str) -> str:
    return f"{text}.{signature_of(text)}"


def thinking_blocks(script: Script) -> list[JSON]:
    written = [{"type": "thinking", "thinking": text, "signature": signature_of(text)} for text in script.thinking]
    return [*written, *({"type": "redacted_thinking", "data": redacted(text)} for text in script.redacted_thinking)]


def _check_thinking(body: JSON, messages: list[JSON]) -> None:
    """As the real one: nothing of it may be changed, and a tool loop that thinks begins with thinking."""
    for number, message in enumerate(messages):
        for place, block in enumerate(_blocks_of(message)):
            if not _is_genuine(block):
                raise BadRequestError(f"messages.{number}.content.{place}: Invalid `signature` in `thinking` block")
    if not _has_results(messages[-1]):
        return
    loop = takewhile(lambda message: message.get("role") == "assistant" or _has_results(message), reversed(messages))
    turns = [_blocks_of(message) for message in loop if message.get("role") == "assistant"]
    kinds = [str(block.get("type")) for blocks in turns for block in blocks]
    if not _thinks(body):
        if any("thinking" in kind for kind in kinds):
            raise BadRequestError("When `thinking` is disabled, the final assistant turn cannot contain `thinking`.")
    elif turns and not _is_adaptive(body) and "thinking" not in str(turns[-1][0].get("type")):
        raise BadRequestError("messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`.")


def _thinks(body: JSON) -> bool:
    """Some models think once they are asked for an effort, whether or not `thinking` says so."""
    kind = (body.get("thinking") or {}).get("type")
    return kind != "disabled" and bool(kind or (body.get("output_config") or {}).get("effort"))


def _is_adaptive(body: JSON) -> bool:
    """With adaptive thinking, a turn needn't begin with thinking."""
    return (body.get("thinking") or {}).get("type") == "adaptive"


def _is_genuine(block: JSON) -> bool:
    if block.get("type") == "thinking":
        return block.get("signature") == signature_of(str(block.get("thinking")))
    data = str(block.get("data"))
    return block.get("type") != "redacted_thinking" or data == redacted(data.rpartition(".")[0])


def _has_results(message: JSON) -> bool:
    return any(block.get("type") == "tool_result" for block in _blocks_of(message))


def _blocks_of(message: JSON) -> list[JSON]:
    content = message.get("content")
    blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
    return [block for block in blocks if isinstance(block, dict)]


def _cache_written(contents: list[Any]) -> tuple[int, str]:
    """Tokens of all parts up to the last one with a `cache_control`, and its lifetime. There is no memory: a prompt
    that is sent twice is written twice; reads come from the script."""
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    marked = [index for index, part in enumerate(parts) if part.get("cache_control")]
    if not marked:
        return 0, "5m"
    ttl = parts[marked[-1]]["cache_control"].get("ttl", "5m")
    return content_tokens(parts[: marked[-1] + 1]), ttl


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    counts = _counts(prompt, content, script)
    if content.tool is not None and (asked.body.get("thinking") or {}).get("type") == "enabled":
        # The next turn must begin with it.
        script = replace(script, thinking=script.thinking or ("a tool will know",))
    usage = None if script.omits_usage else dict(script.usage) if script.usage is not None else usage_object(counts)
    message: JSON = {"model": asked.model, "id": f"msg_{call_id}", "type": "message", "role": "assistant"}
    if asked.is_stream:
        return _stream(message, content, counts, usage, script)
    blocks = thinking_blocks(script) + _blocks(content, call_id)
    message |= {"content": blocks, "stop_reason": _stop_reason(content), "stop_sequence": None}
    message |= {} if usage is None else {"usage": usage}
    return Reply(message["id"], counts, usage, body=orjson.dumps(message))


def _counts(prompt: Prompt, content: Content, script: Script) -> Counts:
    scripted = script.cache_read_tokens + script.cache_write_5m_tokens + script.cache_write_1h_tokens
    return Counts(
        prompt_tokens=prompt.tokens + scripted,
        completion_tokens=content.tokens + script.reasoning_tokens,
        cache_read_tokens=script.cache_read_tokens,
        cache_write_5m_tokens=prompt.cache_write_5m_tokens + script.cache_write_5m_tokens,
        cache_write_1h_tokens=prompt.cache_write_1h_tokens + script.cache_write_1h_tokens,
    )


def usage_object(counts: Counts) -> JSON:
    written = counts.cache_write_5m_tokens + counts.cache_write_1h_tokens
    return {
        "input_tokens": counts.prompt_tokens - counts.cache_read_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": counts.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts.cache_write_5m_tokens,
            "ephemeral_1h_input_tokens": counts.cache_write_1h_tokens,
        },
        "output_tokens": counts.completion_tokens,
        "service_tier": "standard",
    }


def _delta_usage(counts: Counts) -> JSON:
    """The running total of `message_delta`: the same figures, without the tier and the cache's two lifetimes."""
    return {k: v for k, v in usage_object(counts).items() if k not in ("cache_creation", "service_tier")}


def _blocks(content: Content, call_id: str) -> list[JSON]:
    if content.tool is None:
        return [{"type": "text", "text": content.text}]
    arguments = orjson.loads(content.tool.arguments)
    return [{"type": "tool_use", "id": f"toolu_{call_id}", "name": content.tool.name, "input": arguments}]


def _stop_reason(content: Content) -> str:
    if content.tool is not None:
        return "tool_use"
    return "max_tokens" if content.is_cut_short else "end_turn"


def _stream(message: JSON, content: Content, counts: Counts, usage: JSON | None, script: Script) -> Reply:
    start_usage = usage_object(counts) | {"output_tokens": 1} if script.start_usage is None else script.start_usage
    opened = message | {"content": [], "stop_reason": None, "stop_sequence": None}
    opened |= {} if script.omits_usage else {"usage": start_usage}
    delta: JSON = {"type": "message_delta", "delta": {"stop_reason": _stop_reason(content), "stop_sequence": None}}
    if usage is not None:
        usage = _delta_usage(counts) if script.usage is None else usage
        delta |= {"usage": usage}
    thoughts = thinking_blocks(script)
    before = [event for index, block in enumerate(thoughts) for event in _thinking_events(index, block)]
    middle, tokens_after = _block_events(content, len(thoughts))
    events = [_event({"type": "message_start", "message": opened}), *before, *middle, _event(delta), STOP]
    hidden = counts.completion_tokens - tokens_after[-1]
    after = [hidden] * (1 + len(before))
    after += [*(tokens + hidden for tokens in tokens_after), counts.completion_tokens, counts.completion_tokens]
    return Reply(message["id"], counts, usage, b"", events, after, None if usage is None else len(events) - 2)


def _thinking_events(index: int, block: JSON) -> list[bytes]:
    """A text comes in halves, then its signature; what is redacted comes with the block."""
    kind, text = block["type"], block.get("thinking", "")
    opened = block if kind == "redacted_thinking" else {"type": kind, "thinking": "", "signature": ""}
    halves = [half for half in (text[: len(text) // 2], text[len(text) // 2 :]) if half]
    deltas: list[JSON] = [{"type": "thinking_delta", "thinking": half} for half in halves]
    deltas += [{"type": "signature_delta", "signature": block["signature"]}] if kind == "thinking" else []
    return [
        _event({"type": "content_block_start", "index": index, "content_block": opened}),
        *(_event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas),
        _event({"type": "content_block_stop", "index": index}),
    ]


@lru_cache(maxsize=32)
def _block_events(content: Content, index: int = 0) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """The events of the one block that answers, the same for every call, and the tokens that are out after each."""
    block: JSON = {"type": "text", "text": ""}
    deltas = [({"type": "text_delta", "text": piece}, count_tokens(piece)) for piece in content.pieces]
    opening_tokens = 0
    if tool := content.tool:
        block = {"type": "tool_use", "id": f"toolu_fake_{tool.name}", "name": tool.name, "input": {}}
        starts = range(0, len(tool.arguments), ARGUMENT_PIECE_CHARS)
        pieces = ["", *(tool.arguments[start : start + ARGUMENT_PIECE_CHARS] for start in starts)]
        deltas = [({"type": "input_json_delta", "partial_json": piece}, 0) for piece in pieces]
        opening_tokens = TOOL_CALL_TOKENS + count_tokens(tool.arguments)
    events = [_event({"type": "content_block_start", "index": index, "content_block": block}), PING]
    after = [opening_tokens, opening_tokens]
    for delta, tokens in deltas:
        events.append(_event({"type": "content_block_delta", "index": index, "delta": delta}))
        after.append(after[-1] + tokens)
    events.append(_event({"type": "content_block_stop", "index": index}))
    return tuple(events), (*after, after[-1])


def _event(document: JSON) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (document["type"].encode(), orjson.dumps(document))


def error_body(status: int, message: str, code: str | None, request_id: str) -> bytes:
    error = {"type": code or ERROR_TYPES.get(status, "api_error"), "message": message}
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def error_event(message: str) -> bytes:
    return _event({"type": "error", "error": {"type": "overloaded_error", "message": message}})


def reply_headers(request_id: str) -> dict[str, str]:
    return {
        "request-id": request_id,
        "anthropic-organization-id": "org-fake",
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
        "anthropic-ratelimit-requests-reset": "2030-01-01T00:00:00Z",
    }
