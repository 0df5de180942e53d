"""What all of OpenAI's endpoints share: errors, headers, prices in replies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from llm.dialects.base import Origin, Rendered
from llm.dialects.json_text import with_usage_cost
from llm.dialects.money_fields import without_money
from llm.dialects.openai_chat import errors as openai_errors
from llm.dialects.sse import COMMENT
from llm.dialects.upstream_body import UpstreamBody
from llm.errors import GatewayError
from llm.types import LimitState


class OpenAIDialect(UpstreamBody):
    """The part of a `PassThrough` wire format that is independent of the endpoint."""

    request_id_header = "x-request-id"
    duration_header = "openai-processing-ms"
    keepalive = COMMENT
    is_on_every_server = True

    def without_money(self, body: bytes) -> bytes:
        return without_money(body)

    def with_cost(self, body: bytes, cost: str) -> bytes:
        return with_usage_cost(body, cost)

    def render_error(self, error: GatewayError, *, request_id: str) -> Rendered:
        return openai_errors.render_error(error)

    def render_stream_error(self, error: GatewayError, *, request_id: str, origin: Origin) -> bytes:
        return openai_errors.render_stream_error(error, origin)

    def limit_headers(self, limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
        return openai_errors.limit_headers(limits, now=now)
