"""What was learned about a call after its row was closed, and the resulting figures."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from django.db.models import Prefetch

from llm.admin.format import signed_count, signed_usd
from llm.books.figures import EffectiveUsage, compute_figures
from llm.enums import UsageStatus
from llm.models import Usage, UsageAdjustment
from llm.money import pico_to_usd

# Few per call: at most one of each source.
WITH_CORRECTIONS = Prefetch("adjustments", queryset=UsageAdjustment.objects.select_related("decided_by").order_by("id"))


@dataclass(frozen=True, slots=True)
class Correction:
    """One adjustment for display: signed differences."""

    adjustment: UsageAdjustment

    @property
    def tokens_in(self) -> str:
        return signed_count(self.adjustment.prompt_tokens)

    @property
    def tokens_out(self) -> str:
        return signed_count(self.adjustment.completion_tokens)

    @property
    def cost(self) -> str:
        return signed_usd(self.adjustment.cost)

    @property
    def who(self) -> str:
        return str(self.adjustment.decided_by or "the gateway")


@dataclass(frozen=True, slots=True)
class CorrectedCall:
    """A call with its later corrections. call: from a queryset with WITH_CORRECTIONS."""

    call: Usage
    figures: EffectiveUsage
    corrections: tuple[Correction, ...]

    @property
    def cost(self) -> Decimal | None:
        return None if self.figures.cost_pico is None else pico_to_usd(self.figures.cost_pico)

    @property
    def is_unpriced(self) -> bool:
        return self.figures.cost_pico is None and self.call.status in (UsageStatus.SETTLED, UsageStatus.ESTIMATED)

    @property
    def is_undecided(self) -> bool:
        """It was lost or is disputed, and what it used hasn't been decided."""
        return not self.figures.is_known

    @property
    def why_not_billable(self) -> str:
        return "Not billable until staff decide." if self.is_undecided else "Not billable."


def call_figures(call: Usage) -> CorrectedCall:
    adjustments = list(call.adjustments.all())
    return CorrectedCall(call, compute_figures(call, adjustments), tuple(map(Correction, adjustments)))
