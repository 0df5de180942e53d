"""OpenAI's embeddings: `POST /v1/embeddings`, also spoken by most OpenAI-compatible servers. Never a stream.

Sources, read 2026-11: openai 3.54 (`types/embedding_create_params.py`, `types/create_embedding_response.py`); for
servers that report `total_tokens` alone, jina.ai/embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.dialects.base import Extent, ParsedRequest, Server
from llm.dialects.end_users import metadata_tags, openai_end_user
from llm.dialects.kept_objects import refuse_kept_objects
from llm.dialects.money_fields import read_upstream_cost
from llm.dialects.openai_chat.dialect import OpenAIDialect
from llm.dialects.openai_chat.extent import has_stored_prompt
from llm.dialects.openai_chat.fields import ROUTING_FIELDS, STORED_PROMPT_FIELDS, asked_service, find_routing_fields
from llm.dialects.openai_chat.inputs import inputs_text, is_token_list, listed_inputs
from llm.dialects.reply_fields import loaded_reply, text_in
from llm.dialects.request_fields import checked_model, shape
from llm.dialects.strict_json import load_object
from llm.dialects.usage_figures import read_count, read_figures, read_service
from llm.enums import Dialect
from llm.errors import UpstreamFailed
from llm.types import Reading, TokenCounts

_FIELDS = (
    *("dimensions", "encoding_format", "input", "metadata", "model", "safety_identifier", "service_tier", "user"),
)
_REQUEST = shape(*_FIELDS, *ROUTING_FIELDS, *STORED_PROMPT_FIELDS, "messages")

_INPUT_TEMPLATE_TOKENS = 2
"""What a model adds to each input: a beginning and an end. A text's quotes make up for them."""


class OpenAIEmbeddings(OpenAIDialect):
    """The `PassThrough` wire format of embeddings. There is no output: all tokens are input."""

    dialect = Dialect.OPENAI_EMBEDDINGS
    path = "/embeddings"
    name = "embeddings (POST /v1/embeddings)"

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        body = load_object(raw) if body is None else body
        _REQUEST.refuse_other_cases(body)
        refuse_kept_objects(raw, body)
        return ParsedRequest(
            dialect=self.dialect,
            body=body,
            raw=raw,
            model=checked_model(body.get("model")),
            is_stream=False,
            max_output_tokens=0,
            routing_fields=find_routing_fields(body),
            asked_service=asked_service(body),
            end_user=openai_end_user(body),
            tags=metadata_tags(body),
        )

    def prompt_text(self, request: ParsedRequest) -> str:
        return inputs_text(request.body.get("input"))

    def extent(self, request: ParsedRequest) -> Extent:
        """Texts are bounded by the body's bytes, lists of tokens by their length; anything else is unbounded.

        vLLM also accepts `messages`, with images, and a template for them.
        """
        if request.body.get("messages") is not None or has_stored_prompt(request.body):
            return Extent(None)
        inputs = listed_inputs(request.body.get("input"))
        if all(isinstance(each, str) for each in inputs):
            return Extent(len(request.raw))
        if all(map(is_token_list, inputs)):
            return Extent(sum(len(each) + _INPUT_TEMPLATE_TOKENS for each in inputs))
        return Extent(None)

    def lowered_output(self, request: ParsedRequest, maximum: int, server: Server) -> dict[str, Any]:
        return {}

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        reply = loaded_reply(body, reply)
        if not isinstance(reply, dict) or not isinstance(reply.get("data"), list):
            raise UpstreamFailed("The upstream sent a reply that has no embeddings.", may_have_worked=True)
        counts, absurd_usage = read_figures(reply.get("usage"), _counts)
        return Reading(
            counts=counts,
            absurd_usage=absurd_usage,
            model=text_in(reply, "model"),
            response_id=text_in(reply, "id"),
            service=read_service(reply, reply.get("usage")),
            is_final=True,
            upstream_cost=read_upstream_cost(reply),
        )

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        """Nothing is generated."""
        return ""


OPENAI_EMBEDDINGS = OpenAIEmbeddings()


def _counts(usage: Mapping[str, Any]) -> TokenCounts | None:
    reported = (read_count(usage, "prompt_tokens"), read_count(usage, "total_tokens"))
    known = [count for count in reported if count is not None]
    return TokenCounts(prompt_tokens=max(known)) if known else None
