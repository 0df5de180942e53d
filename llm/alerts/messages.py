"""The content of messages: the facts of an event for programs, and a mail for people. One function per event."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llm.enums import LimitMetric, LimitPer
from llm.limits.amounts import format_limit_amount
from llm.limits.periods import period_of
from llm.models import Account, ApiKey, EndUser

Facts = Mapping[str, Any]

BEGINNING = "it was set"
NEVER = "never (lifetime limit)"


@dataclass(frozen=True, slots=True)
class Attachment:
    name: str
    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Mail:
    """to: None for the account's address for alerts. sender, reply_to: "" for the usual sender, and for none."""

    subject: str
    text: str
    to: str | None = None
    sender: str = ""
    reply_to: str = ""
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """An event ready to send. facts: a webhook's data, as JSON."""

    facts: Facts
    mail: Mail


def build_notice(event: str, account: Account | None, payload: Facts, *, shows_cost: bool = True) -> Notice:
    """payload: as stored; names are looked up here. account: None for messages to staff only.

    shows_cost: whether the receiver may see our costs. Raises KeyError for an unknown event.
    """
    if account is None:
        return _STAFF_EVENTS[event](payload)
    return _EVENTS[event](account, payload, shows_cost)


Builder = Callable[[Account, Facts, bool], Notice]


def add_events(builders: Mapping[str, Builder], *, staff: Collection[str] = (), mailed: Collection[str] = ()) -> None:
    """Events of other apps. staff: those about which only staff are told: their payload is their facts. mailed: those
    whose mails have an address of their own.
    """
    _EVENTS.update(builders)
    _STAFF_EVENTS.update(dict.fromkeys(staff, _plain_notice))
    MAILED.update(mailed)


def _plain_notice(payload: Facts) -> Notice:
    """Only sent as a webhook."""
    return Notice(payload, Mail(subject="", text=""))


def _provider_refuses_us(payload: Facts) -> Notice:
    """A provider refuses our own account: its key or its credit."""
    fact = f"{payload['provider']} refuses this gateway's account: {_FAULTS.get(payload['fault'], 'see the provider')}"
    text = (
        f"{fact}.\n\n"
        f"Status:        {payload['status']}\n"
        f"First seen:    {payload['seen_at']}\n\n"
        "Calls to this provider fail with status 502, or go to the next target of their route, until this is "
        "fixed. You will get this alert at most once per provider and hour.\n"
    )
    return Notice(payload, Mail(subject=f"[LLM gateway] {fact}", text=text))


_FAULTS: Mapping[str, str] = {
    "key": "its API key is wrong or was revoked",
    "credit": "its credit is used up, or a spending limit was reached",
    "account": "the account is closed, restricted or not permitted",
}


def _threshold(account: Account, payload: Facts, shows_cost: bool) -> Notice:
    """A limit's soft threshold was crossed. Amounts of cost, which reveal our prices, only if the receiver may see
    them.
    """
    starts_at = datetime.fromisoformat(payload["window_starts_at"])
    ends_at = period_of(payload["per"], account.time_zone, starts_at).ends_at
    key = ApiKey.objects.filter(pk=payload["api_key_id"]).first() if payload["api_key_id"] else None
    tells_amounts = shows_cost or payload["metric"] != LimitMetric.COST
    facts = {
        **{name: value for name, value in payload.items() if tells_amounts or name not in ("amount", "used")},
        "account": account.name,
        "key": key.masked if key else None,
        **({"end_user_name": _name_of_end_user(account, payload)} if _is_per_end_user(payload) else {}),
        "window_resets_at": ends_at.isoformat() if ends_at else None,
    }
    return Notice(facts, _threshold_mail(account, key, payload, starts_at, ends_at, tells_amounts=tells_amounts))


def _is_per_end_user(payload: Facts) -> bool:
    """Whether it is a limit for each end user, and about one of them."""
    return "end_user" in payload


def _name_of_end_user(account: Account, payload: Facts) -> str | None:
    """None if the call named no end user, or the name was deleted."""
    return (
        EndUser.objects.filter(account=account, end_user=payload["end_user"] or "")
        .values_list("name", flat=True)
        .first()
    )


def _threshold_mail(
    account: Account,
    key: ApiKey | None,
    payload: Facts,
    starts_at: datetime,
    ends_at: datetime | None,
    *,
    tells_amounts: bool,
) -> Mail:
    metric, amount, used = payload["metric"], payload["amount"], payload["used"]
    who = _one_line(f"{account.name}, key {key.name} ({key.masked})," if key else account.name)
    # Without the end user's name: subjects are shown where mails aren't.
    who = f"An end user of {who}" if _is_per_end_user(payload) else who
    per = LimitPer(payload["per"]).label
    limit = f"{format_limit_amount(metric, amount)} {per}" if tells_amounts else f"its cost limit {per}"
    # The actual usage: a large call may have gone far beyond the threshold.
    percent = max(payload["percent"], used * 100 // amount) if amount else payload["percent"]
    fact = f"{who} has used {percent} % of {limit}"
    figures = f"Limit:         {limit}\nUsed:          {format_limit_amount(metric, used)}\n" if tells_amounts else ""
    return Mail(
        subject=f"[LLM gateway] {fact}",
        text=(
            f"{fact}.\n\n"
            f"{_end_user_line(account, payload)}"
            f"{figures}"
            f"Since:         {_minute(starts_at) if ends_at else BEGINNING}\n"
            f"Resets:        {_minute(ends_at) if ends_at else NEVER}\n\n"
            f"Calls that would exceed the limit are refused. You will get this alert {_how_often(payload)}.\n"
        ),
    )


def _end_user_line(account: Account, payload: Facts) -> str:
    if not _is_per_end_user(payload):
        return ""
    end_user = payload["end_user"]
    if end_user is None:
        who = "those that the key named after too many others, who share one limit"
    elif not end_user:
        who = "requests that name none, which share one limit"
    else:
        name = _one_line(_name_of_end_user(account, payload) or "")
        who = f"{name} ({end_user})" if name else end_user
    return f"End user:      {who}\n"


def _how_often(payload: Facts) -> str:
    """As the books queue them: see `llm.limits.rows`."""
    if _is_per_end_user(payload):
        is_short = payload["per"] in (LimitPer.MINUTE, LimitPer.HOUR)
        return f"at most once per {'hour' if is_short else 'day'}, however many end users reach it"
    return "at most once per hour" if payload["per"] == LimitPer.MINUTE else "once per period"


def _one_line(names: str) -> str:
    """Names are free text: a line break must not add a header to the mail, or a line to the facts."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in names).split())


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


MAILED: set[str] = set()
"""Events whose mails have an address of their own, and no other recipient."""
_EVENTS: dict[str, Builder] = {"limit.threshold": _threshold}
_STAFF_EVENTS: dict[str, Callable[[Facts], Notice]] = {"provider.refused": _provider_refuses_us}
