"""Which samplers a model accepts.

Sources, read 2026-11: Anthropic's documentation ("Migrating to Claude 4.5": `temperature` or `top_p`, not both, from
Opus 4.1, Sonnet 4.5 and Haiku 4.5 on; "What's new": none from Opus 4.7 on).
"""

from __future__ import annotations

import re
from typing import Any

_VERSION = re.compile(r"claude-[a-z]+-(\d+)(?:[-.](\d{1,2}))?(?!\d)")
_TAKES_ONE = (4, 1)
_TAKES_NONE = (4, 7)


def samplers(model: str, *, temperature: float | None, top_p: float | None) -> dict[str, Any]:
    """The samplers to send: those that the model would refuse are omitted; `temperature` is preferred to `top_p`."""
    version = _version_of(model)
    if version >= _TAKES_NONE:
        return {}
    if version >= _TAKES_ONE and temperature is not None:
        top_p = None
    return {"temperature": temperature, "top_p": top_p}


def _version_of(model: str) -> tuple[int, int]:
    """(4, 5) for claude-sonnet-4-5-20250929; (0, 0) for models before `claude-sonnet-4`, and for other names."""
    found = _VERSION.search(model.lower())
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)
