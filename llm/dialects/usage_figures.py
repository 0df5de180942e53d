"""Reading token figures that an upstream reports, and doubting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm.types import TokenCounts

MOST_TOKENS = 10**9
"""Of one call: a thousand times the largest context window there is. What is beyond is a mistake of the upstream."""


class AbsurdFigureError(Exception):
    """A figure that cannot be true."""


def count_of(source: Mapping[str, Any], name: str) -> int | None:
    """None when missing or null: that is not zero. Raises AbsurdFigureError for what is no count."""
    value = source.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MOST_TOKENS:
        raise AbsurdFigureError
    return value


def details_of(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of figures inside `source`, empty when missing or null."""
    details = source.get(name)
    if details is None:
        return {}
    if not isinstance(details, dict):
        raise AbsurdFigureError
    return details


def refuse_parts_above_totals(counts: TokenCounts) -> None:
    """Raises AbsurdFigureError."""
    if counts.misfit:
        raise AbsurdFigureError
