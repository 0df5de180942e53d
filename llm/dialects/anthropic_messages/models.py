"""What each of Claude's models accepts, by its name.

Sources, read 2026-11, all at platform.claude.com/docs: "Effort", "Thinking", "Adaptive thinking", the migration guides
of Claude 4.5, Opus 4.7, Sonnet 5, Opus 5, Fable 5, Sonnet 5.5, Opus 5.5 and Haiku 5.5; anthropic 2.12
(`types/model_capabilities.py`, `types/thinking_types.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

EFFORTS = ("low", "medium", "high", "xhigh", "max")

_NAME = re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d+)(?:[-.](?P<minor>\d{1,2}))?(?!\d)")
_OLDER = re.compile(r"claude-(?:instant|[123])\b")
_PREVIEW = "claude-mythos-preview"
_ALWAYS_THINKING = ("fable", "mythos")
_FIRST_EFFORT: Mapping[str, tuple[int, int]] = {"opus": (4, 5), "sonnet": (4, 6), "haiku": (5, 5)}
_DISABLED: Mapping[str, Any] = {"type": "disabled"}


@dataclass(frozen=True, slots=True)
class ClaudeModel:
    """efforts: values of `output_config.effort`. thinks_adaptively: with `thinking.type: adaptive`; other models think
    within a budget, if `has_budget`. off: the value of `thinking` that switches it off; None: it can't be.

    hides_thinking: the text of its thinking is omitted unless it is asked for. caps_effort_when_off: without thinking,
    no effort above `high`. takes_prefill: it continues a last turn of the assistant's. takes_forced_tool: it can be
    made to call a tool. samplers: how many of `temperature` and `top_p` it accepts.
    """

    efforts: tuple[str, ...] = EFFORTS
    thinks_adaptively: bool = False
    has_budget: bool = False
    off: Mapping[str, Any] | None = None
    hides_thinking: bool = False
    caps_effort_when_off: bool = False
    takes_prefill: bool = True
    takes_forced_tool: bool = True
    samplers: int = 2

    def closest_effort(self, effort: str, *, is_off: bool = False) -> str | None:
        """The highest effort that is available and not above this one; None if the model has no efforts."""
        highest = min(EFFORTS.index(effort), EFFORTS.index("high") if is_off and self.caps_effort_when_off else 9)
        return next((each for each in reversed(EFFORTS[: highest + 1]) if each in self.efforts), None)


@lru_cache(maxsize=1000)
def find_model(name: str) -> ClaudeModel:
    """The model of that name; of an unknown name, one that accepts everything and has to be asked for nothing."""
    name = name.lower()
    if _PREVIEW in name:
        return _always_thinking((5, 0))
    if found := _NAME.search(name):
        version = int(found["major"]), int(found["minor"] or 0)
        return _always_thinking(version) if found["family"] in _ALWAYS_THINKING else _model(found["family"], version)
    if _OLDER.search(name):
        return ClaudeModel(efforts=(), has_budget="claude-3-7" in name, off=_DISABLED)
    return ClaudeModel(off=_DISABLED)


def _model(family: str, version: tuple[int, int]) -> ClaudeModel:
    first_effort = _FIRST_EFFORT.get(family, (5, 0))
    adaptive = version >= max(first_effort, (4, 6))
    return ClaudeModel(
        efforts=_efforts(version) if version >= first_effort else (),
        thinks_adaptively=adaptive,
        has_budget=not adaptive,
        off=_off(family, version),
        hides_thinking=version >= (4, 7),
        caps_effort_when_off=version >= (5, 0),
        takes_prefill=version < (4, 6),
        takes_forced_tool=version < (5, 5) or family == "haiku",
        samplers=0 if version >= (4, 7) else 1 if version >= (4, 1) else 2,
    )


def _always_thinking(version: tuple[int, int]) -> ClaudeModel:
    return ClaudeModel(
        efforts=_efforts(version),
        thinks_adaptively=True,
        hides_thinking=True,
        takes_prefill=False,
        takes_forced_tool=version < (5, 1),
        samplers=0,
    )


def _efforts(version: tuple[int, int]) -> tuple[str, ...]:
    if version >= (4, 7):
        return EFFORTS
    return ("low", "medium", "high", "max") if version >= (4, 6) else ("low", "medium", "high")


def _off(family: str, version: tuple[int, int]) -> Mapping[str, Any] | None:
    if version < (5, 5) or family == "haiku":
        return _DISABLED
    return {"type": "between_tools"} if family == "sonnet" else None
