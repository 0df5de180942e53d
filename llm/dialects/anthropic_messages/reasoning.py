"""How much Claude is to think: from a caller's reasoning effort to `thinking` and `output_config.effort`.

Models think adaptively, or within a budget, which is then a share of the output maximum. Where Anthropic refuses
thinking, the request is sent with thinking switched off: with a tool that must be called; and by budget also within a
tool loop that began without thinking, after a last turn of the assistant's, and if the output maximum is too low. If
the caller returns thinking within a loop but asks for no effort, it is left out: without an effort most models don't
think, and refuse a loop that has thinking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from llm.dialects.anthropic_messages.models import ClaudeModel
from llm.dialects.thinking import BLOCK_KINDS
from llm.errors import UpstreamRejected
from llm.types import ChatRequest

_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_SHARE_OF_MAXIMUM = {"low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.8, "max": 0.95}
_LEAST_BUDGET = 1024
_LARGEST_BUDGET = 32_000
"""Beyond this, Anthropic expects little gain, and advises batch jobs."""
_FORCED = ("required", "tool")
_LEAST_TOP_P = 0.95

Turn = Mapping[str, Any]


class Reasoning(NamedTuple):
    """thinking, effort: values of the fields; None leaves them out. is_on: we have switched thinking on. is_off: it is
    switched off, so that the turns must not have any.
    """

    thinking: Mapping[str, Any] | None = None
    effort: str | None = None
    is_on: bool = False
    is_off: bool = False


def plan_reasoning(request: ChatRequest, model: ClaudeModel, turns: Sequence[Turn], *, maximum: int) -> Reasoning:
    """maximum: of the output, in tokens. Raises UpstreamRejected for an unknown effort."""
    asked = request.reasoning_effort
    if asked is None:
        return Reasoning(is_off=model.off is not None and _has_thinking(turns))
    if asked == "none":
        return _switched_off(model, "low" if model.off is None else None)
    effort = _known_effort(asked)
    if model.thinks_adaptively:
        return _switched_off(model, effort) if _forces_tool(request) else _adaptive(model, effort)
    budget = _budget(effort, maximum) if model.has_budget else None
    if _lacks_thinking(turns) or (model.has_budget and (budget is None or _refuses_thinking(request, turns))):
        return _switched_off(model, effort)
    thinking = None if budget is None else {"type": "enabled", "budget_tokens": budget}
    return Reasoning(thinking, model.closest_effort(effort), is_on=budget is not None)


def samplers(model: ClaudeModel, *, temperature: float | None, top_p: float | None, thinks: bool) -> dict[str, Any]:
    """The samplers to send: those that the model would refuse are omitted; `temperature` is preferred to `top_p`.

    thinks: thinking is switched on, beside which `temperature` must be 1, and `top_p` between 0.95 and 1.
    """
    if model.samplers == 0:
        return {}
    if thinks:
        return {"top_p": top_p} if top_p is not None and top_p >= _LEAST_TOP_P else {}
    if model.samplers == 1 and temperature is not None:
        top_p = None
    return {"temperature": temperature, "top_p": top_p}


def _known_effort(asked: str) -> str:
    if asked not in _EFFORTS:
        known = ", ".join(["none", *_EFFORTS])
        raise UpstreamRejected(f"'reasoning_effort' must be one of {known}.", param="reasoning_effort")
    return _EFFORTS[asked]


def _adaptive(model: ClaudeModel, effort: str) -> Reasoning:
    display = {"display": "summarized"} if model.hides_thinking else {}
    return Reasoning({"type": "adaptive", **display}, model.closest_effort(effort), is_on=True)


def _switched_off(model: ClaudeModel, effort: str | None) -> Reasoning:
    """A model that can't be switched off thinks all the same."""
    closest = None if effort is None else model.closest_effort(effort, is_off=model.off is not None)
    return Reasoning(model.off, closest, is_off=model.off is not None)


def _budget(effort: str, maximum: int) -> int | None:
    """Tokens; None if no budget fits below the maximum."""
    budget = max(_LEAST_BUDGET, min(_LARGEST_BUDGET, int(maximum * _SHARE_OF_MAXIMUM[effort])))
    return budget if budget < maximum else None


def _forces_tool(request: ChatRequest) -> bool:
    return bool(request.tools) and request.tool_choice is not None and request.tool_choice.mode in _FORCED


def _refuses_thinking(request: ChatRequest, turns: Sequence[Turn]) -> bool:
    return _forces_tool(request) or turns[-1]["role"] == "assistant"


def _lacks_thinking(turns: Sequence[Turn]) -> bool:
    """Whether this is a tool loop that began without thinking.

    To Anthropic the whole loop is one assistant turn, which starts with thinking or has none.
    """
    return any(turn["content"][0]["type"] not in BLOCK_KINDS for turn in _turns_of_loop(turns)[-1:])


def _has_thinking(turns: Sequence[Turn]) -> bool:
    """Whether this is a tool loop with thinking anywhere in it."""
    return any(block["type"] in BLOCK_KINDS for turn in _turns_of_loop(turns) for block in turn["content"])


def _turns_of_loop(turns: Sequence[Turn]) -> list[Turn]:
    """The assistant's turns of the tool loop that the last turn belongs to, newest first; none outside of a loop."""
    if not _has_results(turns[-1]):
        return []
    loop = takewhile(lambda turn: turn["role"] == "assistant" or _has_results(turn), reversed(turns))
    return [turn for turn in loop if turn["role"] == "assistant"]


def _has_results(turn: Turn) -> bool:
    return any(block["type"] == "tool_result" for block in turn["content"])
