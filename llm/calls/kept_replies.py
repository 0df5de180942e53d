"""Replies that are kept for requests with an idempotency key, so that a repeat gets the same bytes. Off by default.

Only whole replies of a call that has worked are kept: an error releases its key, and a stream is never sent again. They
are encrypted under LLM_SECRETS_KEY, and found by the request whose call has claimed the key, so only the API key that
has got a reply gets it once more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import orjson
import structlog
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from llm.calls.relay import JSON, Reply
from llm.calls.runtime import Runtime
from llm.errors import BooksUnavailable
from llm.models import KeptReply, Usage
from llm.secretstore import SecretUnavailable, seal_bytes, unseal_bytes

log = structlog.get_logger("llm.calls")

REPLAYED_HEADER = "x-llm-replayed"
PRUNED_AT_ONCE = 200
PAUSE_SECONDS = 0.05

_KEPT_HEADERS = "x-llm-"
"""How those begin that are about the call and not about the moment at which it was answered."""


def are_kept() -> bool:
    return bool(settings.LLM_KEPT_REPLY_MINUTES)


async def keep_reply(runtime: Runtime, request_id: UUID, body: bytes, headers: Mapping[str, str]) -> None:
    """So that it is there before the caller has it. A reply that is too large, or can't be written, isn't kept."""
    if len(body) > settings.LLM_KEPT_REPLY_BYTES:
        return
    try:
        await runtime.run_db(partial(_write, request_id, body, headers))
    except (BooksUnavailable, DatabaseError, SecretUnavailable) as error:
        log.warning("idempotency.reply_not_kept", request_id=f"req_{request_id.hex}", error=type(error).__name__)


async def find_reply(runtime: Runtime, call_id: UUID) -> Reply | None:
    """What was answered to the request that this call belongs to. Raises BooksUnavailable."""
    try:
        return await runtime.run_side_db(partial(_read, call_id))
    except SecretUnavailable:
        return None


def prune_kept_replies(*, now: datetime) -> int:
    """Delete those whose time is over; how many those were."""
    old = KeptReply.objects.filter(kept_at__lte=now - _lifetime())
    deleted = 0
    while ids := list(old.order_by("kept_at").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        deleted += KeptReply.objects.filter(pk__in=ids).delete()[0]
        # SQLite has one writer at a time: the books are to have their turn.
        time.sleep(PAUSE_SECONDS)
    return deleted


def _lifetime() -> timedelta:
    return timedelta(minutes=settings.LLM_KEPT_REPLY_MINUTES)


def _write(request_id: UUID, body: bytes, headers: Mapping[str, str]) -> None:
    kept = {name: value for name, value in headers.items() if name.startswith(_KEPT_HEADERS)}
    sealed = seal_bytes(orjson.dumps(kept) + b"\n" + body)
    reply = KeptReply(request_id=request_id, sealed=sealed, kept_at=timezone.now())
    KeptReply.objects.bulk_create([reply], ignore_conflicts=True)


def _read(call_id: UUID) -> Reply | None:
    request_id = Usage.objects.filter(pk=call_id).values_list("request_id", flat=True).first()
    if request_id is None:
        return None
    kept = KeptReply.objects.filter(pk=request_id, kept_at__gt=timezone.now() - _lifetime()).first()
    if kept is None:
        return None
    headers, _, body = unseal_bytes(bytes(kept.sealed)).partition(b"\n")
    return Reply(200, body, JSON, {**orjson.loads(headers), REPLAYED_HEADER: "true"})
