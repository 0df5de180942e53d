"""What the management API answers where the database fails a request: what is wrong, and advice only where it helps."""

from __future__ import annotations

import psycopg
import pytest
from django.db import Error, InterfaceError, OperationalError
from rest_framework.test import APIRequestFactory
from structlog.testing import capture_logs

from billing.api.errors import handle_exception

NARROW = "The database did not answer in time. Narrow the request (account, key, model, from, to), or try again later."


def answered(error: Error) -> tuple[int, object, str | None, list[tuple[str, str, str, str]]]:
    """Status, body and retry-after; and the log's lines."""
    with capture_logs() as entries:
        response = handle_exception(error, {"request": APIRequestFactory().get("/api/v1/calls/")})
    assert response is not None
    assert response._has_been_logged  # type: ignore[attr-defined]  # or Django would tell it as an error
    told = [(entry["event"], entry["during"], entry["reason"], entry["log_level"]) for entry in entries]
    return response.status_code, response.data, response.headers.get("retry-after"), told


def test_a_statement_that_took_too_long_is_to_be_narrowed() -> None:
    error = OperationalError("canceling statement due to statement timeout")
    error.__cause__ = psycopg.errors.QueryCanceled()
    assert answered(error) == (
        503,
        {"detail": NARROW},
        None,
        [("database.unavailable", "api", "timeout", "warning")],
    )


@pytest.mark.parametrize("kind", [OperationalError, InterfaceError])
@pytest.mark.parametrize(
    ("text", "reason", "clause"),
    [
        ("FATAL:  sorry, too many clients already", "too_many_connections", "it has too many connections"),
        ("FATAL:  password authentication failed", "password", "it rejects the login"),
        ("the connection is closed", "gone", "it ended the connection"),
        ("something else", None, "it returned an unexpected error"),
    ],
)
def test_a_database_that_is_away_is_told_as_such(kind: type[Error], text: str, reason: str | None, clause: str) -> None:
    sentence = f"The database can't be used at the moment: {clause}. Try again shortly."
    assert answered(kind(text)) == (
        503,
        {"detail": sentence},
        "5",
        [("database.unavailable", "api", reason or kind.__name__, "warning")],
    )
