"""What messages say: the facts of an event for programs, and a mail for people. One function an event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llm.enums import LimitPer
from llm.limits import format_amount
from llm.models import Account, ApiKey
from llm.windows import period_of

Facts = Mapping[str, Any]

BEGINNING = "it was set"
NEVER = "never: it is a limit in all"


@dataclass(frozen=True, slots=True)
class Mail:
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """An event as it is told. facts: a webhook's data, JSON."""

    facts: Facts
    mail: Mail


def notice_of(event: str, account: Account | None, payload: Facts) -> Notice:
    """payload: as it was written; names are looked up here. account: None for what is told to staff alone.

    Raises KeyError for an event that nobody can tell.
    """
    return _STAFF_EVENTS[event](payload) if account is None else _EVENTS[event](account, payload)


def _provider_refuses_us(payload: Facts) -> Notice:
    """A provider doesn't accept our account: its key, its credit."""
    provider, status = payload["provider"], payload["status"]
    fact = f"{provider} refuses this gateway's account: {_FAULTS.get(payload['fault'], 'see the provider')}"
    return Notice(
        payload,
        Mail(
            subject=f"[LLM gateway] {fact}",
            text=(
                f"{fact}.\n\n"
                f"Status:        {status}\n"
                f"First seen:    {payload['seen_at']}\n\n"
                "Calls of this provider fail with status 502, or go to the next target of their route, until this is "
                "fixed. You will get this alert at most once per provider and hour.\n"
            ),
        ),
    )


_FAULTS: Mapping[str, str] = {
    "key": "its API key is wrong or was revoked",
    "credit": "its credit is used up, or a spending limit was reached",
    "account": "the account is closed, restricted or not permitted",
}


def _threshold(account: Account, payload: Facts) -> Notice:
    """A limit's soft threshold was crossed."""
    starts_at = datetime.fromisoformat(payload["window_starts_at"])
    ends_at = period_of(payload["per"], account.time_zone, starts_at).ends_at
    key = ApiKey.objects.filter(pk=payload["api_key_id"]).first() if payload["api_key_id"] else None
    facts = {
        **payload,
        "account": account.name,
        "key": key.masked if key else None,
        "window_resets_at": ends_at.isoformat() if ends_at else None,
    }
    return Notice(facts, _threshold_mail(account, key, payload, starts_at, ends_at))


def _threshold_mail(
    account: Account, key: ApiKey | None, payload: Facts, starts_at: datetime, ends_at: datetime | None
) -> Mail:
    metric, amount, used = payload["metric"], payload["amount"], payload["used"]
    who = _one_line(f"{account.name}, key {key.name} ({key.masked})," if key else account.name)
    limit = f"{format_amount(metric, amount)} {LimitPer(payload['per']).label}"
    # What was crossed is the least: a large call may have used much more.
    percent = max(payload["percent"], used * 100 // amount) if amount else payload["percent"]
    fact = f"{who} has used {percent} % of {limit}"
    return Mail(
        subject=f"[LLM gateway] {fact}",
        text=(
            f"{fact}.\n\n"
            f"Limit:         {limit}\n"
            f"Used:          {format_amount(metric, used)}\n"
            f"Since:         {_minute(starts_at) if ends_at else BEGINNING}\n"
            f"Begins anew:   {_minute(ends_at) if ends_at else NEVER}\n\n"
            "Calls that would exceed the limit are refused. This is told once in each period.\n"
        ),
    )


def _one_line(names: str) -> str:
    """Names are free text: a line break must not add a header to the mail, nor lines of its own to the facts."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in names).split())


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


_EVENTS: Mapping[str, Callable[[Account, Facts], Notice]] = {"limit.threshold": _threshold}
_STAFF_EVENTS: Mapping[str, Callable[[Facts], Notice]] = {"provider.refused": _provider_refuses_us}
