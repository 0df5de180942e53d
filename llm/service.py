"""The one interface to language models. Views call it and never import an SDK.

    service = LLMService()
    response = await service.chat([ChatMessage(role="user", content="Hello")])
    async for text in await service.chat(messages, stream=True): ...
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, overload

from django.conf import settings

from llm.calls import RequestTask
from llm.dialects.base import ParsedRequest, WireFormat
from llm.keys import Caller
from llm.runtime import runtime
from llm.types import ChatMessage, ChatResponse


class LLMService:
    """caller: on whose books calls go. Code of this project that calls a model without a key is its own account."""

    def __init__(self, caller: Caller | None = None) -> None:
        self._caller = caller

    def start(self, wire: WireFormat, request: ParsedRequest, *, forwarded_headers: Mapping[str, str]) -> RequestTask:
        """Begin a request that came in over HTTP. Raises ShuttingDown."""
        assert self._caller is not None
        task = RequestTask(runtime(), self._caller, wire, request, forwarded_headers=forwarded_headers)
        runtime().start(task)
        return task
