"""How many tokens each of Anthropic's models may write: it requires a maximum, and callers often give none.

Source, read 2026-11: anthropic 2.12, `types/model_info.py`: `max_tokens` of `GET /v1/models/{id}`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import structlog

from llm.dialects.anthropic_messages.request import DEFAULT_MAX_TOKENS
from llm.dialects.request_fields import token_count

log = structlog.get_logger("llm.calls")

_KNOWN_FOR_S = 24 * 3600.0
_UNKNOWN_FOR_S = 300.0
_PATIENCE_S = 5.0
_MAX_MODELS = 1000


class _Answer(NamedTuple):
    maximum: int
    until: float


class OutputMaxima:
    """ask: returns the provider's description of a model; it may raise anything."""

    def __init__(self, ask: Callable[[str], Awaitable[Mapping[str, object]]]) -> None:
        self._ask = ask
        self._answers: dict[str, _Answer] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def find_maximum(self, model: str) -> int:
        """DEFAULT_MAX_TOKENS if the provider doesn't say. Of many concurrent calls, one asks."""
        async with self._locks.setdefault(model, asyncio.Lock()):
            answer = self._answers.get(model)
            if answer is None or answer.until < time.monotonic():
                answer = self._answers[model] = await self._answer_for(model)
        if len(self._answers) > _MAX_MODELS:
            # Model names are usually the operator's; this is in case they aren't.
            self._answers.clear()
            self._locks.clear()
        return answer.maximum

    async def _answer_for(self, model: str) -> _Answer:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                maximum = token_count((await self._ask(model)).get("max_tokens"))
        except Exception as error:  # noqa: BLE001  # the call itself will say what is wrong with the provider
            log.warning("provider.maximum_unknown", model=model, error=type(error).__name__)
            maximum = None
        now = time.monotonic()
        return _Answer(maximum, now + _KNOWN_FOR_S) if maximum else _Answer(DEFAULT_MAX_TOKENS, now + _UNKNOWN_FOR_S)
