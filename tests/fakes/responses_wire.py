"""OpenAI's responses: `/v1/responses`, text only, whole and as a stream of typed events."""

import time
from itertools import count

import orjson

from tests.fakes import openai_wire
from tests.fakes.ledger import JSON, Counts
from tests.fakes.scripts import Script
from tests.fakes.wire import Asked, BadRequestError, Content, Prompt, Reply, count_tokens, last_user_text, prompt_tokens

DIALECT = "openai.responses"

error_body = openai_wire.error_body
reply_headers = openai_wire.reply_headers


def read_prompt(body: JSON) -> Prompt:
    asked = body.get("input")
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if not isinstance(messages, list) or not messages:
        raise BadRequestError("Missing required parameter: 'input'.")
    contents = ([body["instructions"]] if body.get("instructions") else []) + [m.get("content") for m in messages]
    return Prompt(
        tokens=prompt_tokens(contents, tools=len(body.get("tools") or [])),
        last_user_text=last_user_text(messages),
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
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": content.text}
    status = "incomplete" if content.is_cut_short else "completed"
    item = {"id": f"msg_{response_id[5:]}", "type": "message", "status": status, "content": [part]}
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
        "output": [item | {"role": "assistant"}],
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


def _stream(response: JSON, content: Content, counts: Counts, usage: JSON | None) -> Reply:
    item, started = response["output"][0], response | {"status": "in_progress", "output": [], "usage": None}
    part, place = item["content"][0], {"item_id": item["id"], "output_index": 0, "content_index": 0}
    blank = item | {"status": "in_progress", "content": []}
    opening: list[JSON] = [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        {"type": "response.output_item.added", "output_index": 0, "item": blank},
        {"type": "response.content_part.added", **place, "part": part | {"text": ""}},
    ]
    deltas = [{"type": "response.output_text.delta", **place, "delta": text, "logprobs": []} for text in content.pieces]
    closing: list[JSON] = [
        {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{response['status']}", "response": response},
    ]
    numbers = count()
    events = [_event(document | {"sequence_number": next(numbers)}) for document in (*opening, *deltas, *closing)]
    after = [counts.reasoning_tokens] * len(opening)
    for piece in content.pieces:
        after.append(after[-1] + count_tokens(piece))
    after += [counts.completion_tokens] * len(closing)
    return Reply(response["id"], counts, usage, b"", events, after, None if usage is None else len(events) - 1)


def _event(document: JSON) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (document["type"].encode(), orjson.dumps(document))


def error_event(message: str) -> bytes:
    return _event({"type": "error", "code": "server_error", "message": message, "param": None, "sequence_number": 0})
