"""What the books say about a call, its adjustments included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llm.enums import AdjustmentSource, CallOutcome
from llm.limits.admission import units_used
from llm.models import Usage, UsageAdjustment
from llm.money import usd_to_pico
from llm.types import COST_UNKNOWN, TOKEN_FIELDS, Service, TokenCounts

DECIDING = frozenset({AdjustmentSource.SPOOL, AdjustmentSource.DECISION, AdjustmentSource.PROVIDER})
"""Adjustments after which it is known what a doubtful call has used."""

PRICED_AS_REPORTED = "priced_as_reported"
"""Flag of a call that was priced as another model or service than requested."""

TOOLS_UNREPORTED = "tools_unreported"
"""Flag of a call whose provider ran tools and reported no units of them."""

BRING_THEIR_COST = frozenset({AdjustmentSource.SPOOL, AdjustmentSource.PROVIDER})
"""Adjustments with a cost of their own, computed elsewhere from everything that was used."""


@dataclass(frozen=True, slots=True)
class EffectiveUsage:
    """cost_pico: None when unpriced. rate_set_id: the rates behind the cost, None when unpriced. is_known: see
    `units_used`.

    written_pico: the sum of the costs of the row and its adjustments, if any has one; equals the cost, except that a
    cost that was taken back sums to 0 and is unknown. last_rate_set_id: the last rates behind a cost, taken back or
    not.
    is_complete: whether everything that the cost depends on is known. It isn't after a late settlement of an earlier
    release, which recorded neither extra meters nor service.
    """

    status: str
    counts: TokenCounts
    cost_pico: int | None
    is_billable: bool
    is_known: bool
    rate_set_id: int | None
    service: Service
    flags: str
    is_complete: bool
    written_pico: int | None
    last_rate_set_id: int | None

    @property
    def reported_rate_set_id(self) -> int | None:
        """The rates that priced the call, if they aren't those of the requested model."""
        return self.rate_set_id if self.is_priced_as_reported else None

    @property
    def is_priced_as_reported(self) -> bool:
        return PRICED_AS_REPORTED in self.flags.split()

    def units_used(self, metric: str, held: int) -> int:
        return units_used(
            metric,
            held,
            status=self.status,
            total_tokens=self.counts.total_tokens,
            cost_pico=self.cost_pico,
            is_known=self.is_known,
        )


def compute_figures(row: Usage, adjustments: Iterable[UsageAdjustment]) -> EffectiveUsage:
    """The row and what was learned later. adjustments: all of the row's, oldest first."""
    totals = {name: getattr(row, name) for name in TOKEN_FIELDS}
    extra_meters: dict[str, int] = dict(row.extra_meters)
    written_pico = None if row.cost is None else usd_to_pico(row.cost)
    is_billable, rate_set_id, service, flags = row.is_billable, row.rate_set_id, row.service, row.flags
    is_known, is_complete = not is_in_doubt(row), True
    for adjustment in adjustments:
        is_deciding = adjustment.source in DECIDING
        for name in TOKEN_FIELDS:
            totals[name] += getattr(adjustment, name)
        if adjustment.cost is not None:
            written_pico = (written_pico or 0) + usd_to_pico(adjustment.cost)
        if adjustment.digest_version > 1:
            _add(extra_meters, adjustment.extra_meters)
            service, flags = adjustment.service, adjustment.flags
            is_complete = is_complete or is_deciding
        elif adjustment.source in BRING_THEIR_COST:
            is_complete = False
        is_billable = adjustment.is_billable
        is_known = is_known or is_deciding
        rate_set_id = adjustment.rate_set_id or rate_set_id
    counts = TokenCounts(**totals, extra_meters=extra_meters)
    is_taken_back = COST_UNKNOWN in flags.split()
    return EffectiveUsage(
        status=row.status,
        counts=counts,
        cost_pico=None if is_taken_back else written_pico,
        is_billable=is_billable,
        is_known=is_known,
        rate_set_id=None if is_taken_back else rate_set_id,
        service=service,
        flags=flags,
        is_complete=is_complete,
        written_pico=written_pico,
        last_rate_set_id=rate_set_id,
    )


def meter_differences(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """An adjustment's differences of extra meters; unchanged ones are omitted."""
    changes = {name: after.get(name, 0) - before.get(name, 0) for name in sorted({*after, *before})}
    return {name: change for name, change in changes.items() if change}


def _add(meters: dict[str, int], differences: Mapping[str, int]) -> None:
    for name, difference in differences.items():
        meters[name] = meters.get(name, 0) + difference


def is_in_doubt(row: Usage) -> bool:
    """Whether the row can't say what the call used: its process died, or its upstream reported the impossible."""
    return row.is_disputed or row.outcome == CallOutcome.LOST
