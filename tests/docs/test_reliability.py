"""docs/reliability.md: the table of what is retried says what the code does."""

from __future__ import annotations

import re
from types import SimpleNamespace

import httpx2
import pytest

from llm.calls.retries import is_final, pause_before
from llm.errors import UpstreamError, UpstreamRejected
from llm.providers.failures import upstream_error
from llm.providers.transport import NeverSent
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reliability.md"


class StatusError(Exception):
    def __init__(self, status: int, body: object) -> None:
        super().__init__(status)
        self.status_code, self.body, self.response = status, body, SimpleNamespace(headers={})


def answered(status: int, **error: str) -> UpstreamError:
    body = {"error": {"message": "No.", **error}}
    return upstream_error(StatusError(status, body), provider="openai")


CASES: dict[str, UpstreamError] = {
    "no connection": upstream_error(NeverSent("refused"), provider="openai"),
    "400, 409, 415, 422": answered(422),
    "400 about this model only: too long for it, a parameter it lacks": answered(400, code="context_length_exceeded"),
    "404 model not found, 413": answered(404, code="model_not_found"),
    "what the provider's dialect can't express, before it is sent": UpstreamRejected("No plain JSON mode."),
    "401, 402, 403, and our key, credit or account in any other 4xx": answered(400, code="billing_hard_limit_reached"),
    "403 because the input was flagged (moderation)": answered(403, code="content_policy_violation"),
    "429": answered(429),
    "408": answered(408),
    "3xx, other 4xx, a 404 without a message": answered(418),
    "503, 521, 523, 529": answered(529),
    "501, 525, 526": answered(501),
    "500, 502, 504, other 5xx": answered(500),
    "silence, a timeout": upstream_error(TimeoutError(), provider="openai"),
    "broken off, or an unreadable reply": upstream_error(httpx2.ReadError("broke"), provider="openai"),
}


def row_of(case: str, failure: UpstreamError) -> tuple[str, ...]:
    at_risk = not is_final(failure, falls_back_on_server_error=True)
    status = str(failure.http_status)
    if isinstance(failure, UpstreamRejected) and failure.upstream_status is not None:
        status = "the provider's"
    follows = "yes" if not is_final(failure) else "if the route says so" if at_risk else "no"
    return (
        case,
        "may have, estimated" if failure.may_have_worked else "no, costs 0",
        "no" if pause_before(0, failure) is None else "yes",
        follows,
        f"{status}, `x-should-retry: false`" if failure.may_have_worked else status,
    )


def test_the_table_says_what_the_code_does() -> None:
    written = re.search(r"^## What is retried\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert written is not None
    lines = [line for line in written[1].splitlines() if line.startswith("|")][2:]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert rows == [row_of(case, failure) for case, failure in CASES.items()]


@pytest.mark.parametrize(
    ("case", "statuses"),
    [
        ("400, 409, 415, 422", (400, 409, 415, 422)),
        ("404 model not found, 413", (404, 413)),
        ("503, 521, 523, 529", (503, 521, 523, 529)),
        ("501, 525, 526", (501, 525, 526)),
        ("500, 502, 504, other 5xx", (500, 502, 504, 520, 522, 524)),
        ("401, 402, 403, and our key, credit or account in any other 4xx", (401, 402, 403)),
        ("3xx, other 4xx, a 404 without a message", (302, 405, 410, 418)),
    ],
)
def test_each_status_of_a_line_is_what_the_line_says(case: str, statuses: tuple[int, ...]) -> None:
    assert {row_of(case, answered(status)) for status in statuses} == {row_of(case, CASES[case])}
