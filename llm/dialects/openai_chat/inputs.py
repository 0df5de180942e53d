"""Inputs that are texts or lists of tokens, single or many: of embeddings and the older completions."""

from __future__ import annotations

from typing import Any


def listed_inputs(asked: Any) -> list[Any]:
    """Each is a text or a list of tokens, in a valid request."""
    if not isinstance(asked, list):
        return [] if asked is None else [asked]
    return [asked] if asked and is_token_list(asked) else asked


def is_token_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int for each in value)


def inputs_text(asked: Any) -> str:
    """The texts, one per line, for counting. A token counts as a word."""
    return "\n".join(_text_of(each) for each in listed_inputs(asked))


def _text_of(asked: Any) -> str:
    if isinstance(asked, str):
        return asked
    return "word " * len(asked) if is_token_list(asked) else ""
