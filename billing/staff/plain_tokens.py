"""DRF's plain tokens, stored in plain text: those created before the upgrade work for 30 more days.

Each process keeps their digests and reads them again twice a minute, so a flood of made-up tokens costs no queries.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.contrib.auth.models import User
from django.utils import timezone
from rest_framework.authtoken.models import Token

from billing.models import PlainTokenGrace
from billing.models.tokens import PLAIN_TOKENS_WORK_FOR

_FORM = re.compile(r"[0-9a-f]{40}")
_BELIEVED_SECONDS = 30
_SAID_EACH_SECONDS = 3600

_log = structlog.get_logger("billing.api")


@dataclass(frozen=True, slots=True)
class PlainToken:
    """How a request with one is authenticated. ends_at: from then on it is refused."""

    deprecated_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class _Known:
    read_at: float
    ends_at: datetime | None
    digests: frozenset[bytes]


_known: _Known | None = None
_lock = threading.Lock()
_said_at: dict[int, float] = {}


def plain_token(text: str) -> tuple[User, PlainToken] | None:
    """The user, or None for anything but a plain token that still works."""
    if not _FORM.fullmatch(text):
        return None
    known = _tokens()
    if known.ends_at is None or _digest(text) not in known.digests or known.ends_at <= timezone.now():
        return None
    token = Token.objects.select_related("user").filter(key=text).first()
    if token is None or not token.user.is_active:
        return None
    _warn(token.user, known.ends_at)
    return token.user, PlainToken(known.ends_at - PLAIN_TOKENS_WORK_FOR, known.ends_at)


def plain_tokens_end_at() -> datetime | None:
    """None if there were none when the upgrade came."""
    grace = PlainTokenGrace.objects.order_by("id").first()
    return grace.ends_at if grace is not None else None


def forget_plain_tokens() -> None:
    """Empty this process's cache; the next token sent reads them again."""
    global _known
    _known = None
    _said_at.clear()


def _tokens() -> _Known:
    global _known
    with _lock:
        if _known is None or time.monotonic() - _known.read_at > _BELIEVED_SECONDS:
            _known = _read()
        return _known


def _read() -> _Known:
    grace = PlainTokenGrace.objects.order_by("id").first()
    if grace is None or grace.ends_at <= timezone.now():
        return _Known(time.monotonic(), None, frozenset())
    # A token created since then bypassed our command: it gets no reprieve.
    keys = Token.objects.filter(created__lte=grace.recorded_at).values_list("key", flat=True)
    return _Known(time.monotonic(), grace.ends_at, frozenset(_digest(key) for key in keys))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _warn(user: User, ends_at: datetime) -> None:
    """Once per hour and user: a program may send a request each second."""
    now = time.monotonic()
    if now - _said_at.get(user.pk, -_SAID_EACH_SECONDS) >= _SAID_EACH_SECONDS:
        _said_at[user.pk] = now
        _log.warning("api.plain_token_used", user=user.get_username(), ends_at=ends_at.isoformat())
