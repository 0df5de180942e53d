"""Anthropic's counting of tokens: `/v1/messages/count_tokens`. It bills nothing."""

import orjson

from tests.fakes import anthropic_wire
from tests.fakes.anthropic_wire import error_body, error_event, reply_headers
from tests.fakes.ledger import JSON, Counts
from tests.fakes.scripts import Script
from tests.fakes.wire import Asked, BadRequestError, Content, Prompt, Reply

__all__ = ["DIALECT", "build_reply", "error_body", "error_event", "read_prompt", "reply_headers"]

DIALECT = "anthropic.count_tokens"


def read_prompt(body: JSON) -> Prompt:
    if unknown := {"max_tokens", "stream"} & set(body):
        raise BadRequestError(f"{min(unknown)}: Extra inputs are not permitted")
    return anthropic_wire.read_prompt({**body, "max_tokens": 1_000_000})


def build_reply(asked: Asked, prompt: Prompt, content: Content, script: Script, call_id: str) -> Reply:
    return Reply("", Counts(), None, body=orjson.dumps({"input_tokens": prompt.tokens}))
