"""Every failure of the management API is `{"detail": "..."}`, one string that says what is wrong and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import OperationalError
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.response import Response
from rest_framework.views import exception_handler

_PLAIN = ("detail", "non_field_errors")


class TooMuchAsked(APIException):
    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_detail = (
        "The database did not answer in time. Narrow the request (account, key, model, from, to), or try again later."
    )


def handle_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    if isinstance(error, OperationalError):
        error = TooMuchAsked()
    elif isinstance(error, RecursionError):
        error = ParseError("The JSON is nested too deep.")
    response = exception_handler(error, context)
    if response is not None:
        response.data = {"detail": " ".join(_sentences(response.data))}
    return response


def _sentences(detail: Any, field: str = "") -> Iterator[str]:
    """DRF's errors are a string, a list, or a mapping of fields to more of them."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _sentences(inner, field if name in _PLAIN else f"{field}.{name}" if field else str(name))
    elif isinstance(detail, list):
        for inner in detail:
            yield from _sentences(inner, field)
    else:
        yield f"{field}: {detail}" if field else str(detail)
