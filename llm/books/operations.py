"""The operations of the books and their results. Values are bounded and cleaned here, before they are queued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from llm.enums import CallOutcome, Dialect, UsageSource, UsageStatus
from llm.limits.admission import Exceeded, ReservationEstimate
from llm.types import STANDARD_SERVICE, LimitState, Service, TokenCounts, clean_text


@dataclass(frozen=True, slots=True)
class Claim:
    """A caller's idempotency key. Both are SHA-256 in hex: of the key, and of the request's path and body."""

    key_hash: str
    content_hash: str


@dataclass(frozen=True, slots=True)
class OpenCall:
    """Record a call before it is sent.

    price_from, price_until: when `price_id` is in force; with `catalog_version` they prove, by the database's clock,
    that the call was resolved under the current catalog.
    ask: called only if the key or its account has limits; without it nothing is reserved.
    is_stillborn: it is unknown whether this open was written before a connection broke, and nothing was sent. It is
    written (again, perhaps) only to be voided in the same batch, without any checks.
    provider_instance: empty if it has the provider's own name. credential: ID of the instance's key, "" for none.
    end_user: see `llm.endusers`. tags: at most MAX_TAGS.
    service: as requested, which is all that is known about a lost call.
    claim: on an idempotency key. If another call holds the key, this one isn't opened.
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
    request_bytes: int = 0
    ask: Callable[[], ReservationEstimate] | None = field(default=None, compare=False)
    is_stillborn: bool = False
    provider_instance: str = ""
    credential: str = ""
    end_user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    service: Service = STANDARD_SERVICE
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class CloseCall:
    """Settle, estimate or void an open call.

    cost_pico: pico-units of USD; None if no price is known. upstream_cost_pico: the provider's own figure for it.
    speed,
    inference_geo, service_tier: as served. flags: words, see docs/decisions/0024-the-shape-of-a-row.md.
    upstream_status: the HTTP status received, if any.
    account_id: the call's account; 0 if unknown. It only groups operations and is never written.
    releases_claim: the call certainly did nothing, so its idempotency key may be used again.
    """

    id: UUID
    status: UsageStatus
    outcome: CallOutcome
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
    account_id: int = 0
    speed: str = ""
    inference_geo: str = ""
    flags: tuple[str, ...] = ()
    upstream_cost_pico: int | None = None
    releases_claim: bool = False

    @property
    def service(self) -> Service:
        return Service(self.service_tier, self.speed, self.inference_geo)


Operation = OpenCall | CloseCall


@dataclass(frozen=True, slots=True)
class Opened:
    """opened_at: database clock. max_output_tokens: maximum of one choice, if a limit lowered it."""

    opened_at: datetime
    max_output_tokens: int | None = None
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was written. code: `revoked`, `expired`, `unknown`, `account`, `model`, or `limit`."""

    code: str
    exceeded: Exceeded | None = None
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class Repeated:
    """Nothing was written: an earlier request has claimed the idempotency key.

    call_id: its call. is_same: whether it had the same path and body. is_in_flight: whether it is still running.
    """

    call_id: UUID
    is_same: bool
    is_in_flight: bool


@dataclass(frozen=True, slots=True)
class Stale:
    """Nothing was written: routes or prices have changed since the call was resolved.

    now: database clock. version: the catalog's current version.
    """

    now: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Closed:
    """is_new: False if the same close was on the books already."""

    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was written: the row is closed with other values, or doesn't exist."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The database rejected this operation's data; nothing of it was written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Indeterminate:
    """The row isn't open, and the database couldn't be asked why: try again."""


Result = Opened | Refused | Repeated | Stale | Closed | Conflict | Failed | Indeterminate


def flags_text(flags: Iterable[str]) -> str:
    """Flags as stored: unique, sorted, separated by spaces."""
    return " ".join(sorted(set(flags)))


def clean_service(service: Service) -> Service:
    """As the columns hold it, so that the row yields the same price again."""
    return Service(
        clean_text(service.service_tier, limit=50),
        clean_text(service.speed, limit=20),
        clean_text(service.inference_geo, limit=20),
    )


def void_close(opened: OpenCall, *, outcome: CallOutcome = CallOutcome.NOT_SENT) -> CloseCall:
    """The close of a call that was opened and never sent."""
    return CloseCall(
        id=opened.id,
        status=UsageStatus.VOID,
        outcome=outcome,
        cost_pico=0,
        account_id=opened.account_id,
        releases_claim=opened.claim is not None,
    )
