"""Counting without a tokenizer: exact by its own rule, and in bounded time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.providers.counting import IMAGE_TOKENS, count_message_tokens, count_text_tokens
from llm.types import ChatMessage, ImagePart, TextPart, ToolCall

EXACT_UP_TO = 128 * 1024


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("eighteig", 1),
        ("sevens7", 2),
        ("ninenines", 2),
        ("internationalization", 3),
        ("123", 1),
        ("1234", 2),
        ("   \t  ", 0),
        ("\n", 1),
        ("\n\n\n", 1),
        ("a\n \nb", 4),
        ("Hello, world!", 4),
        ("don't", 3),
        ("你好", 2),
        ("naïve", 3),
        ("\N{GRINNING FACE}", 1),
        ("\x00\ud800", 2),
    ],
)
def test_the_rule(text: str, tokens: int) -> None:
    assert count_text_tokens(text) == tokens


@given(st.text(), st.text())
def test_a_text_counts_at_most_as_much_as_its_parts(one: str, other: str) -> None:
    assert count_text_tokens(one + other) <= count_text_tokens(one) + count_text_tokens(other)


@given(st.lists(st.text(alphabet="ab1 \n,", max_size=12), max_size=8))
def test_messages_count_as_much_as_they_do_one_by_one(texts: list[str]) -> None:
    messages = [ChatMessage("user", text) for text in texts]
    assert count_message_tokens(messages) == sum(4 + count_text_tokens(text) for text in texts)


def test_parts_images_and_tool_calls_count() -> None:
    spoken = ChatMessage("user", (TextPart("one "), ImagePart("https://x/y.png"), TextPart("two"), ImagePart("data:,")))
    called = ChatMessage("assistant", tool_calls=(ToolCall("id-is-free", "look", '{"a":1}'),))
    assert count_message_tokens([spoken]) == 4 + 2 + 2 * IMAGE_TOKENS
    assert count_message_tokens([called]) == 4 + 1 + 5


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["The quick brown fox, 1234567. ", "你好", "a", "!", "\n", " "])
def test_a_long_text_is_estimated_as_dense_as_it_is(unit: str) -> None:
    text = unit * (10 * EXACT_UP_TO // len(unit))
    exact = sum(count_text_tokens(text[at : at + 60_000]) for at in range(0, len(text), 60_000))
    # The ends of runs are cut by samples and pieces alike.
    assert count_text_tokens(text) == pytest.approx(exact, rel=0.005, abs=64 * 10)


def test_a_long_text_that_changes_is_sampled_all_over() -> None:
    text = "a" * 3_000_000 + "你" * 1_000_000
    assert count_text_tokens(text) == pytest.approx(3_000_000 / 8 + 1_000_000, rel=0.02)


@pytest.mark.parametrize("size", [EXACT_UP_TO - 1, EXACT_UP_TO, EXACT_UP_TO + 1])
def test_the_step_from_exact_to_estimated_is_small(size: int) -> None:
    assert count_text_tokens("!" * size) == pytest.approx(size / 4, abs=1)
