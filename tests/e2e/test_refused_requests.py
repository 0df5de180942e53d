"""What becomes of a refusal: a count beside the books, with whose it was and why."""

from __future__ import annotations

import time

import pytest

from llm.enums import LimitMetric, LimitPer
from llm.keys import create_key, revoke_key
from llm.limits.changes import set_limit
from llm.models import Account, RefusedRequests, Usage
from tests.books import closed_usage
from tests.e2e.callers import CHAT, Application

pytestmark = pytest.mark.e2e

PATIENCE_S = 20.0


def refused(account_id: int, *, requests: int) -> list[RefusedRequests]:
    """They are written some seconds later."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = list(RefusedRequests.objects.filter(account_id=account_id).order_by("code"))
        if sum(row.requests for row in found) >= requests:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_refusal_is_counted_with_its_key_its_model_its_reason_and_its_limit(
    application: Application, account: Account
) -> None:
    limit, _ = set_limit(account, None, LimitMetric.REQUESTS, LimitPer.DAY, 1, None)
    revoked, secret = create_key(account, name="leaked")
    revoke_key(revoked)
    application.chat()
    closed_usage()
    last = [application.chat() for _ in range(3)][-1]
    application.send("POST", CHAT, body=b"[]")
    application.using(secret).chat()
    rows = refused(account.pk, requests=5)
    key_id = Usage.objects.get().api_key_id
    assert [
        (row.api_key_id, row.model, row.code, row.limit_id) for row in rows if row.code != "insufficient_quota"
    ] == [
        (revoked.pk, "", "invalid_api_key", 0),
        (key_id, "", "invalid_request", 0),
    ]
    of_limit = [row for row in rows if row.limit_id == limit.pk]
    assert sum(row.requests for row in of_limit) == 3
    newest = of_limit[-1]
    assert (newest.api_key_id, newest.model, newest.code) == (key_id, "gpt-4o", "insufficient_quota")
    assert newest.last_message == last.json()["error"]["message"]
    assert newest.last_request_id == last.headers["x-request-id"]


def test_no_count_holds_what_was_sent(application: Application, account: Account) -> None:
    application.send("POST", CHAT, body=b'{"model": "gpt-4o", "messages": "the secret plan"}')
    application.send("POST", CHAT, body=b'{"model": "gpt-4o", "messages": [{"role": 1, "content": "the secret plan"}]}')
    rows = refused(account.pk, requests=1)
    assert {row.code for row in rows} == {"invalid_request"}
    assert "secret plan" not in " ".join(row.last_message for row in rows)
