"""OpenAI's chat completions: `/v1/chat/completions`, whole and as a stream."""

import re
import time
from functools import lru_cache
from typing import Any

import orjson

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
    ToolCall,
    count_tokens,
    last_user_text,
    messages_of,
    prompt_tokens,
)

DIALECT = "openai.chat"
FINGERPRINT = "fp_fake0upstream"
ARGUMENT_PIECE_CHARS = 6
DONE = b"data: [DONE]\n\n"

ERROR_TYPES = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}


def read_prompt(body: JSON) -> Prompt:
    messages = messages_of(body, "messages")
    if body.get("stream_options") is not None and body.get("stream") is not True:
        raise BadRequestError("The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    own = [tool["function"] for tool in body.get("tools") or [] if tool.get("type", "function") == "function"]
    tools = {function["name"]: function.get("parameters") for function in own}
    mode, named = _tool_choice(body.get("tool_choice"))
    said = last_user_text(messages)
    return Prompt(
        tokens=prompt_tokens([message.get("content") for message in messages], tools=len(tools)),
        last_user_text=said,
        tool=choose_tool(tools, mode=mode, named=named, last_user_text=said),
        wants_json=(body.get("response_format") or {}).get("type") in ("json_object", "json_schema"),
        max_tokens=_token_count(body.get("max_completion_tokens")) or _token_count(body.get("max_tokens")),
        choices=int(body.get("n") or 1),
    )


def _tool_choice(choice: Any) -> tuple[str, str | None]:
    if isinstance(choice, dict):
        return "required", choice.get("function", {}).get("name")
    return choice or "auto", None


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    counts = _counts(prompt, content, script)
    usage = None if script.omits_usage else dict(script.usage) if script.usage is not None else usage_object(counts)
    response_id = f"chatcmpl-{call_id}"
    if asked.is_stream:
        include_usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))
        usage = usage if include_usage else None
        thinking = "".join(script.thinking)
        return _stream(response_id, asked.model, prompt.choices, content, counts, usage, thinking)
    choices = [_choice(index, content, response_id) for index in range(prompt.choices)]
    for choice in choices if script.thinking else ():
        choice["message"]["reasoning_content"] = "".join(script.thinking)
    body = {"id": response_id, "object": "chat.completion", "created": int(time.time()), "model": asked.model}
    body |= {"choices": choices} | ({} if usage is None else {"usage": usage})
    body |= {"service_tier": "default", "system_fingerprint": FINGERPRINT}
    # The real one indents whole replies, so a gateway that looks for '"usage":{' must cope with '"usage": {'.
    return Reply(response_id, counts, usage, body=orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")


def _counts(prompt: Prompt, content: Content, script: Script) -> Counts:
    parts = script.reasoning_tokens + script.audio_output_tokens
    return Counts(
        prompt_tokens=prompt.tokens + script.cache_read_tokens + script.audio_input_tokens,
        completion_tokens=content.tokens * prompt.choices + parts,
        cache_read_tokens=script.cache_read_tokens,
        reasoning_tokens=script.reasoning_tokens,
        audio_input_tokens=script.audio_input_tokens,
        audio_output_tokens=script.audio_output_tokens,
    )


def usage_object(counts: Counts) -> JSON:
    return {
        "prompt_tokens": counts.prompt_tokens,
        "completion_tokens": counts.completion_tokens,
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": counts.cache_read_tokens,
            "audio_tokens": counts.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning_tokens,
            "audio_tokens": counts.audio_output_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _choice(index: int, content: Content, response_id: str) -> JSON:
    message: JSON = {"role": "assistant", "content": content.text, "refusal": None, "annotations": []}
    if content.tool is not None:
        function = {"name": content.tool.name, "arguments": content.tool.arguments}
        call = {"id": f"call_{response_id[9:]}{index}", "type": "function", "function": function}
        message |= {"content": None, "tool_calls": [call]}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _finish_reason(content)}


def _finish_reason(content: Content) -> str:
    if content.tool is not None:
        return "tool_calls"
    return "length" if content.is_cut_short else "stop"


def _stream(
    response_id: str, model: str, choices: int, content: Content, counts: Counts, usage: JSON | None, thinking: str
) -> Reply:
    """The chunks; what differs between two calls stands at their head, so the rest is made once and kept."""
    head = b'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":%s,' % (
        response_id.encode(),
        time.time(),
        orjson.dumps(model),
    )
    tails, completion_after = _tails(content, choices, _finish_reason(content), usage is not None, thinking)
    hidden = counts.completion_tokens - completion_after[-1]
    events = [head + tail for tail in tails]
    usage_event = None
    if usage is not None:
        usage_event = len(events)
        events.append(head + _meta() + b'"choices":[],"usage":%s}\n\n' % orjson.dumps(usage))
    after = [tokens + hidden for tokens in completion_after] if hidden else list(completion_after)
    after += [counts.completion_tokens] * (len(events) + 1 - len(after))
    return Reply(response_id, counts, usage, b"", [*events, DONE], after, usage_event)


@lru_cache(maxsize=32)
def _tails(
    content: Content, choices: int, finish: str, has_usage: bool, thinking: str
) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """All that follows the head of each chunk, and the tokens that are out once it is."""
    end = b',"usage":null}\n\n' if has_usage else b"}\n\n"
    steps: list[tuple[JSON, int, str | None]] = []
    opening = {"role": "assistant", "content": None if content.tool else "", "refusal": None}
    steps.append((opening, 0, None))
    steps += [({"reasoning_content": piece}, 0, None) for piece in re.findall(r"\S+\s*", thinking)]
    steps += _tool_steps(content.tool) if content.tool else _text_steps(content)
    steps.append(({}, 0, finish))
    tails, tokens_after, tokens_out = [], [], 0
    for delta, tokens, finish_reason in steps:
        for index in range(choices):
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            tails.append(_meta() + b'"choices":[%s]' % orjson.dumps(choice) + end)
            tokens_out += tokens
            tokens_after.append(tokens_out)
    return tuple(tails), tuple(tokens_after)


def _meta() -> bytes:
    return b'"service_tier":"default","system_fingerprint":"%s",' % FINGERPRINT.encode()


def _text_steps(content: Content) -> list[tuple[JSON, int, str | None]]:
    return [({"content": piece}, count_tokens(piece), None) for piece in content.pieces]


def _tool_steps(tool: ToolCall) -> list[tuple[JSON, int, str | None]]:
    function = {"name": tool.name, "arguments": ""}
    opening = {"index": 0, "id": f"call_fake_{tool.name}", "type": "function", "function": function}
    tokens = TOOL_CALL_TOKENS + count_tokens(tool.arguments)
    steps: list[tuple[JSON, int, str | None]] = [({"tool_calls": [opening]}, tokens, None)]
    for start in range(0, len(tool.arguments), ARGUMENT_PIECE_CHARS):
        piece = tool.arguments[start : start + ARGUMENT_PIECE_CHARS]
        steps.append(({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, 0, None))
    return steps


def error_body(status: int, message: str, code: str | None, request_id: str) -> bytes:
    kind, usual_code = ERROR_TYPES.get(status, ("server_error", None))
    if code == "insufficient_quota":
        kind = code
    error = {"message": message, "type": kind, "param": None, "code": code or usual_code}
    return orjson.dumps({"error": error}, option=orjson.OPT_INDENT_2) + b"\n"


def error_event(message: str) -> bytes:
    error = {"message": message, "type": "server_error", "param": None, "code": None}
    return b"data: %s\n\n" % orjson.dumps({"error": error})


def reply_headers(request_id: str) -> dict[str, str]:
    return {
        "x-request-id": request_id,
        "openai-organization": "org-fake",
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "6ms",
    }


def _token_count(value: Any) -> int | None:
    """As lenient servers read it: what is no count bounds nothing."""
    is_count = type(value) in (int, float) and value >= 0 and value == int(value)
    return int(value) if is_count else None
