"""Rows and people for the tests of the staff's pages; calls are written past the books' writer."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID, uuid4

from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.utils import timezone

from llm.books.batches.session import batch_session
from llm.enums import CallOutcome, Dialect, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.keys import create_key
from llm.limits.periods import period_of
from llm.limits.rows import window_of, window_statements
from llm.models import Account, ApiKey, Limit, OpenCall, Outbox, Usage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PROCESS = UUID(int=1)

_Row = TypeVar("_Row", bound=OpenCall | Usage)


def make_account(name: str = "Acme", **values: Any) -> Account:
    return Account.objects.create(name=name, **values)


def make_key(account: Account, name: str = "production", **values: Any) -> ApiKey:
    return create_key(account, name=name, **values)[0]


def id_at(moment: datetime) -> UUID:
    """A uuid7 of that moment."""
    noise = uuid7().int & (1 << 80) - 1
    return UUID(int=(int(moment.timestamp() * 1000) << 80) | noise)


def usage_row(key: ApiKey, **values: Any) -> Usage:
    """A settled call of 100 tokens in and 20 out for 0.0003 USD, not saved yet."""
    opened_at: datetime = values.pop("opened_at", NOON)
    identifier = id_at(opened_at)
    defaults: dict[str, Any] = {
        "id": identifier,
        "request_id": uuid4(),
        "account_id": key.account_id,
        "api_key": key,
        "process_id": PROCESS,
        "dialect": Dialect.OPENAI_CHAT,
        "provider": "openai",
        "model": "gpt-test",
        "upstream_model": "gpt-test",
        "status": UsageStatus.SETTLED,
        "usage_source": UsageSource.REPORTED,
        "outcome": CallOutcome.OK,
        "opened_at": opened_at,
        "closed_at": opened_at,
        "recorded_at": opened_at,
        "local_day": opened_at.date(),
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cost": Decimal("0.0003"),
        "duration_ms": 1500,
    }
    return Usage(**{**defaults, **values}).stamp_digest()


def open_row(key: ApiKey, **values: Any) -> OpenCall:
    """A call in flight, not saved yet."""
    like = usage_row(key, **values)
    return OpenCall(**{field.attname: getattr(like, field.attname) for field in OpenCall._meta.concrete_fields})


def save(*rows: _Row) -> list[_Row]:
    Usage.objects.bulk_create(row for row in rows if isinstance(row, Usage))
    OpenCall.objects.bulk_create(row for row in rows if isinstance(row, OpenCall))
    return list(rows)


def lost_row(key: ApiKey, **values: Any) -> Usage:
    """A call whose process died: estimated, and not billable until somebody decides."""
    lost = {
        "status": UsageStatus.ESTIMATED,
        "usage_source": UsageSource.ESTIMATED,
        "outcome": CallOutcome.LOST,
        "is_billable": False,
        "duration_ms": None,
    }
    return usage_row(key, **{**lost, **values})


def disputed_row(key: ApiKey, **values: Any) -> Usage:
    """A call whose upstream said that it had used -5 tokens: counted by us, and not billable until somebody decides."""
    disputed = {
        "status": UsageStatus.ESTIMATED,
        "usage_source": UsageSource.ESTIMATED,
        "is_billable": False,
        "is_disputed": True,
        "disputed_usage": {"prompt_tokens": -5},
    }
    return usage_row(key, **{**disputed, **values})


def make_limit(account: Account, *, used: int = 0, held: int = 0, **values: Any) -> Limit:
    """1,000 tokens per month, with what is used and held of the current one, written as the books write it."""
    limit = Limit.objects.create(account=account, **{"metric": "tokens", "per": "month", "amount": 1000, **values})
    if used or held:
        starts_at = period_of(limit.per, account.time_zone, timezone.now()).starts_at
        _fill_window(limit, starts_at, used=used, held=held)
    return limit


def _fill_window(limit: Limit, starts_at: datetime, *, used: int, held: int) -> None:
    with batch_session() as session:
        session.read((), (), foreseen=None)
        [row] = session.lock_windows((), {(limit.pk, starts_at)})
        window = window_of(row)
        window.add(used=used, held=held)
        session.write(list(window_statements([window], vendor=connection.vendor, now=timezone.now())))


def make_message(account: Account, cause: str = "limit:1:mail", **values: Any) -> Outbox:
    """A mail that is due."""
    now = timezone.now()
    defaults = {"kind": "mail", "event": "limit.threshold", "payload": {"used": 900}, "created_at": now, "due_at": now}
    return Outbox.objects.create(account=account, cause=cause, **{**defaults, **values})


def staff_with(*permissions: str) -> Client:
    user = User.objects.create_user("helper", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def token_of(page: Any) -> str:
    """Of the form that makes one thing, however often it is sent."""
    found = re.search(r'name="form_token" value="([^"]+)"', page.content.decode())
    assert found
    return found[1]


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def on(day: date, hour: int = 12) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
