"""Every failure of the management API is `{"detail": "..."}`, one string that says what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog
from django.db import IntegrityError, InterfaceError, OperationalError
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from llm.db.outages import Outage, is_statement_timeout, outage_of, reason_of, sentence_for_callers
from llm.db.violations import is_unique_violation
from llm.errors import BooksUnavailable
from llmproject.quietlogs import told_outages
from llmproject.refusals import without_log

log = structlog.get_logger("billing.api")

_PLAIN = ("detail", "non_field_errors")


class TooMuchAsked(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = (
        "The database did not answer in time. Narrow the request (account, key, model, from, to), or try again later."
    )


class DatabaseUnavailable(APIException):
    """The database is unavailable."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE

    def __init__(self, outage: Outage) -> None:
        super().__init__(sentence_for_callers(outage))
        # DRF sends it as retry-after.
        self.wait = BooksUnavailable.retry_after_s


class Conflict(APIException):
    """Another request was faster; nothing was written."""

    status_code = status.HTTP_409_CONFLICT
    default_detail = (
        "Something this request depends on was changed in the meantime. Nothing was written: read it again and retry."
    )


class AlreadyExists(Conflict):
    default_detail = "This already exists: another request added it in the meantime. Nothing was written."


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    if isinstance(error, OperationalError | InterfaceError):
        error = _unavailable(error, context)
    elif isinstance(error, IntegrityError):
        error = _conflict(error, context)
    elif isinstance(error, RecursionError):
        error = ParseError("The JSON is nested too deep.")
    response = exception_handler(error, context)
    if response is not None:
        sentences = " ".join(_sentences(response.data))
        # A quoted part of a body may hold a lone surrogate, which a response can't.
        response.data = {"detail": sentences.encode(errors="replace").decode()}
        if isinstance(error, DatabaseUnavailable | TooMuchAsked):
            without_log(response)
    return response


def _conflict(error: IntegrityError, context: dict[str, Any]) -> APIException:
    """Logged too: otherwise a rule that only the database enforces would go unnoticed."""
    if is_unique_violation(error):
        return AlreadyExists()
    log.error("database.refused_write", path=context["request"].path[:200], error=str(error.__cause__)[:500])
    return Conflict()


def _unavailable(error: OperationalError | InterfaceError, context: dict[str, Any]) -> APIException:
    reason, path = reason_of(error), context["request"].path[:200]
    if (left_out := told_outages.left_out(("request", reason))) is not None:
        log.warning("database.unavailable", during="api", reason=reason, path=path, left_out=left_out)
    if is_statement_timeout(error):
        return TooMuchAsked()
    return DatabaseUnavailable(outage_of(error) or Outage.UNAVAILABLE)


def _sentences(detail: Any, field: str = "") -> Iterator[str]:
    """DRF's errors are a string, a list, or a mapping from field to more of them."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _sentences(inner, field if name in _PLAIN else f"{field}.{name}" if field else str(name))
    elif isinstance(detail, list):
        for inner in detail:
            yield from _sentences(inner, field)
    else:
        yield f"{field}: {detail}" if field else str(detail)
