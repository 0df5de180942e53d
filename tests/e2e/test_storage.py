"""Whether providers may store what an account's callers send: a setting of the account."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm.models import Account
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of
from tests.e2e.test_unpriced import make_route
from tests.fakes import FakeUpstream

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

RESPONSES = "/v1/responses"


@pytest.fixture
def unstored(account: Account) -> None:
    account.allows_storage = False
    account.save()


def respond(application: Application, *, path: str = RESPONSES, **fields: Any) -> Any:
    return application.send("POST", path, body=orjson.dumps({"model": "gpt-4o", "input": "hello there", **fields}))


@pytest.mark.parametrize("fields", [{}, {"store": True}, {"store": None}, {"store": False}])
def test_by_default_what_is_said_goes_up_as_it_is(
    application: Application, upstream: FakeUpstream, fields: dict[str, Any]
) -> None:
    assert respond(application, **fields).status_code == 200
    assert upstream.ledger.entries()[0].body == {"model": "gpt-4o", "input": "hello there", **fields}


@pytest.mark.parametrize("fields", [{}, {"store": None}, {"store": False}])
@pytest.mark.parametrize("is_stream", [False, True])
def test_where_it_is_forbidden_responses_are_not_stored(
    application: Application, upstream: FakeUpstream, unstored: None, fields: dict[str, Any], is_stream: bool
) -> None:
    made = respond(application, stream=is_stream, **fields)
    assert made.status_code == 200
    [entry] = upstream.ledger.entries()
    assert entry.body == {"model": "gpt-4o", "input": "hello there", "stream": is_stream, "store": False}
    assert application.send("GET", f"{RESPONSES}/{closed_usage()[0].upstream_response_id}").status_code == 404


@pytest.mark.parametrize("value", [True, 1, 0, "false", {}])
def test_where_it_is_forbidden_whoever_asks_for_it_is_told(
    application: Application, upstream: FakeUpstream, unstored: None, value: Any
) -> None:
    make_route("translated", ("anthropic", "claude-test"))
    refusals = [
        respond(application, store=value),
        respond(application, model="translated", store=value),
        application.chat(store=value),
    ]
    for refused in refusals:
        assert (refused.status_code, error_of(refused)["param"]) == (400, "store")
        assert "does not allow providers to store" in error_of(refused)["message"]
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("path", [f"{RESPONSES}/input_tokens", f"{RESPONSES}/compact"])
def test_what_is_not_stored_anyway_is_sent_as_it_is(
    application: Application, upstream: FakeUpstream, unstored: None, path: str
) -> None:
    assert respond(application, path=path).status_code == 200
    assert application.chat().status_code == 200
    assert ["store" in entry.body for entry in upstream.ledger.entries()] == [False, False]


def test_what_was_stored_before_can_be_gone_on_from_and_deleted(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    made = respond(application).json()["id"]
    account.allows_storage = False
    account.save()
    assert respond(application, previous_response_id=made).status_code == 200
    assert application.send("DELETE", f"{RESPONSES}/{made}").status_code == 200
