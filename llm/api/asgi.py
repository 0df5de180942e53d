"""ASGI's types, as Django declares them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Headers = list[tuple[bytes, bytes]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
