"""Settlements that the books refused, kept for staff."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import orjson
import structlog

from llm import metrics
from llm.books.operations import CloseCall, Conflict, Failed, OpenCall, Operation, Result
from llm.books.records import document_of
from llm.models import RefusedWrite

log = structlog.get_logger("llm.books")


def record_refusals(operations: Sequence[Operation], results: Sequence[Result]) -> None:
    """Log, count and keep what was refused for what it says; once, however often it is tried."""
    stillborn = {each.id for each in operations if isinstance(each, OpenCall) and each.is_stillborn}
    for operation, result in zip(operations, results, strict=True):
        if not isinstance(result, Conflict | Failed) or operation.id in stillborn:
            continue
        metrics.count_conflict()
        kind = "open" if isinstance(operation, OpenCall) else "close"
        log.error("the books refused a write", call_id=str(operation.id), kind=kind, reason=result.reason)
        if isinstance(operation, CloseCall):
            _keep(operation, result.reason)


def _keep(close: CloseCall, reason: str) -> None:
    document = orjson.dumps(document_of(close), option=orjson.OPT_SORT_KEYS)
    RefusedWrite.objects.get_or_create(
        digest=hashlib.sha256(document).hexdigest(),
        defaults={"usage_id": close.id, "reason": reason, "document": orjson.loads(document)},
    )
