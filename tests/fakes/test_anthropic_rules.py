"""What the fake refuses as the real one does: each rule with a body that breaks it and one that doesn't."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.anthropic_rules import check_rules
from tests.fakes.wire import BadRequestError

USER = {"role": "user", "content": "Hello"}
CALL = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "42"}
OPEN = {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": False}}}
ENABLED = {"type": "enabled", "budget_tokens": 1024}


def body(*messages: Any, model: str = "claude-sonnet-4-5", **fields: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2000, "messages": list(messages) or [USER], **fields}


def says(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


def image(source: dict[str, str]) -> dict[str, Any]:
    return {"type": "image", "source": source}


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (body(says({"type": "text", "text": " \n"})), "non-whitespace"),
        (body(stop_sequences=["\n"]), "stop_sequences"),
        (body(says({**CALL, "id": "functions.f:0"}, role="assistant"), USER), "tool_use.id"),
        (body(metadata={"user_id": "pat@example.org"}), "user_id"),
        (body(temperature=0.5, top_p=0.5), "cannot both"),
        (body(model="claude-opus-4-7", temperature=0.5), "deprecated"),
        (body(model="claude-sonnet-5", top_p=0.5), "deprecated"),
        (body(model="claude-opus-4-7", thinking=ENABLED), "thinking.type.enabled"),
        (body(thinking={"type": "adaptive"}), "thinking.type.adaptive"),
        (body(thinking={**ENABLED, "budget_tokens": 2000}), "budget_tokens"),
        (body(model="claude-opus-5-5", thinking={"type": "disabled"}), "thinking.type.disabled"),
        (body(model="claude-sonnet-5-5", thinking={"type": "disabled"}), "thinking.type.disabled"),
        (body(USER, {"role": "assistant", "content": "{"}, model="claude-sonnet-4-6"), "prefill"),
        (body(USER, {"role": "assistant", "content": "{ "}), "trailing whitespace"),
        (body(output_config={"effort": "low"}), "effort"),
        (body(model="claude-opus-4-6", output_config={"effort": "xhigh"}), "effort"),
        (body(output_config={"format": {"type": "json_schema", "schema": OPEN}}), "additionalProperties"),
        (body(tools=[{"name": "f", "strict": True, "input_schema": OPEN}]), "additionalProperties"),
        (body(says(*[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}] * 5)), "maximum of 4"),
        (body(thinking=ENABLED, tools=[], tool_choice={"type": "any"}), "forces tool use"),
        (body(model="claude-opus-5-5", tool_choice={"type": "any"}), "forced tool use"),
        (body(says(RESULT)), "unexpected `tool_use_id`"),
        (body({"role": "user", "content": ""}, USER), "non-empty content"),
        (body(says(image({"type": "base64", "media_type": "image/svg+xml", "data": "AA"}))), "media_type"),
        (body(says(image({"type": "url", "url": "http://x/y.png"}))), "HTTPS"),
        (body(thinking=ENABLED, temperature=0.5), "temperature"),
    ],
)
def test_a_body_is_refused(refused: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        check_rules(refused)


@pytest.mark.parametrize(
    "taken",
    [
        body(),
        body(temperature=0.5),
        body(thinking=ENABLED, top_p=0.95),
        body(model="claude-haiku-4-5", thinking=ENABLED),
        body(model="claude-opus-4-6", thinking={"type": "adaptive"}, output_config={"effort": "max"}),
        body(model="claude-sonnet-5-5", thinking={"type": "between_tools"}),
        body(model="claude-opus-5", thinking={"type": "disabled"}, output_config={"effort": "high"}),
        body(model="claude-test", temperature=0.5, top_p=0.5, output_config={"effort": "low"}),
        body(USER, says(CALL, role="assistant"), says(RESULT)),
        body(tools=[{"name": "f", "input_schema": OPEN}]),
        body(says(image({"type": "url", "url": "https://x/y.png"}))),
        body(USER, {"role": "assistant", "content": "{"}),
    ],
)
def test_a_body_is_taken(taken: dict[str, Any]) -> None:
    check_rules(taken)
