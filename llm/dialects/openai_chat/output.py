"""How much a request lets an upstream write, under all the names that servers have for it.

Which of them a server reads is unknown, so the largest counts, and a limit lowers each. Thinking counts in addition to
the
maximum: Anthropic includes it, Alibaba doesn't. Values that aren't token counts (a text, a negative number) are sent
unchanged, since servers interpret them as they like; they don't bound anything for a limit, which replaces them.

Sources, read 2026-11:
- OpenAI, xAI: `n`, `max_completion_tokens`, `max_tokens`. OpenAI's older completions and vLLM: `best_of`.
- vLLM (docs.vllm.ai, "Extra parameters"): `min_tokens`, `thinking_token_budget`. Transformers, TGI: `max_new_tokens`,
  `min_new_tokens`, `max_length`, `num_return_sequences`, `num_beams`; Cohere: `num_generations`.
- llama.cpp: `n_predict`, -1 for no bound, and `thinking_budget_tokens`. Ollama: `options.num_predict`.
- Anthropic, Doubao: `thinking.budget_tokens`. OpenRouter: `reasoning.max_tokens`. Alibaba: `thinking_budget`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from llm.dialects.request_fields import token_count
from llm.errors import InvalidRequest

MAX_CHOICES = 128

Path = tuple[str, ...]

CHAT_MAXIMA: tuple[Path, ...] = (("max_completion_tokens",), ("max_tokens",))
"""The names that we set ourselves; whether an upstream reads any other is uncertain."""
RESPONSE_MAXIMA: tuple[Path, ...] = (("max_output_tokens",),)
_MAXIMA: tuple[Path, ...] = (
    *(("max_output_tokens",), ("max_new_tokens",), ("max_generated_tokens",), ("max_tokens_to_sample",)),
    *(("max_gen_len",), ("max_gen_toks",), ("max_length",), ("maxOutputTokens",), ("maxTokens",)),
    *(("n_predict",), ("num_predict",), ("options", "num_predict")),
    *(("parameters", "max_new_tokens"), ("sampling_params", "max_new_tokens"), ("sampling_params", "max_tokens")),
)
_MINIMA: tuple[Path, ...] = (
    *(("min_tokens",), ("min_new_tokens",), ("min_completion_tokens",), ("min_output_tokens",), ("min_length",)),
    *(("parameters", "min_new_tokens"), ("sampling_params", "min_new_tokens")),
)
_THINKING: tuple[Path, ...] = (
    *(("thinking", "budget_tokens"), ("reasoning", "max_tokens"), ("reasoning", "budget_tokens")),
    *(("thinking_budget",), ("thinking_budget_tokens",), ("thinking_token_budget",), ("max_thinking_tokens",)),
    *(("reasoning_budget",), ("reasoning_max_tokens",), ("max_reasoning_tokens",)),
    *(("thinking_config", "thinking_budget"), ("chat_template_kwargs", "thinking_budget")),
    *(("chat_template_kwargs", "thinking_token_budget"), ("chat_template_kwargs", "reasoning_budget")),
)
_CHOICES: tuple[Path, ...] = (
    *(("n",), ("best_of",), ("num_generations",), ("num_return_sequences",), ("num_completions",), ("num_choices",)),
    *(("num_samples",), ("num_beams",), ("beam_width",), ("candidate_count",), ("candidateCount",)),
    *(("parameters", "num_return_sequences"), ("parameters", "best_of"), ("sampling_params", "n")),
)

_MAY_BE_NONE = frozenset((("best_of",), ("parameters", "best_of")))
"""OpenAI's API takes a 0 there, as if nothing were asked."""

_ALL: tuple[Path, ...] = (*CHAT_MAXIMA, *_MAXIMA, *_MINIMA, *_THINKING, *_CHOICES)
OUTPUT_FIELDS = frozenset(path[0] for path in _ALL)
OUTPUT_MEMBERS: Mapping[str, frozenset[str]] = {
    name: frozenset(path[1] for path in _ALL if len(path) > 1 and path[0] == name)
    for name in sorted({path[0] for path in _ALL if len(path) > 1})
}
"""Field -> the members of its object that are read here."""


