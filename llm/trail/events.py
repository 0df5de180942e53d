"""Events that are in the audit log without being the change of a row."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from llm.enums import AuditAction
from llm.models import AuditEntry, FailedSignIns
from llm.trail.actor import Actor, current_actor

MAX_FAILED_LISTED = 20
"""Failed sign-ins in one minute, from all addresses together; further ones are counted by address."""
MAX_ADDRESSES_COUNTED = 1000
"""In one minute; further addresses are counted together."""
OTHER_ADDRESSES = "other"

_COUNT_SQL = """
INSERT INTO llm_failedsignins (minute, address, attempts) VALUES (%s, %s, 1)
ON CONFLICT (minute, address) DO UPDATE SET attempts = llm_failedsignins.attempts + 1 RETURNING attempts
"""


def record_event(action: AuditAction, detail: str, *, actor: Actor | None = None, occurrences: int = 1) -> None:
    who = actor or current_actor()
    AuditEntry.objects.create(
        at=timezone.now(),
        action=action,
        user_id=who.user_id,
        actor=who.actor[:150],
        via=who.via[:100],
        address=who.address[:50],
        detail=detail[:500],
        occurrences=occurrences,
    )


def record_failed_sign_in(detail: str, *, actor: Actor) -> None:
    minute = timezone.now().replace(second=0, microsecond=0)
    if _count(minute, "") <= MAX_FAILED_LISTED:
        record_event(AuditAction.SIGN_IN_FAILED, detail, actor=actor)
        return
    is_known = FailedSignIns.objects.filter(minute=minute, address=actor.address).exists()
    has_room = is_known or FailedSignIns.objects.filter(minute=minute).count() <= MAX_ADDRESSES_COUNTED
    _count(minute, actor.address if has_room and actor.address else OTHER_ADDRESSES)


def summarize_failed_sign_ins() -> int:
    """Move the counts of minutes that are over into the audit log. Returns how many entries were written."""
    over = timezone.now() - timedelta(minutes=1)
    with transaction.atomic():
        counts = list(FailedSignIns.objects.select_for_update().filter(minute__lte=over).order_by("minute", "address"))
        listed = [count for count in counts if count.address]
        for count in listed:
            record_event(
                AuditAction.SIGN_IN_FAILED,
                f"counted, not listed, in the minute from {count.minute:%Y-%m-%d %H:%M} UTC",
                actor=Actor(address=count.address),
                occurrences=count.attempts,
            )
        FailedSignIns.objects.filter(pk__in=[count.pk for count in counts]).delete()
    return len(listed)


def _count(minute: datetime, address: str) -> int:
    """One statement: no lock is held while anything else is done."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_SQL, [connection.ops.adapt_datetimefield_value(minute), address])
        return int(cursor.fetchone()[0])
