"""What the books write of an event, for tests of who tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

THRESHOLD: Mapping[str, Any] = {
    "account_id": 1,
    "api_key_id": None,
    "limit_id": 3,
    "metric": "tokens",
    "per": "month",
    "amount": 1_000_000,
    "used": 823_456,
    "percent": 80,
    "window_starts_at": "2026-11-01T00:00:00+00:00",
}
