"""JSON of an upstream's reply, or of an event of a stream, in any dialect: nothing in it is taken for granted."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import orjson


def loaded(data: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def loaded_reply(body: bytes, reply: Any) -> Any:
    """reply: the parsed bytes, if they were parsed elsewhere. None if it isn't JSON."""
    if reply is None:
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(body)
    return reply


def text_in(source: Mapping[str, Any], name: str) -> str:
    """A member that is a text, otherwise ""."""
    value = source.get(name)
    return value if isinstance(value, str) else ""
