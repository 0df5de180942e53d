"""Headers common to all dialects: whether to retry, and which limit leaves least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime

from llm.enums import LimitMetric
from llm.errors import GatewayError, IdempotencyKeyReused, IdempotencyKeyUsed, QuotaExceeded
from llm.types import LimitState

LimitHeaderNames = Sequence[tuple[LimitMetric, tuple[str, str, str]]]
"""By metric, the headers for a limit's amount, the remainder, and the reset."""


def retry_headers(error: GatewayError) -> dict[str, str]:
    """Tell an SDK whether and when to retry. Both SDKs give `x-should-retry` precedence."""
    if isinstance(error, QuotaExceeded | IdempotencyKeyUsed | IdempotencyKeyReused):
        return {"x-should-retry": "false"}
    headers: dict[str, str] = {}
    if error.may_have_worked:
        headers["x-should-retry"] = "false"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    return headers


def limit_headers(
    limits: Sequence[LimitState], names: LimitHeaderNames, reset_text: Callable[[datetime], str]
) -> dict[str, str]:
    """For requests and for tokens, the limit that leaves least; no dialect has such headers for money."""
    headers: dict[str, str] = {}
    for metric, (amount, remaining, reset) in names:
        if (tightest := _tightest_of(limits, metric)) is None:
            continue
        headers[amount], headers[remaining] = str(tightest.amount), str(tightest.remaining)
        if tightest.resets_at is not None:
            headers[reset] = reset_text(tightest.resets_at)
    return headers


def _tightest_of(limits: Sequence[LimitState], metric: LimitMetric) -> LimitState | None:
    """The limit of that metric that leaves least; None if none applies."""
    tightest: LimitState | None = None
    for state in limits:
        if state.metric is metric and (tightest is None or state.remaining < tightest.remaining):
            tightest = state
    return tightest
