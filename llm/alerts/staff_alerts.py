"""Alerts staff to what only they can fix at a provider: a wrong key, spent credit, a closed account.

One message per provider and hour over all processes, since its cause is unique in the outbox. A process that has sent
one doesn't query the database again in that hour.
"""

from __future__ import annotations

from datetime import UTC, datetime

from llm.enums import OutboxKind
from llm.models import Outbox

EVENT = "provider.refused"


class StaffAlerts:
    """The alerts that this process has written in the current hour."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def is_due(self, provider: str, now: datetime) -> bool:
        """Whether an alert must be written; if so, this process claims it."""
        cause = _cause(provider, now)
        if cause in self._told:
            return False
        self._told = {each for each in self._told if each.endswith(_hour(now))} | {cause}
        return True

    def forget(self, provider: str, now: datetime) -> None:
        """It couldn't be written: the next failure tries again."""
        self._told.discard(_cause(provider, now))


def write_alert(provider: str, *, fault: str, status: int | None, now: datetime) -> None:
    """A mail and a webhook for staff; nothing if another process was first in this hour."""
    payload = {"provider": provider, "fault": fault, "status": status, "seen_at": now.isoformat(timespec="seconds")}
    messages = [
        Outbox(
            kind=kind,
            cause=f"{_cause(provider, now)}:{kind}",
            event=EVENT,
            payload=payload,
            created_at=now,
            due_at=now,
        )
        for kind in OutboxKind
    ]
    Outbox.objects.bulk_create(messages, ignore_conflicts=True)


def _cause(provider: str, now: datetime) -> str:
    return f"{EVENT}:{provider}:{_hour(now)}"


def _hour(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H")
