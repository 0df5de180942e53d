"""Sums of usage: exact, in any order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from billing.types import NO_DIGEST, UsageSum
from llm.types import TOKEN_FIELDS, TokenCounts


def ordered_sums(usage: Iterable[UsageSum]) -> list[UsageSum]:
    """One per model, provider and rate set, in that order; calls without rates come first."""
    groups: dict[tuple[str, str, int], list[UsageSum]] = defaultdict(list)
    for sums in usage:
        groups[sums.model, sums.provider, sums.rate_set_id or 0].append(sums)
    return [_merged(groups[key]) for key in sorted(groups)]


def added_counts(parts: Iterable[TokenCounts]) -> TokenCounts:
    """Without extra meters."""
    addends = list(parts)
    return TokenCounts(**{name: sum(getattr(each, name) for each in addends) for name in TOKEN_FIELDS})


def added_digests(digests: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Word by word."""
    total: tuple[int, ...] = NO_DIGEST
    for digest in digests:
        total = tuple(a + b for a, b in zip(total, digest, strict=True))
    return total


def _merged(parts: Sequence[UsageSum]) -> UsageSum:
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        calls=sum(part.calls for part in parts),
        counts=added_counts(part.counts for part in parts),
        cost_pico=sum(part.cost_pico for part in parts),
        unpriced_calls=sum(part.unpriced_calls for part in parts),
        estimated_calls=sum(part.estimated_calls for part in parts),
        estimated_cost_pico=sum(part.estimated_cost_pico for part in parts),
        digest=added_digests(part.digest for part in parts),
    )
