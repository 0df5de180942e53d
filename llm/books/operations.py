"""What can be written into the books, and what came of it. Values are bounded and cleaned here, before any queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from llm.enums import Dialect, Outcome, UsageSource, UsageStatus
from llm.types import TokenCounts


@dataclass(frozen=True, slots=True)
class OpenCall:
    """Put a call on the books before it is sent.

    price_from, price_until: when `price_id` is in force; with `catalog_version` they prove at the database's clock
    that the call was resolved under what holds now.
    """

    id: UUID
    request_id: UUID
    attempt: int
    account_id: int
    key_id: int
    process_id: UUID
    dialect: Dialect
    provider: str
    model: str
    upstream_model: str
    is_stream: bool
    catalog_version: int
    price_id: int | None = None
    price_from: datetime | None = None
    price_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class CloseCall:
    """Settle, estimate or void an open call.

    cost_pico: pico-units of USD; None when no price is known. upstream_status: the HTTP status we got, if any.
    """

    id: UUID
    status: UsageStatus
    outcome: Outcome
    usage_source: UsageSource = UsageSource.NONE
    counts: TokenCounts = field(default_factory=TokenCounts)
    cost_pico: int | None = None
    rate_set_id: int | None = None
    is_billable: bool = True
    is_disputed: bool = False
    disputed_usage: Mapping[str, Any] | None = None
    reported_model: str = ""
    upstream_response_id: str = ""
    service_tier: str = ""
    error_code: str = ""
    upstream_status: int | None = None
    first_byte_ms: int | None = None
    duration_ms: int | None = None


Operation = OpenCall | CloseCall


@dataclass(frozen=True, slots=True)
class Opened:
    """opened_at: database clock."""

    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was written. code: `revoked`, `expired`, `unknown`, `account`, or `model`."""

    code: str


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing was written: routes or prices have changed since the call was resolved.

    now: database clock. version: the catalog's current version.
    """

    now: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Closed:
    """is_new: False when the very same close was on the books already."""

    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """The row says something else already, or there is none: nothing was written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The database refused this very operation's data; nothing of it was written."""

    reason: str


Result = Opened | Refused | Stale | Closed | Conflict | Failed


def clean_text(value: object, *, most: int) -> str:
    """A text as the books can hold it: no NUL or other control characters, no lone surrogates, at most that long."""
    if not isinstance(value, str) or not value:
        return ""
    if not (value.isascii() and value.isprintable()):
        value = "".join(character for character in value if character.isprintable())
        value = value.encode("utf-8", "ignore").decode()
    return value[:most]
