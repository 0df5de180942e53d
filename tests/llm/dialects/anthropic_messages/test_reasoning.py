from __future__ import annotations

from typing import Any

import pytest

from llm.types import ChatMessage, Tool, ToolCall, ToolChoice
from tests.llm.dialects.anthropic_messages.test_request import HELLO, RESULT, SIGNED, body_of, called

ADAPTIVE = {"type": "adaptive", "display": "summarized"}
DISABLED = {"type": "disabled"}
BETWEEN_TOOLS = {"type": "between_tools"}


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


def asked(model: str, effort: str | None, *messages: ChatMessage, **fields: Any) -> tuple[Any, Any]:
    body = body_of(*messages, model=model, reasoning_effort=effort, **{"max_tokens": 10_000, **fields})
    return body.get("thinking"), body.get("output_config", {}).get("effort")


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "sent"),
    [
        ("claude-3-5-haiku-20241022", "high", None, None),
        ("claude-3-7-sonnet-20250219", "high", budget(8_000), None),
        ("claude-sonnet-4-20250514", "low", budget(2_000), None),
        ("claude-sonnet-4-5", "minimal", budget(2_000), None),
        ("claude-haiku-4-5-20251001", "medium", budget(5_000), None),
        ("claude-opus-4-5", "max", budget(9_500), "high"),
        ("claude-sonnet-4-6", "xhigh", {"type": "adaptive"}, "high"),
        ("claude-opus-4-6", "max", {"type": "adaptive"}, "max"),
        ("anthropic/claude-opus-4.7", "xhigh", ADAPTIVE, "xhigh"),
        ("claude-opus-4-8", "low", ADAPTIVE, "low"),
        ("claude-mythos-preview", "high", ADAPTIVE, "high"),
        ("claude-sonnet-5", "high", ADAPTIVE, "high"),
        ("claude-fable-5-1", "medium", ADAPTIVE, "medium"),
        ("claude-haiku-5-5", "max", ADAPTIVE, "max"),
        ("a-server-of-ones-own", "high", None, "high"),
    ],
)
def test_an_effort_turns_thinking_on_as_the_model_does_it(model: str, effort: str, thinking: Any, sent: Any) -> None:
    assert asked(model, effort) == (thinking, sent)


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5-5", "claude-fable-5"])
def test_without_an_effort_the_model_does_what_it_does_by_itself(model: str) -> None:
    assert asked(model, None) == (None, None)


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("claude-sonnet-4-5", DISABLED, None),
        ("claude-opus-4-8", DISABLED, None),
        ("claude-opus-5", DISABLED, None),
        ("claude-haiku-5-5", DISABLED, None),
        ("claude-sonnet-5-5", BETWEEN_TOOLS, None),
        ("claude-opus-5-5", None, "low"),
        ("claude-mythos-5", None, "low"),
        ("claude-mythos-preview", None, "low"),
    ],
)
def test_no_effort_turns_it_off_or_as_low_as_it_goes(model: str, thinking: Any, sent: Any) -> None:
    assert asked(model, "none") == (thinking, sent)


@pytest.mark.parametrize(("maximum", "thinking"), [(1024, DISABLED), (1025, budget(1024)), (64_000, budget(32_000))])
def test_a_budget_is_a_share_of_the_maximum_that_leaves_room_for_the_answer(maximum: int, thinking: Any) -> None:
    assert asked("claude-sonnet-4-5", "high", max_tokens=maximum) == (thinking, None)


FORCED = {"tools": (Tool("f"),), "tool_choice": ToolChoice("tool", "f")}


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("claude-sonnet-4-5", DISABLED, None),
        ("claude-opus-4-6", DISABLED, "max"),
        ("claude-opus-5", DISABLED, "high"),
        ("claude-fable-5", None, "max"),
    ],
)
def test_a_tool_that_must_be_called_is_called_without_thinking(model: str, thinking: Any, sent: Any) -> None:
    assert asked(model, "max", **FORCED) == (thinking, sent)


def test_a_loop_without_its_thinking_matters_to_budgets_alone() -> None:
    loop = (*HELLO, called(), RESULT)
    assert asked("claude-sonnet-4-5", "high", *loop) == (DISABLED, None)
    assert asked("claude-sonnet-4-5", "high", *HELLO, called(SIGNED), RESULT) == (budget(8_000), None)
    assert asked("claude-sonnet-4-6", "high", *loop) == ({"type": "adaptive"}, "high")


def test_a_prefilled_answer_has_no_thinking_before_it() -> None:
    assert asked("claude-sonnet-4-5", "high", *HELLO, ChatMessage("assistant", "{")) == (DISABLED, None)
    turns = (*HELLO, ChatMessage("assistant", tool_calls=(ToolCall("c1", "f", "{}"),)), RESULT, *HELLO)
    assert asked("claude-sonnet-4-5", "high", *turns) == (DISABLED, None)


@pytest.mark.parametrize(
    ("top_p", "sent"), [(0.5, {}), (0.95, {"top_p": 0.95}), (1.0, {})], ids=["low", "high", "default"]
)
def test_beside_thinking_samplers_are_left_out_that_it_refuses(top_p: float, sent: dict[str, float]) -> None:
    body = body_of(model="claude-sonnet-4-6", reasoning_effort="high", temperature=0.2, top_p=top_p)
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == sent
