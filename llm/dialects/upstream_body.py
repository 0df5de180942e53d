"""The body that is passed through to an upstream of the caller's own dialect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from llm.dialects.base import ANY_SERVER, ParsedRequest, Server
from llm.dialects.request_fields import changed_body, renamed_model


class UpstreamBody(ABC):
    """The `upstream_body` of a `PassThrough` wire format: as sent, but for what its dialect has to change."""

    def upstream_body(
        self,
        request: ParsedRequest,
        *,
        upstream_model: str,
        max_output_tokens: int | None = None,
        server: Server = ANY_SERVER,
    ) -> bytes:
        changes = renamed_model(request, upstream_model) | self.changes_for(request, server)
        if max_output_tokens is not None:
            changes |= self.lowered_output(request, max_output_tokens, server)
        return changed_body(request, changes)

    def changes_for(self, request: ParsedRequest, server: Server) -> dict[str, Any]:
        """New values of the body's outermost members, by name."""
        return {}

    @abstractmethod
    def lowered_output(self, request: ParsedRequest, maximum: int, server: Server) -> dict[str, Any]:
        """The changes with which the upstream writes at most `maximum` tokens in one choice, thinking included."""
