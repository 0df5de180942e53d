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
"""Adjustments after which it is known what a call in doubt has used."""


@dataclass(frozen=True, slots=True)
class Figures:
    """cost_pico: None when unpriced. rate_set_id: what gave the cost last. is_known: see `units_used`."""

    status: str
    counts: TokenCounts
    cost_pico: int | None
    is_billable: bool
    is_known: bool
    rate_set_id: int | None

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
    is_known = not is_in_doubt(row)
    rate_set_id = row.rate_set_id
    for adjustment in adjustments:
        for name in TOKEN_FIELDS:
            totals[name] += getattr(adjustment, name)
        if adjustment.cost is not None:
            cost_pico = (cost_pico or 0) + usd_to_pico(adjustment.cost)
        is_billable = adjustment.is_billable
        is_known = is_known or adjustment.source in DECIDING
        rate_set_id = adjustment.rate_set_id or rate_set_id
    counts = TokenCounts(**totals, extra_meters=row.extra_meters)
    return Figures(row.status, counts, cost_pico, is_billable, is_known, rate_set_id)


def is_in_doubt(row: Usage) -> bool:
    """Whether its row can't say what it used: its process died, or its upstream said what can't be true."""
    return row.is_disputed or row.outcome == Outcome.LOST
