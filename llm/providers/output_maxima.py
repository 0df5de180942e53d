"""How many tokens a model may write at most, where its caller doesn't say: for limits, and for lists of models.

Anthropic wants a maximum with each request, and says of each model what it may be. OpenAI does neither, so its models
stand here; LLM_OUTPUT_MAXIMA goes before all of them. Too low a figure shortens answers where a limit applies to a
call, too high a one makes the provider refuse them.
Sources, read 2026-11: anthropic 2.12, `types/model_info.py`: `max_tokens` of `GET /v1/models/{id}`;
developers.openai.com/api/docs/models, "Max output tokens".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import structlog
from django.conf import settings

from llm.dialects.request_fields import token_count
from llm.providers.registry import find_instance

log = structlog.get_logger("llm.calls")

# The first that fits. Of models whose maximum is their whole window none is here: with a prompt it would not fit.
_OF_OPENAI: Mapping[str, int] = {
    "gpt-6*": 128_000,
    "gpt-5*-chat*": 16_384,
    "gpt-5*": 128_000,
    "o1-mini*": 65_536,
    "o1-preview*": 32_768,
    "o1*": 100_000,
    "o3*": 100_000,
    "o4-mini*": 100_000,
    "gpt-4.1*": 32_768,
    "gpt-4.5*": 16_384,
    "gpt-4o-2024-05-13": 4_096,
    "gpt-4o*": 16_384,
    "chatgpt-4o*": 16_384,
    "gpt-4-turbo*": 4_096,
    "gpt-3.5-turbo*": 4_096,
}
_FINE_TUNED = "ft:"

_KNOWN_FOR_S = 24 * 3600.0
_UNKNOWN_FOR_S = 300.0
_PATIENCE_S = 5.0
_MAX_MODELS = 1000


def stated_maximum(instance: str, model: str) -> int | None:
    """Of what staff or we have written down. instance: of a provider, whatever it is booked as. model: the provider's
    name of it.
    """
    name = model.lower()
    stated: Mapping[str, int] = settings.LLM_OUTPUT_MAXIMA
    found = _first_match(stated, name)
    known = find_instance(instance)
    if found is None and (instance if known is None else known.provider) == "openai":
        found = _first_match(_OF_OPENAI, name.removeprefix(_FINE_TUNED))
    return found


def _first_match(maxima: Mapping[str, int], name: str) -> int | None:
    return next((maximum for pattern, maximum in maxima.items() if fnmatchcase(name, pattern)), None)


class _Answer(NamedTuple):
    """maximum: None where the provider doesn't say it."""

    maximum: int | None
    until: float


class OutputMaxima:
    """ask: returns the provider's description of a model; it may raise anything."""

    def __init__(self, ask: Callable[[str], Awaitable[Mapping[str, object]]]) -> None:
        self._ask = ask
        self._answers: dict[str, _Answer] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def find_maximum(self, model: str) -> int | None:
        """None where the provider doesn't say it. Of many calls at once one asks."""
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
        return _Answer(maximum or None, time.monotonic() + (_KNOWN_FOR_S if maximum else _UNKNOWN_FOR_S))
