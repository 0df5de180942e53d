"""Closes whose row wasn't open: a duplicate, a settlement that arrived after the reaper, or a conflict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import DataError, IntegrityError, InterfaceError, OperationalError, transaction

from llm.books import statements
from llm.books.adjusting import LockedCall, adjust, cost_in_force, lock_call, other_rate_set
from llm.books.operations import CloseCall, Closed, Conflict, Indeterminate, Result, flags_text
from llm.enums import AdjustmentSource, CallOutcome, UsageStatus
from llm.models import OpenCall, Usage
from llm.money import usd_to_pico
from llm.prices.pricing import Cost

_NEWER = frozenset({"speed", "inference_geo", "flags", "upstream_cost"})
_LATE = "The settlement of this call arrived after its process was presumed dead."


def compare(closes: Sequence[CloseCall]) -> dict[int, Result]:
    """Results by id() of the operation. May add adjustments, each in its own transaction. Never raises.

    The rest of the batch is already written: a failure here must not look like a failure of the batch.
    """
    try:
        ids = [close.id for close in closes]
        opened = set(OpenCall.objects.filter(pk__in=ids).values_list("pk", flat=True))
        rows = Usage.objects.in_bulk(ids)
    except (OperationalError, InterfaceError):
        return {id(close): Indeterminate() for close in closes}
    # A call that is open now wasn't when the batch looked for it. It can be closed next time.
    return {
        id(close): Indeterminate() if close.id in opened - rows.keys() else _safe_result(close, rows)
        for close in closes
    }


def _safe_result(close: CloseCall, rows: Mapping[UUID, Usage]) -> Result:
    try:
        return _result(close, rows)
    except (OperationalError, InterfaceError):
        return Indeterminate()
    except (DataError, IntegrityError, ValueError) as error:
        return Conflict(f"this call could not be corrected ({type(error).__name__})")


def _result(close: CloseCall, rows: Mapping[UUID, Usage]) -> Result:
    row = rows.get(close.id)
    if row is None and close.outcome == CallOutcome.NOT_SENT:
        return Closed(is_new=False)
    if row is None:
        return Conflict("this call was never opened")
    if _values_of(row) == _plain(statements.close_values(close)):
        return Closed(is_new=False)
    if row.outcome == CallOutcome.LOST:
        return _correct(close)
    return Conflict(f"this call is {row.status} with different figures")


@transaction.atomic
def _correct(close: CloseCall) -> Result:
    """The call's own process knows better than the reaper did, unless its figures are disputed."""
    call = lock_call(close.id)
    earlier = next((each for each in call.adjustments if each.source == AdjustmentSource.SPOOL), None)
    if earlier is not None:
        is_same = earlier.reason.endswith(_fingerprint(close))
        return Closed(is_new=False) if is_same else Conflict("this call was corrected with different figures")
    if close.is_disputed:
        return Conflict("this call was lost, and the usage its provider reported is disputed: decide what it used")
    cost = _cost_now(call, close)
    adjust(
        call,
        AdjustmentSource.SPOOL,
        counts=close.counts,
        cost_pico=None if cost is None else cost.pico,
        rate_set_id=other_rate_set(cost, call.figures),
        is_billable=close.is_billable and close.status != UsageStatus.VOID,
        reason=f"{_LATE} {_fingerprint(close)}",
        service=close.service,
        flags=flags_text(close.flags),
    )
    return Closed()


def _cost_now(call: LockedCall, close: CloseCall) -> Cost | None:
    """As computed by the process, but at the price of any re-rating since."""
    if close.status == UsageStatus.VOID:
        return Cost(0, None)
    if any(each.source == AdjustmentSource.RERATING for each in call.adjustments):
        return cost_in_force(call.row, call.adjustments, close.counts, close.service)
    return None if close.cost_pico is None else Cost(close.cost_pico, close.rate_set_id)


def _fingerprint(close: CloseCall) -> str:
    """Empty values that earlier releases didn't know are omitted, so a settlement written by such a release is
    recognised.
    """
    values = {name: value for name, value in statements.close_values(close).items() if value or name not in _NEWER}
    text = json.dumps(values, sort_keys=True)
    return f"(settlement {hashlib.sha256(text.encode()).hexdigest()[:16]})"


def _values_of(row: Usage) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in statements.CLOSE_COLUMNS}
    for name in ("cost", "upstream_cost"):
        values[name] = None if values[name] is None else usd_to_pico(values[name])
    return _plain(values)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]  # an object stays an object
