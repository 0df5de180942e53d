"""Which names a price applies to: the match clauses of genai-prices as JSON. Pure.

    {"equals": "gpt-4o"}  {"starts_with": ...}  {"ends_with": ...}  {"contains": ...}  {"regex": ...}
    {"or": [clause, ...]}  {"and": [clause, ...]}

Names are compared in lower case; regular expressions are searched, unchanged, in the lower-case name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Matcher = Callable[[str], bool]

STAR = "*"


def compile_match(clause: Mapping[str, Any]) -> Matcher:
    """The test for lower-case names described by a `Price.match`. Raises ValueError for an invalid clause."""
    if len(clause) != 1:
        raise ValueError(f"a match clause has one key, not {sorted(clause)}")
    ((kind, operand),) = clause.items()
    if kind in ("or", "and"):
        parts = [compile_match(part) for part in operand]
        combine = any if kind == "or" else all
        return lambda name: combine(part(name) for part in parts)
    if not isinstance(operand, str):
        raise ValueError(f"{kind} takes a string, not {operand!r}")  # noqa: TRY004 - it is data, not an argument
    if kind == "regex":
        try:
            pattern = re.compile(operand)
        except re.error as error:
            raise ValueError(f"“{operand}” is not a valid regular expression") from error
        return lambda name: pattern.search(name) is not None
    return _text_matcher(kind, operand.lower())


def _text_matcher(kind: str, text: str) -> Matcher:
    tests: dict[str, Matcher] = {
        "equals": lambda name: name == text,
        "starts_with": lambda name: name.startswith(text),
        "ends_with": lambda name: name.endswith(text),
        "contains": lambda name: text in name,
    }
    if kind not in tests:
        raise ValueError(f"“{kind}” is not a valid match clause")
    return tests[kind]


def is_pattern(model: str) -> bool:
    """Whether staff have priced all names of a form, such as `ft:gpt-4.1-*`."""
    return STAR in model


def pattern_clause(pattern: str) -> dict[str, str]:
    """The match of a name with one star, which stands for any characters."""
    start, _, end = pattern.partition(STAR)
    return {"regex": rf"\A{re.escape(start.lower())}.*{re.escape(end.lower())}\Z"} if end else {"starts_with": start}


def names_listed_in(clause: Mapping[str, Any]) -> list[str]:
    """The names, in lower case, that a match lists individually rather than by a pattern."""
    if "equals" in clause:
        return [clause["equals"].lower()]
    return [name for part in clause.get("or", ()) for name in names_listed_in(part)]
