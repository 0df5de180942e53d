"""Corrections of closed calls: a late settlement, or a decision of staff. The row stays; an adjustment is added."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection, transaction

from llm.books.clock import lock_books
from llm.books.figures import EffectiveUsage, compute_figures, meter_differences
from llm.books.operations import flags_text
from llm.dialects.usage_figures import merged_service
from llm.enums import AdjustmentSource, UsageStatus
from llm.limits.rows import lock_windows, window_statements
from llm.models import RateSet, ReratingRun, Usage, UsageAdjustment
from llm.money import pico_to_usd
from llm.prices.pricing import Cost, known_cost
from llm.prices.snapshots import load_snapshots
from llm.types import COST_UNKNOWN, STANDARD_SERVICE, TOKEN_FIELDS, Service, TokenCounts

if TYPE_CHECKING:
    from django.contrib.auth.models import User


DECLARED_FREE = Cost(0, None)

_LOCK = 0x6C6C6D6B
"""The advisory locks of calls that are being corrected; two calls may share one."""


@dataclass(frozen=True, slots=True)
class LockedCall:
    """A call locked against changes until the transaction ends, which every correction requires.

    An adjustment says what a call's figures *are*, so it must be based on the current ones. Figures read without the
    lock would undo what was learned about the call meanwhile.
    adjustments: oldest first. now: the database's clock.
    """

    row: Usage
    adjustments: Sequence[UsageAdjustment]
    now: datetime

    @property
    def figures(self) -> EffectiveUsage:
        return compute_figures(self.row, self.adjustments)


def lock_call(usage_id: UUID) -> LockedCall:
    """Inside a transaction. In the usual order of locks: the books, then the call; its windows come after it.

    An advisory lock: the row never changes, so nobody needs the right to change it, which a lock on it would require.
    Raises Usage.DoesNotExist while the call is open.
    """
    now = lock_books()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_LOCK, zlib.crc32(usage_id.bytes) - 2**31])
    row = Usage.objects.get(pk=usage_id)
    return LockedCall(row, list(row.adjustments.order_by("id")), now)


def adjust(
    call: LockedCall,
    source: AdjustmentSource,
    *,
    counts: TokenCounts,
    cost_pico: int | None,
    is_billable: bool,
    reason: str,
    user: User | None = None,
    rate_set_id: int | None = None,
    rerating: ReratingRun | None = None,
    service: Service | None = None,
    flags: str | None = None,
) -> UsageAdjustment:
    """Make these the call's figures, whatever was known before. service, flags: None keeps the known ones.

    cost_pico: None if no price is known for this usage. A known cost is then taken back, and the flags mark it as
    unknown: otherwise it would be billed for usage that it doesn't cover.
    Its limits' windows follow, with alerts for soft thresholds that are crossed. rate_set_id: the rates behind the
    cost, if they differ from those before. Raises ValueError if the row is void, or was already adjusted by this
    source, or this re-rating.
    """
    row, earlier, before = call.row, call.adjustments, call.figures
    if row.status == UsageStatus.VOID:
        raise ValueError(f"This call is {row.get_status_display()}: there is nothing to correct.")
    rerating_id = None if rerating is None else rerating.pk
    if any((each.source, each.rerating_id) == (source, rerating_id) for each in earlier):
        raise ValueError(f"This call already has this correction: {source.label}.")
    adjustment = UsageAdjustment(
        usage=row,
        source=source,
        **{name: getattr(counts, name) - getattr(before.counts, name) for name in TOKEN_FIELDS},
        extra_meters=meter_differences(counts.extra_meters, before.counts.extra_meters),
        **(before.service if service is None else service)._asdict(),
        flags=_flags_with(before.flags if flags is None else flags, cost_pico, before),
        cost=_cost_difference(cost_pico, before),
        rate_set_id=rate_set_id,
        rerating=rerating,
        is_billable=is_billable,
        reason=reason[:500],
        decided_by=user,
        recorded_at=call.now,
    )
    adjustment.stamp_digest()
    adjustment.save(force_insert=True)
    _move_windows(row, before, compute_figures(row, [*earlier, adjustment]), now=call.now)
    return adjustment


def _cost_difference(cost_pico: int | None, before: EffectiveUsage) -> Decimal | None:
    """What brings the sum of all costs to this one, or to 0 if it is unknown."""
    if cost_pico is None and before.written_pico is None:
        return None
    return pico_to_usd((cost_pico or 0) - (before.written_pico or 0))


def _flags_with(flags: str, cost_pico: int | None, before: EffectiveUsage) -> str:
    """Marks whether the cost is unknown although the row, or an adjustment, had one."""
    words = {*flags.split()} - {COST_UNKNOWN}
    is_taken_back = cost_pico is None and before.written_pico is not None
    return flags_text({*words, COST_UNKNOWN} if is_taken_back else words)


@transaction.atomic
def decide_call(
    usage_id: UUID,
    *,
    counts: TokenCounts | None,
    is_billable: bool,
    reason: str,
    user: User | None,
    service: Service | None = None,
) -> UsageAdjustment:
    """Record a decision of staff on a call that was lost, or is disputed. counts: None keeps the estimate. service: how
    it was served, which affects its cost; an empty part keeps the known one, so the standard service must be named.

    Raises ValueError with a sentence if it isn't such a call, was decided already, or has no price for this usage.
    """
    if not reason.strip():
        raise ValueError("Give a reason.")
    # Locked first: a late settlement, which knows better, may arrive at any moment.
    try:
        call = lock_call(usage_id)
    except Usage.DoesNotExist as error:
        raise ValueError("This call is still in flight: its usage is not yet known.") from error
    figures = call.figures
    if figures.is_known:
        raise ValueError("The usage of this call is already known.")
    service = merged_service(figures.service, service or STANDARD_SERVICE)
    if counts is None:
        counts, cost_pico, rate_set_id = figures.counts, figures.cost_pico, None
    else:
        cost = cost_in_force(call.row, call.adjustments, counts, service)
        if cost is None and figures.cost_pico is not None:
            # Only a person waits for this and may have made a typing error, so a priced call stays priced until a price
            # is known. A late settlement can't be refused for that, so it takes the cost back.
            raise ValueError("The price of this call doesn't cover what it used.")
        cost_pico, rate_set_id = None if cost is None else cost.pico, other_rate_set(cost, figures)
    return adjust(
        call,
        AdjustmentSource.DECISION,
        counts=counts,
        cost_pico=cost_pico,
        rate_set_id=rate_set_id,
        is_billable=is_billable,
        reason=reason.strip(),
        user=user,
        service=service,
    )


def cost_in_force(
    row: Usage, adjustments: Sequence[UsageAdjustment], counts: TokenCounts, service: Service
) -> Cost | None:
    """What these tokens cost at the price frozen when the call was opened, at that of the model that served it, or at
    that of its last re-rating.

    adjustments: all of the row's, oldest first. None if that price doesn't cover them.
    """
    price_id = row.price_id
    rerated = last_rerating(adjustments)
    if rerated is not None and rerated.rate_set_id is None:
        return DECLARED_FREE
    rates = compute_figures(row, adjustments).reported_rate_set_id if rerated is None else rerated.rate_set_id
    if rates is not None:
        price_id = RateSet.objects.values_list("price_id", flat=True).get(pk=rates)
    price = None if price_id is None else load_snapshots([price_id])[price_id]
    return known_cost(counts, price, service)


def last_rerating(adjustments: Sequence[UsageAdjustment]) -> UsageAdjustment | None:
    """The re-rating whose rates price the call; a call that it declared free has none. adjustments: oldest first."""
    return next((each for each in reversed(adjustments) if each.source == AdjustmentSource.RERATING), None)


def other_rate_set(cost: Cost | None, before: EffectiveUsage) -> int | None:
    """An adjustment's rate set: None if it doesn't change."""
    return None if cost is None or cost.rate_set_id == before.rate_set_id else cost.rate_set_id


def _move_windows(row: Usage, before: EffectiveUsage, after: EffectiveUsage, *, now: datetime) -> None:
    held: dict[int, int] = dict(row.holds or ())
    if not held:
        return
    windows = lock_windows(held)
    for window in windows:
        metric, units = window.limit.metric, held[window.id]
        window.add(used=after.units_used(metric, units) - before.units_used(metric, units))
    with connection.cursor() as cursor:
        for sql, parameters in window_statements(windows, vendor=connection.vendor, now=now):
            cursor.execute(sql, parameters)
