"""OpenAI's older completions: `/v1/completions`, a text for each prompt, whole and as a stream."""

import time

import orjson

from tests.fakes import openai_wire
from tests.fakes.ledger import JSON, Counts
from tests.fakes.scripts import Script
from tests.fakes.wire import Asked, BadRequestError, Content, Prompt, Reply, count_tokens

DIALECT = "openai.completions"

error_body = openai_wire.error_body
error_event = openai_wire.error_event
reply_headers = openai_wire.reply_headers


def read_prompt(body: JSON) -> Prompt:
    asked = body.get("prompt")
    if not asked or not isinstance(asked, str | list):
        raise BadRequestError("'$.prompt' is invalid.")
    prompts = [asked] if isinstance(asked, str) or isinstance(asked[0], int) else asked
    return Prompt(
        tokens=sum(count_tokens(prompt) if isinstance(prompt, str) else len(prompt) for prompt in prompts),
        last_user_text=prompts[-1] if isinstance(prompts[-1], str) else "tokens",
        max_tokens=body.get("max_tokens"),
        choices=(body.get("n") or 1) * len(prompts),
    )


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    counts = Counts(prompt_tokens=prompt.tokens, completion_tokens=content.tokens * prompt.choices)
    reported = openai_wire.usage_object(counts)
    usage = None if script.omits_usage else dict(script.usage) if script.usage is not None else reported
    head = {"id": f"cmpl-{call_id}", "object": "text_completion", "created": int(time.time()), "model": asked.model}
    if asked.is_stream:
        include_usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))
        return _stream(head, prompt, content, counts, usage if include_usage else None)
    finish = "length" if content.is_cut_short else "stop"
    body = {**head, "choices": [_choice(index, content.text, finish) for index in range(prompt.choices)]}
    body |= {} if usage is None else {"usage": usage}
    return Reply(str(head["id"]), counts, usage, body=orjson.dumps(body, option=orjson.OPT_INDENT_2) + b"\n")


def _stream(head: JSON, prompt: Prompt, content: Content, counts: Counts, usage: JSON | None) -> Reply:
    member: JSON = {} if usage is None else {"usage": None}
    steps = [(piece, count_tokens(piece), None) for piece in content.pieces] + [("", 0, "stop")]
    events, after, out = [], [], 0
    for piece, tokens, finish in steps:
        for index in range(prompt.choices):
            events.append(_event({**head, "choices": [_choice(index, piece, finish)], **member}))
            out += tokens
            after.append(out)
    usage_event = None
    if usage is not None:
        usage_event = len(events)
        events.append(_event({**head, "choices": [], "usage": usage}))
    after += [out] * (len(events) + 1 - len(after))
    return Reply(str(head["id"]), counts, usage, b"", [*events, openai_wire.DONE], after, usage_event)


def _choice(index: int, text: str, finish: str | None) -> JSON:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _event(document: JSON) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(document)
