"""Our own identifiers: time-ordered, so that ids sort and partition by when they were made."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from datetime import datetime


def uuid7() -> uuid.UUID:
    """RFC 9562 version 7: 48 bits of milliseconds, 74 random bits. (Python has its own from 3.14 on.)"""
    milliseconds = time.time_ns() // 1_000_000
    noise = secrets.randbits(74)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (noise >> 62) << 64
    value |= 0b10 << 62 | (noise & 0x3FFF_FFFF_FFFF_FFFF)
    return uuid.UUID(int=value)


def first_id_at(moment: datetime) -> uuid.UUID:
    """The lowest uuid7 of that millisecond, which is after 1970."""
    return uuid.UUID(int=int(moment.timestamp() * 1000) << 80)


_boot_ids: dict[int, uuid.UUID] = {}


def boot_id() -> uuid.UUID:
    """This process's own id; a forked child gets another."""
    return _boot_ids.setdefault(os.getpid(), uuid.uuid4())
