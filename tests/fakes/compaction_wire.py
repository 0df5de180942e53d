"""OpenAI's compaction of a conversation: `/v1/responses/compact`. What it writes can be read by nobody else."""

import base64
import time

import orjson

from tests.fakes import responses_wire
from tests.fakes.ledger import JSON, Counts
from tests.fakes.responses_wire import error_body, error_event, reply_headers, usage_object
from tests.fakes.scripts import Script
from tests.fakes.wire import Asked, BadRequestError, Content, Prompt, Reply

__all__ = ["DIALECT", "build_reply", "error_body", "error_event", "read_prompt", "reply_headers"]

DIALECT = "openai.compaction"


def read_prompt(body: JSON) -> Prompt:
    if unknown := {"max_output_tokens", "store", "stream", "tools"} & set(body):
        raise BadRequestError(f"Unknown parameter: '{min(unknown)}'.")
    return responses_wire.read_prompt(body)


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    counts = Counts(
        prompt_tokens=prompt.tokens + script.cache_read_tokens,
        completion_tokens=content.tokens + script.reasoning_tokens,
        cache_read_tokens=script.cache_read_tokens,
        reasoning_tokens=script.reasoning_tokens,
    )
    usage = None if script.omits_usage else usage_object(counts)
    part = {"type": "input_text", "text": prompt.last_user_text}
    written = base64.b64encode(content.text.encode()).decode()
    output = [
        {"id": f"msg_{call_id}", "type": "message", "role": "user", "status": "completed", "content": [part]},
        {"id": f"cmp_{call_id}", "type": "compaction", "encrypted_content": written},
    ]
    reply: JSON = {
        "id": f"resp_{call_id}",
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": output,
    }
    return Reply(reply["id"], counts, usage, body=orjson.dumps({**reply, "usage": usage}))
