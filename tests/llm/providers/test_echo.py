"""The provider of first runs: says what it was told, and counts it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.providers.base import BaseLLMProvider, ProviderSettings
from llm.providers.echo import EchoProvider
from llm.types import ChatMessage, ChatRequest, ImagePart, StreamEnd, StreamItem, TextPart, TokenCounts

ECHO = EchoProvider(ProviderSettings("echo"))


def asking(*messages: ChatMessage) -> ChatRequest:
    return ChatRequest("any-name", messages)


async def stream(request: ChatRequest) -> list[StreamItem]:
    return [item async for item in ECHO.stream_chat(request)]


def drained(request: ChatRequest) -> list[StreamItem]:
    """The items of a stream that never waits for anything, without an event loop."""
    running = stream(request)
    with pytest.raises(StopIteration) as end:
        running.send(None)
    items: list[StreamItem] = end.value.value
    return items


def test_it_is_a_provider() -> None:
    assert isinstance(ECHO, BaseLLMProvider)


async def test_it_repeats_the_last_thing_that_the_user_said() -> None:
    response = await ECHO.chat(
        asking(ChatMessage("system", "Be kind"), ChatMessage("user", "One"), ChatMessage("user", "Two, three"))
    )
    assert (response.reply, response.model, response.finish_reason) == ("Echo: Two, three", "any-name", "stop")
    # Overheads of 4, then Be kind | One | Two , three; and Echo : Two , three.
    assert response.usage == TokenCounts(prompt_tokens=12 + 2 + 1 + 3, completion_tokens=5)


async def test_a_stream_is_the_reply_word_by_word() -> None:
    request = asking(ChatMessage("user", "One two"))
    assert await stream(request) == ["Echo:", " One", " two", StreamEnd("any-name", TokenCounts(6, 4))]


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (ChatMessage("user", ""),),
        (ChatMessage("user", " \n "),),
        (ChatMessage("assistant", "I talk"),),
        (ChatMessage("user", (ImagePart("https://x/y.png"),)),),
    ],
)
async def test_it_says_so_when_nothing_was_said(messages: tuple[ChatMessage, ...]) -> None:
    assert (await ECHO.chat(asking(*messages))).reply == "Echo: (nothing was said)"


async def test_parts_are_one_text() -> None:
    request = asking(ChatMessage("user", (TextPart("One "), ImagePart("data:,"), TextPart("two"))))
    assert (await ECHO.chat(request)).reply == "Echo: One two"


@given(st.text())
def test_a_stream_adds_up_to_the_whole_reply(said: str) -> None:
    *words, end = drained(asking(ChatMessage("user", said)))
    expected = f"Echo: {said}" if said.strip() else "Echo: (nothing was said)"
    assert "".join(word for word in words if isinstance(word, str)) == expected
    assert all(words)
    assert isinstance(end, StreamEnd)


@pytest.mark.parametrize("said", ["x" * 2_000_000, "x" + " " * 2_000_000 + "y", "x" + " " * 2_000_000, "x " * 200_000])
def test_no_text_takes_it_long(said: str) -> None:
    *words, _ = drained(asking(ChatMessage("user", said)))
    assert sum(len(word) for word in words if isinstance(word, str)) == len("Echo: ") + len(said)
