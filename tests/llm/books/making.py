"""Operations for tests of the books."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from django.db import transaction

from llm.books.adjusting import adjust, lock_call
from llm.books.operations import CloseCall, OpenCall
from llm.enums import AdjustmentSource, CallOutcome, Dialect, UsageSource, UsageStatus
from llm.ids import boot_id, uuid7
from llm.keys import create_key, get_or_create_account
from llm.models import ApiKey, UsageAdjustment
from llm.types import TokenCounts


def a_key(account: str = "acme") -> ApiKey:
    return create_key(get_or_create_account(account), name="tests")[0]


def an_open(key: ApiKey, **changes: Any) -> OpenCall:
    operation = OpenCall(
        id=uuid7(),
        request_id=uuid7(),
        attempt=1,
        account_id=key.account_id,
        key_id=key.pk,
        process_id=boot_id(),
        dialect=Dialect.OPENAI_CHAT,
        provider="openai",
        model="public-name",
        upstream_model="upstream-name",
        is_stream=False,
        catalog_version=0,
    )
    return replace(operation, **changes)


def a_close(call_id: UUID, **changes: Any) -> CloseCall:
    operation = CloseCall(
        id=call_id,
        status=UsageStatus.SETTLED,
        outcome=CallOutcome.OK,
        usage_source=UsageSource.REPORTED,
        counts=TokenCounts(prompt_tokens=9, completion_tokens=4, cache_read_tokens=2),
        cost_pico=123_456_789,
        reported_model="upstream-name-2026",
        upstream_response_id="chatcmpl-1",
        upstream_status=200,
        first_byte_ms=10,
        duration_ms=20,
    )
    return replace(operation, **changes)


def adjust_now(call_id: UUID, source: AdjustmentSource, **values: Any) -> UsageAdjustment:
    with transaction.atomic():
        return adjust(lock_call(call_id), source, **values)
