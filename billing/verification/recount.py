"""Usage counted again from the books' rows, not from rollups, and the usage that invoices state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from billing.models import BilledUsage
from billing.periods import BillingPeriod
from billing.rollup import load_rates
from billing.types import UsageSum
from llm.audit import Findings
from llm.books.figures import compute_figures
from llm.digests import DIGEST_FIELDS
from llm.enums import UsageStatus
from llm.models import Usage, UsageAdjustment
from llm.money import usd_to_pico
from llm.types import TOKEN_FIELDS, TokenCounts

CLOSED = (UsageStatus.SETTLED, UsageStatus.ESTIMATED)

Key = tuple[str, str, int | None]
"""Provider, model, id of the rate set."""


@dataclass
class Sums:
    """Sums over calls, adjustments included. unpriced_calls: those that used something and have no cost."""

    calls: int = 0
    unpriced_calls: int = 0
    cost_pico: int = 0
    tokens: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(TOKEN_FIELDS, 0))
    digest: list[int] = field(default_factory=lambda: [0] * len(DIGEST_FIELDS))

    @property
    def figures(self) -> dict[str, int]:
        return {"calls": self.calls, **self.tokens, "cost_pico": self.cost_pico}

    @property
    def digest_words(self) -> list[int]:
        return [word % 2**32 for word in self.digest]

    @property
    def is_chargeable(self) -> bool:
        """Whether an invoice has a line for it: calls without usage have none."""
        return bool(self.cost_pico or any(self.tokens.values()))


def count_calls(account_id: int, period: BillingPeriod, cutoff: datetime, findings: Findings) -> dict[Key, Sums]:
    """Counted from the rows themselves, as of the cutoff. Adds the number of rows to `findings`."""
    rows = Usage.objects.filter(
        account=account_id, local_day__gte=period.start, local_day__lt=period.end, recorded_at__lte=cutoff
    ).filter(status__in=CLOSED)
    adjustments: dict[UUID, list[UsageAdjustment]] = defaultdict(list)
    for adjustment in UsageAdjustment.objects.filter(usage__in=rows, recorded_at__lte=cutoff).order_by("id"):
        adjustments[adjustment.usage_id].append(adjustment)
    sums: dict[Key, Sums] = defaultdict(Sums)
    for row in rows.order_by().iterator(chunk_size=5000):
        findings.rows += 1
        _add_call(sums, row, adjustments.get(row.pk, []))
    return dict(sums)


def _add_call(sums: dict[Key, Sums], row: Usage, adjustments: Iterable[UsageAdjustment]) -> None:
    adjustments = list(adjustments)
    figures = compute_figures(row, adjustments)
    if not figures.is_billable:
        return
    total = sums[row.provider, row.model, figures.rate_set_id]
    total.calls += 1
    sources: list[Usage | UsageAdjustment] = [row, *adjustments]
    has_units = figures.counts.total_tokens > 0 or any(source.extra_meters for source in sources)
    total.unpriced_calls += figures.cost_pico is None and has_units
    for source in sources:
        total.cost_pico += 0 if source.cost is None else usd_to_pico(source.cost)
        for name in TOKEN_FIELDS:
            total.tokens[name] += getattr(source, name)
        for position, name in enumerate(DIGEST_FIELDS):
            total.digest[position] += getattr(source, name)


def add_billed(rows: Iterable[BilledUsage]) -> dict[Key, Sums]:
    sums: dict[Key, Sums] = defaultdict(Sums)
    for row in rows:
        total = sums[row.provider, row.model, row.rate_set_id]
        total.calls += row.calls
        total.cost_pico += usd_to_pico(row.cost)
        for name in TOKEN_FIELDS:
            total.tokens[name] += getattr(row, name)
        for position, word in enumerate(row.digest_sums):
            total.digest[position] += word
    return dict(sums)


def problems_of_usage(counted: Mapping[Key, Sums], billed: Mapping[Key, Sums]) -> Iterator[tuple[Key, str]]:
    """What differs, and a sentence on each difference, ordered by name."""
    for key in sorted({*counted, *billed}, key=str):
        provider, model, rate_set_id = key
        name = f"{provider} {model}" if rate_set_id is None else f"{provider} {model} at rates {rate_set_id}"
        ours, theirs = counted.get(key, Sums()), billed.get(key, Sums())
        wrong = [what for what, figure in ours.figures.items() if figure != theirs.figures[what]]
        for what in wrong:
            yield (
                key,
                f"{name}: {theirs.figures[what]:,} {what} are billed, but its calls come to {ours.figures[what]:,}",
            )
        if not wrong and ours.digest_words != theirs.digest_words:
            yield key, f"{name}: its calls are not the ones that were billed, although their figures agree"


def usage_sums(counted: Mapping[Key, Sums]) -> list[UsageSum]:
    """In the form that rating takes, without estimates."""
    rates = load_rates({rate_set_id for _, _, rate_set_id in counted if rate_set_id is not None})
    return [
        UsageSum(
            provider=provider,
            model=model,
            rate_set_id=rate_set_id,
            calls=sums.calls,
            unpriced_calls=sums.unpriced_calls,
            counts=TokenCounts(**sums.tokens),
            cost_pico=sums.cost_pico,
            rates={} if rate_set_id is None else rates[rate_set_id],
            digest=tuple(sums.digest),
        )
        for (provider, model, rate_set_id), sums in sorted(counted.items(), key=lambda item: str(item[0]))
    ]