class Output(NamedTuple):
    """choices: how many answers are generated, including those that the caller doesn't get.

    maximum: tokens of one of them, including thinking; None if no field that is certainly read bounds it. thinking: the
    part of it requested for thinking.
    """

    choices: int
    maximum: int | None
    thinking: int


def read_output(body: Mapping[str, Any], standard_names: tuple[Path, ...] = CHAT_MAXIMA) -> Output:
    """standard_names: of maxima that the upstream certainly reads.

    Raises InvalidRequest for an invalid number of answers.
    """
    choices = [_number_of_answers(body, path) for path in _CHOICES if _value(body, path) is not None]
    standard = list(_token_counts(body, standard_names).values())
    others = list(_token_counts(body, (*CHAT_MAXIMA, *_MAXIMA, *_MINIMA)).values())
    thinking = list(_token_counts(body, _THINKING).values())
    budget = max(thinking, default=0)
    is_bounded = bool(standard) and min((*standard, *others, *thinking)) >= 0
    # Servers that accept 0 treat it as 1.
    maximum = max(1, *standard, *others) + budget if is_bounded else None
    return Output(choices=max(choices, default=1), maximum=maximum, thinking=max(budget, 0))


def lowered_output(
    body: Mapping[str, Any], maximum: int, field: str, standard_names: tuple[Path, ...] = CHAT_MAXIMA
) -> dict[str, Any]:
    """The fields to change so that one answer has at most this many tokens, including thinking.

    field: where the upstream expects a maximum that the caller hasn't set. Never raises.
    """
    thinking = _token_counts(body, _THINKING)
    bounds = _token_counts(body, (*CHAT_MAXIMA, *_MAXIMA, *_MINIMA))
    # More than half is left for the answer, unless it asks for less: Anthropic requires a maximum above its thinking.
    max_thinking = (maximum - 1) // 2
    if not bounds.keys().isdisjoint(standard_names) and min(bounds.values()) >= 0:
        max_thinking = max(max_thinking, maximum - max(bounds.values()))
    changes = _lowered(thinking, max_thinking)
    budgets = (thinking | changes).values()
    room = maximum - max(budgets, default=0)
    changes |= _lowered(bounds, room)
    if bounds.keys().isdisjoint(standard_names):
        changes[field,] = room
    return _fields(body, changes)


def _lowered(values: Mapping[Path, int], limit: int) -> dict[Path, int]:
    return {path: limit for path, value in values.items() if value > limit or value < 0}


def _fields(body: Mapping[str, Any], changes: Mapping[Path, int]) -> dict[str, Any]:
    """The changes by top-level field; objects are copied with only these members changed."""
    fields: dict[str, Any] = {}
    for path, value in changes.items():
        if len(path) == 1:
            fields[path[0]] = value
        else:
            fields[path[0]] = {**fields.get(path[0], body[path[0]]), path[1]: value}
    return fields


def _token_counts(body: Mapping[str, Any], paths: Iterable[Path]) -> dict[Path, int]:
    """Of the given fields; -1 for values that bound nothing."""
    given = {path: value for path in paths if (value := _value(body, path)) is not None}
    counts = {path: token_count(value) for path, value in given.items()}
    return {path: -1 if count is None else count for path, count in counts.items()}


def _number_of_answers(body: Mapping[str, Any], path: Path) -> int:
    """Strict: a server that reads more into a value than we do would write answers that no limit has counted."""
    count = token_count(_value(body, path))
    least = 0 if path in _MAY_BE_NONE else 1
    if count is None or not least <= count <= MAX_CHOICES:
        name = ".".join(path)
        raise InvalidRequest(f"'{name}' must be an integer from {least} to {MAX_CHOICES}.", param=name)
    return max(count, 1)


def _value(body: Mapping[str, Any], path: Path) -> Any:
    value = body.get(path[0])
    if len(path) > 1:
        return value.get(path[1]) if isinstance(value, dict) else None
    return value
