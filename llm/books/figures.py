"""What the books say of a call, its adjustments included."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llm.books.admission import units_used
from llm.enums import AdjustmentSource, Outcome
from llm.models import Usage, UsageAdjustment
from llm.money import usd_to_pico
from llm.types import TOKEN_FIELDS, TokenCounts

DECIDING = frozenset({AdjustmentSource.SPOOL, AdjustmentSource.DECISION, AdjustmentSource.PROVIDER})
"""Adjustments after which it is known what a lost call has used."""


@dataclass(frozen=True, slots=True)
class Figures:
    """cost_pico: None when unpriced. is_known: see `units_used`."""

    status: str
    counts: TokenCounts
    cost_pico: int | None
    is_billable: bool
    is_known: bool

    def units_used(self, metric: str, held: int) -> int:
        return units_used(
            metric,
            held,
            status=self.status,
            total_tokens=self.counts.total_tokens,
            cost_pico=self.cost_pico,
            is_known=self.is_known,
        )


def figures_of(row: Usage, adjustments: Iterable[UsageAdjustment]) -> Figures:
    """The row and what was learned later; `adjustments` are all of the row's, oldest first."""
    totals = {name: getattr(row, name) for name in TOKEN_FIELDS}
    cost_pico = None if row.cost is None else usd_to_pico(row.cost)
    is_billable = row.is_billable
    is_known = not row.is_disputed and row.outcome != Outcome.LOST
    for adjustment in adjustments:
        for name in TOKEN_FIELDS:
            totals[name] += getattr(adjustment, name)
        if adjustment.cost is not None:
            cost_pico = (cost_pico or 0) + usd_to_pico(adjustment.cost)
        is_billable = adjustment.is_billable
        is_known = is_known or adjustment.source in DECIDING
    return Figures(row.status, TokenCounts(**totals, extra_meters=row.extra_meters), cost_pico, is_billable, is_known)
