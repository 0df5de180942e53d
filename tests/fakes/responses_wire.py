"""OpenAI's responses: `/v1/responses`, a text or a call of a function, whole and as a stream of typed events."""

import time
from collections.abc import Iterator
from itertools import count

import orjson

from tests.fakes import openai_wire
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
    count_tokens,
    last_user_text,
    prompt_tokens,
)

DIALECT = "openai.responses"
ARGUMENT_PIECE_CHARS = 6

error_body = openai_wire.error_body
reply_headers = openai_wire.reply_headers


def read_prompt(body: JSON) -> Prompt:
    asked = body.get("input")
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("Missing required parameter: 'input'.")
    contents = ([body["instructions"]] if body.get("instructions") else []) + [m.get("content") for m in messages]
    offered = body.get("tools") or []
    functions = {tool["name"]: tool.get("parameters") for tool in offered if tool.get("type") == "function"}
    choice, said = body.get("tool_choice") or "auto", last_user_text(messages)
    mode, named = ("required", choice.get("name")) if isinstance(choice, dict) else (choice, None)
    return Prompt(
        tokens=prompt_tokens(contents, tools=len(offered)),
        last_user_text=said,
        tool=choose_tool(functions, mode=mode, named=named, last_user_text=said),
        wants_json=((body.get("text") or {}).get("format") or {}).get("type") in ("json_object", "json_schema"),
        max_tokens=body.get("max_output_tokens"),
    )


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    counts = Counts(
        prompt_tokens=prompt.tokens + script.cache_read_tokens,
        completion_tokens=content.tokens + script.reasoning_tokens,
        cache_read_tokens=script.cache_read_tokens,
        reasoning_tokens=script.reasoning_tokens,
    )
    usage = None if script.omits_usage else dict(script.usage) if script.usage is not None else usage_object(counts)
    response = _response(f"resp_{call_id}", asked, content, usage)
    if asked.is_stream:
        return _stream(response, content, counts, usage)
    body = orjson.dumps(response, option=orjson.OPT_INDENT_2) + b"\n"
    return Reply(response["id"], counts, usage, body=body)


def usage_object(counts: Counts) -> JSON:
    return {
        "input_tokens": counts.prompt_tokens,
        "input_tokens_details": {"cached_tokens": counts.cache_read_tokens},
        "output_tokens": counts.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning_tokens},
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
    }


def _response(response_id: str, asked: Asked, content: Content, usage: JSON | None) -> JSON:
    status = "incomplete" if content.is_cut_short else "completed"
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if content.is_cut_short else None,
        "instructions": asked.body.get("instructions"),
        "max_output_tokens": asked.body.get("max_output_tokens"),
        "model": asked.model,
        "output": [_output_item(response_id, content, status)],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
        "user": asked.body.get("user"),
        "metadata": {},
    }


def _output_item(response_id: str, content: Content, status: str) -> JSON:
    if (tool := content.tool) is not None:
        call = {"id": f"fc_{response_id[5:]}", "type": "function_call", "status": status, "name": tool.name}
        return call | {"call_id": f"call_{response_id[5:]}", "arguments": tool.arguments}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": content.text}
    message = {"id": f"msg_{response_id[5:]}", "type": "message", "status": status, "content": [part]}
    return message | {"role": "assistant"}


def _stream(response: JSON, content: Content, counts: Counts, usage: JSON | None) -> Reply:
    item, started = response["output"][0], response | {"status": "in_progress", "output": [], "usage": None}
    steps: list[tuple[JSON, int]] = [
        ({"type": "response.created", "response": started}, counts.reasoning_tokens),
        ({"type": "response.in_progress", "response": started}, 0),
        *(_text_steps(item, content) if content.tool is None else _call_steps(item, content)),
        ({"type": "response.output_item.done", "output_index": 0, "item": item}, 0),
        ({"type": f"response.{response['status']}", "response": response}, 0),
    ]
    numbers = count()
    events = [_event(document | {"sequence_number": next(numbers)}) for document, _ in steps]
    after, out = [], 0
    for _, tokens in steps:
        out += tokens
        after.append(out)
    return Reply(response["id"], counts, usage, b"", events, after, None if usage is None else len(events) - 1)


def _text_steps(item: JSON, content: Content) -> Iterator[tuple[JSON, int]]:
    """The events of a message, each with the tokens that it brings."""
    part, place = item["content"][0], {"item_id": item["id"], "output_index": 0, "content_index": 0}
    blank = item | {"status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": blank}, 0
    yield {"type": "response.content_part.added", **place, "part": part | {"text": ""}}, 0
    for piece in content.pieces:
        delta = {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
        yield delta, count_tokens(piece)
    yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}, 0
    yield {"type": "response.content_part.done", **place, "part": part}, 0


def _call_steps(item: JSON, content: Content) -> Iterator[tuple[JSON, int]]:
    """The same of a function's call."""
    arguments, place = item["arguments"], {"item_id": item["id"], "output_index": 0}
    blank = item | {"status": "in_progress", "arguments": ""}
    tokens = TOOL_CALL_TOKENS + count_tokens(arguments)
    yield {"type": "response.output_item.added", "output_index": 0, "item": blank}, tokens
    for start in range(0, len(arguments), ARGUMENT_PIECE_CHARS):
        piece = arguments[start : start + ARGUMENT_PIECE_CHARS]
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}, 0
    yield {"type": "response.function_call_arguments.done", **place, "arguments": arguments, "name": item["name"]}, 0


def _event(document: JSON) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (document["type"].encode(), orjson.dumps(document))


def error_event(message: str) -> bytes:
    return _event({"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0})
