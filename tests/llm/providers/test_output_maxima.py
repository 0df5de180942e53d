"""What a model may write is asked once, whoever asks, and never stands in a call's way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from pytest_django import Settings

from llm.providers import output_maxima
from llm.providers.instances import Instance
from llm.providers.output_maxima import OutputMaxima, stated_maximum


class Provider:
    def __init__(self, described: Mapping[str, object] | Exception) -> None:
        self.described = described
        self.asked: list[str] = []

    async def describe(self, model: str) -> Mapping[str, object]:
        self.asked.append(model)
        await asyncio.sleep(0)
        if isinstance(self.described, Exception):
            raise self.described
        return self.described


async def test_of_many_calls_at_once_one_asks() -> None:
    provider = Provider({"max_tokens": 64_000})
    maxima = OutputMaxima(provider.describe)
    assert await asyncio.gather(*(maxima.find_maximum(model) for model in "aabab")) == [64_000] * 5
    assert sorted(provider.asked) == ["a", "b"]


@pytest.mark.parametrize(
    "described", [{}, {"max_tokens": None}, {"max_tokens": 0}, {"max_tokens": "many"}, TimeoutError(), ValueError()]
)
async def test_what_nobody_knows_is_asked_again_soon(
    described: Mapping[str, object] | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider(described)
    maxima = OutputMaxima(provider.describe)
    assert [await maxima.find_maximum("m") for _ in range(3)] == [None] * 3
    assert provider.asked == ["m"]
    monkeypatch.setattr(output_maxima, "_UNKNOWN_FOR_S", -1.0)
    assert await maxima.find_maximum("other") is None
    provider.described = {"max_tokens": 32_000}
    assert await maxima.find_maximum("other") == 32_000


async def test_names_without_end_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_maxima, "_MAX_MODELS", 3)
    provider = Provider({"max_tokens": 5})
    maxima = OutputMaxima(provider.describe)
    for number in range(10):
        assert await maxima.find_maximum(str(number)) == 5
        assert len(maxima._answers) <= 3


async def test_a_provider_that_hangs_holds_a_call_up_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_maxima, "_PATIENCE_S", 0.01)

    async def hang(_: str) -> Mapping[str, object]:
        await asyncio.Event().wait()
        raise AssertionError

    assert await OutputMaxima(hang).find_maximum("m") is None


@pytest.mark.parametrize(
    ("provider", "model", "maximum"),
    [
        ("openai", "gpt-4o", 16_384),
        ("openai", "gpt-4o-2024-05-13", 4_096),
        ("openai", "GPT-4o-mini", 16_384),
        ("openai", "gpt-5.2-chat-latest", 16_384),
        ("openai", "gpt-5.2-pro", 128_000),
        ("openai", "o1-mini-2024-09-12", 65_536),
        ("openai", "ft:gpt-4.1-mini:acme::x", 32_768),
        ("openai", "gpt-4", None),
        ("openai_compatible", "gpt-4o", None),
        ("openai_compatible", "Llama3:8b", 8_192),
        ("openai", "gpt-6-mine", 7),
    ],
)
def test_what_staff_say_goes_before_what_we_know(
    provider: str, model: str, maximum: int | None, settings: Settings
) -> None:
    settings.LLM_OUTPUT_MAXIMA = {"llama3*": 8_192, "gpt-6-mine": 7}
    assert stated_maximum(provider, model) == maximum


def test_what_an_instance_is_booked_as_plays_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    main = Instance(name="main", provider="openai", booked_as="of ours")
    monkeypatch.setattr(output_maxima, "find_instance", {"main": main}.get)
    assert stated_maximum("main", "gpt-4o") == 16_384
    assert stated_maximum("of ours", "gpt-4o") is None
