"""OpenAI's counting of tokens: `/v1/responses/input_tokens`. It bills nothing."""

import orjson

from tests.fakes import responses_wire
from tests.fakes.ledger import JSON, Counts
from tests.fakes.responses_wire import error_body, error_event, reply_headers
from tests.fakes.scripts import Script
from tests.fakes.wire import Asked, BadRequestError, Content, Prompt, Reply

__all__ = ["DIALECT", "build_reply", "error_body", "error_event", "read_prompt", "reply_headers"]

DIALECT = "openai.input_tokens"


def read_prompt(body: JSON) -> Prompt:
    if unknown := {"max_output_tokens", "stream", "store", "temperature"} & set(body):
        raise BadRequestError(f"Unknown parameter: '{min(unknown)}'.")
    return responses_wire.read_prompt(body)


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    counted = {"object": "response.input_tokens", "input_tokens": prompt.tokens}
    return Reply("", Counts(), None, body=orjson.dumps(counted))
