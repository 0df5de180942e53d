"""Rows for the tests of the staff's pages, written past the books' writer."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from llm.enums import Dialect, Outcome, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.keys import create_key
from llm.models import Account, ApiKey, Usage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
PROCESS = UUID(int=1)


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
        "outcome": Outcome.OK,
        "opened_at": opened_at,
        "closed_at": opened_at,
        "recorded_at": opened_at,
        "local_day": opened_at.date(),
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cost": Decimal("0.0003"),
        "duration_ms": 1500,
    }
    return Usage(**{**defaults, **values})


def open_row(key: ApiKey, **values: Any) -> Usage:
    unfinished = {
        "status": UsageStatus.OPEN,
        "usage_source": UsageSource.NONE,
        "outcome": Outcome.PENDING,
        "closed_at": None,
        "cost": None,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "duration_ms": None,
    }
    return usage_row(key, **{**unfinished, **values})


def save(*rows: Usage) -> list[Usage]:
    return Usage.objects.bulk_create(rows)


def on(day: date, hour: int = 12) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
