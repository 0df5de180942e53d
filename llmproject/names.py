"""Unread setting names: otherwise a misspelled one would be silently ignored."""

from __future__ import annotations

from collections.abc import Collection, Iterable

MAX_TYPOS = 2
"""A name at most this many letters away from one of ours is taken for a misspelling of it."""
MIN_LENGTH = 8
"""Shorter names without one of our prefixes resemble too many others."""


def begins_like(name: str, known: Iterable[str]) -> bool:
    """Whether the name has the first word of a known one: LLM_, BILLING_, DATABASE_ ..."""
    return name.upper().startswith(tuple({f"{word}_" for word, _, rest in _parts(known) if rest}))


def nearest(name: str, known: Collection[str]) -> str:
    return min(sorted(known), key=lambda each: distance(name.upper(), each.upper()))


def is_misspelled(name: str, known: Iterable[str]) -> bool:
    """Whether the name is within two letters of a known one."""
    if len(name) < MIN_LENGTH and not begins_like(name, known):
        return False
    upper = name.upper()
    return any(distance(upper, each) <= MAX_TYPOS for each in known if _may_be_close(upper, each))


def _may_be_close(one: str, other: str) -> bool:
    """False if lengths and letters rule it out: every start compares each variable with each setting."""
    return abs(len(one) - len(other)) <= MAX_TYPOS and len({*one} ^ {*other}) <= 2 * MAX_TYPOS


def distance(one: str, other: str) -> int:
    """How many letters must be added, removed or replaced to get from one to the other."""
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        current = [row]
        for column, wanted in enumerate(other, start=1):
            replaced = above[column - 1] + (letter != wanted)
            current.append(min(replaced, above[column] + 1, current[-1] + 1))
        above = current
    return above[-1]


def _parts(known: Iterable[str]) -> Iterable[tuple[str, str, str]]:
    return (name.partition("_") for name in known)
