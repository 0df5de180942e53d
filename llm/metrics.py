"""The gateway's Prometheus metrics, summed over the processes of one host.

Labels are providers, models as in the price list, and outcomes: never accounts or keys, and never a name that a caller
made up.
"""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from llm.enums import CallOutcome

_LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)

CALLS = Counter("llm_calls", "Completed calls, by outcome.", ("provider", "model", "outcome"))
TOKENS = Counter("llm_tokens", "Tokens on the books.", ("provider", "model", "kind"))
COST = Counter(
    "llm_cost_usd", "Cost on the books, in USD (a float: the exact figures are in the books).", ("provider", "model")
)
DURATION = Histogram("llm_call_seconds", "Time from opening to settlement.", ("provider",), buckets=_LATENCY_BUCKETS)
FIRST_BYTE = Histogram(
    "llm_first_byte_seconds", "Time to the upstream's first byte.", ("provider",), buckets=_LATENCY_BUCKETS
)
OVERHEAD = Histogram(
    "llm_gateway_overhead_seconds",
    "Time that the gateway added to a request: total less upstream.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
REFUSED = Counter("llm_refused", "Requests refused before a call was opened.", ("code",))
SIGN_INS = Counter("llm_sign_ins", "Admin sign-in attempts, by result.", ("outcome",))
PAGES = Counter("llm_pages", "Responses of the admin, the management API and unknown paths.", ("status",))
PAGES_REFUSED = Counter(
    "llm_pages_refused",
    ("Admin pages and management API requests turned away because every slot was busy, by kind of client."),
    ("of",),
)
IN_FLIGHT = Gauge("llm_calls_in_flight", "Calls in flight.", multiprocess_mode="livesum")
BATCH_SIZE = Histogram(
    "llm_books_batch_size", "Operations per transaction.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
BATCH_SECONDS = Histogram(
    "llm_books_batch_seconds",
    "Duration of one transaction.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
)
CONFLICTS = Counter("llm_books_conflicts", "Ledger entries that were rejected.")
WAITING = Gauge(
    "llm_books_waiting", "Groups of writes waiting to be committed to the books.", multiprocess_mode="livesum"
)
SPOOL_BYTES = Gauge("llm_spool_bytes", "Settlements waiting on disk for the database.", multiprocess_mode="livesum")
AWAY = Gauge("llm_books_away", "Processes that can't reach the database.", multiprocess_mode="livesum")
SPOOL_FULL = Gauge("llm_spool_full", "Processes that can't write to their spool.", multiprocess_mode="livesum")


TARGET_FAILURES = Counter(
    "llm_target_failures", "Requests that failed at a provider for its own reasons.", ("provider_instance",)
)
TARGETS_PASSED_OVER = Counter(
    "llm_targets_passed_over", "Requests that passed over a target which had failed repeatedly.", ("provider_instance",)
)
TARGETS_SKIPPED = Gauge(
    "llm_targets_skipped",
    "Targets being skipped after repeated failures, summed over processes.",
    ("provider_instance",),
    multiprocess_mode="livesum",
)


class _Series(NamedTuple):
    """Counters and histograms of one (provider, model, outcome), cached: finding them costs more than counting."""

    calls: Counter
    prompt_tokens: Counter
    completion_tokens: Counter
    cost: Counter
    duration: Histogram
    first_byte: Histogram


@lru_cache(maxsize=4096)
def _series(provider: str, model: str, outcome: str) -> _Series:
    return _Series(
        CALLS.labels(provider, model, outcome),
        TOKENS.labels(provider, model, "prompt"),
        TOKENS.labels(provider, model, "completion"),
        COST.labels(provider, model),
        DURATION.labels(provider),
        FIRST_BYTE.labels(provider),
    )


def observe_call(
    *,
    provider: str,
    model: str,
    outcome: CallOutcome,
    prompt_tokens: int,
    completion_tokens: int,
    cost: Decimal | None,
    duration_s: float,
    first_byte_s: float | None,
) -> None:
    series = _series(provider, model, outcome.value)
    series.calls.inc()
    series.prompt_tokens.inc(prompt_tokens)
    series.completion_tokens.inc(completion_tokens)
    if cost:
        series.cost.inc(float(cost))
    series.duration.observe(duration_s)
    if first_byte_s is not None:
        series.first_byte.observe(first_byte_s)


def observe_overhead(seconds: float) -> None:
    OVERHEAD.observe(seconds)


def observe_batch(operations: int, seconds: float) -> None:
    BATCH_SIZE.observe(operations)
    BATCH_SECONDS.observe(seconds)


class WriterState(NamedTuple):
    """What one process's writer of the books reports about itself."""

    is_away: bool
    is_full: bool
    waiting: int
    spool_bytes: int


def note_books(figures: WriterState) -> None:
    AWAY.set(figures.is_away)
    SPOOL_FULL.set(figures.is_full)
    WAITING.set(figures.waiting)
    SPOOL_BYTES.set(figures.spool_bytes)


def count_conflict() -> None:
    CONFLICTS.inc()


def count_refused(code: str) -> None:
    REFUSED.labels(code).inc()


def count_sign_in(outcome: Literal["ok", "failed", "refused", "slowed"]) -> None:
    SIGN_INS.labels(outcome).inc()


def count_page(status: int) -> None:
    PAGES.labels(str(status)).inc()


def count_page_refused(of: Literal["staff", "key", "stranger"]) -> None:
    PAGES_REFUSED.labels(of).inc()
