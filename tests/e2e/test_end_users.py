"""Who used it: what applications say of their end users and projects, in the books and beside them."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import orjson
import pytest
from django.core.management import call_command

from llm.endusers import forget_all, forget_name, hash_end_user
from llm.enums import LimitMetric, LimitPer
from llm.keys import create_key, get_or_create_account
from llm.limits.changes import set_limit
from llm.models import Account, EndUser, EndUserKey, LimitWindow, Usage
from tests.books import closed_usage
from tests.e2e.callers import Application, assert_nothing_happened, error_of
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e

HELLO: Any = [{"role": "user", "content": "hello there"}]
PATIENCE_S = 5.0


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def names(account: Account, *, count: int = 1) -> dict[str, str]:
    """By hash; they are written behind the calls."""
    wait_until(lambda: EndUser.objects.filter(account=account).count() == count)
    return dict(EndUser.objects.filter(account=account).values_list("end_user", "name"))


def test_openais_sdk_says_who_used_it(sdk: openai.OpenAI, account: Account, upstream: FakeUpstream) -> None:
    sdk.chat.completions.create(model="gpt-4o", messages=HELLO, user="u1", metadata={"project": "x"})
    sdk.chat.completions.create(model="gpt-4o", messages=HELLO, user="u2", safety_identifier="u1")
    sdk.responses.create(model="gpt-4o", input="hello", safety_identifier="u1", metadata={"project": "y"})
    sdk.embeddings.create(model="text-embedding-3-small", input="hello", user="u1")
    sdk.completions.create(model="gpt-3.5-turbo-instruct", prompt="hello", user="u1")
    rows = closed_usage(5)
    [key] = EndUserKey.objects.all()
    assert {row.end_user for row in rows} == {hash_end_user("u1", bytes(key.key))}
    assert [row.tags for row in rows] == [{"project": "x"}, {}, {"project": "y"}, {}, {}]
    assert all(row.is_as_written for row in rows)
    assert names(account) == {rows[0].end_user: "u1"}
    # What the caller says to the provider still reaches it.
    assert upstream.ledger.entries()[0].body["user"] == "u1"


def test_openais_sdk_tags_by_header(sdk: openai.OpenAI, upstream: FakeUpstream) -> None:
    sdk.chat.completions.create(
        model="gpt-4o",
        messages=HELLO,
        metadata={"team": "sales", "project": "x"},
        extra_headers={"x-llm-tags": "team=search"},
    )
    [row] = closed_usage()
    assert row.tags == {"team": "search", "project": "x"}
    [entry] = upstream.ledger.entries()
    assert "x-llm-tags" not in entry.headers
    assert entry.body["metadata"] == {"team": "sales", "project": "x"}


def test_anthropics_sdk_says_who_used_it(claude: anthropic.Anthropic, account: Account, upstream: FakeUpstream) -> None:
    claude.messages.create(
        model="claude-test",
        max_tokens=100,
        messages=HELLO,
        metadata={"user_id": "u1"},
        extra_headers={"x-llm-tags": "team=search"},
    )
    [row] = closed_usage()
    assert names(account) == {row.end_user: "u1"}
    assert row.tags == {"team": "search"}
    [entry] = upstream.ledger.entries()
    assert "x-llm-tags" not in entry.headers


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages", "/api/chat"]
)
def test_a_malformed_header_is_refused_before_anything_is_sent(
    application: Application, upstream: FakeUpstream, path: str
) -> None:
    reply = application.send("POST", path, body=b"{}", headers={"x-llm-tags": "team"})
    assert reply.status_code == 400
    assert "team=search,project=x" in reply.json()["error"]["message"]
    if path == "/v1/chat/completions":
        assert error_of(reply)["param"] == "x-llm-tags"
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("value", [7, "", "u" * 300, ["u1"], {"id": "u1"}, "\x00"])
def test_what_names_nobody_is_passed_on(application: Application, upstream: FakeUpstream, value: Any) -> None:
    reply = application.chat(user=value, metadata={"k": value})
    assert reply.status_code == 200
    [row] = closed_usage()
    assert (row.end_user, row.tags) == ("", {})
    assert upstream.ledger.entries()[0].body["user"] == value
    assert not EndUserKey.objects.exists()


def test_a_name_has_another_hash_in_each_account(application: Application, account: Account) -> None:
    other = get_or_create_account("other")
    theirs = application.using(create_key(other, name="tests")[1])
    assert [each.chat(user="u1").status_code for each in (application, theirs)] == [200, 200]
    [mine, their] = closed_usage(2)
    assert mine.end_user != their.end_user
    assert (names(account), names(other)) == ({mine.end_user: "u1"}, {their.end_user: "u1"})


def test_an_account_that_does_not_record_end_users_has_none(application: Application, account: Account) -> None:
    account.records_end_users = False
    account.save()
    assert application.chat(user="u1", metadata={"team": "search"}).status_code == 200
    [row] = closed_usage()
    assert (row.end_user, row.tags) == ("", {"team": "search"})
    assert not EndUser.objects.exists()
    assert not EndUserKey.objects.exists()


def test_a_limit_for_each_end_user_is_theirs_alone(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    set_limit(account, None, LimitMetric.REQUESTS, LimitPer.DAY, 1, None, is_per_end_user=True)
    first = application.chat(user="anne")
    assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    refused = application.chat(safety_identifier="anne")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert "this end user's limit of 1 request per day" in refused.json()["error"]["message"]
    of_ben = application.send(
        "POST",
        "/v1/messages",
        body=orjson.dumps(
            {
                "model": "gpt-4o",
                "max_tokens": 5,
                "messages": [{"role": "user", "content": "x"}],
                "metadata": {"user_id": "ben"},
            }
        ),
    )
    assert of_ben.status_code == 200
    assert [application.chat().status_code for _ in range(2)] == [200, 429]
    assert len(upstream.ledger.entries()) == len(closed_usage(3)) == 3
    call_command("verify_books", stdout=io.StringIO())


def test_of_many_at_once_each_end_user_gets_what_is_theirs(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    set_limit(account, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 3, None, is_per_end_user=True)
    users = ["anne", "ben", "cleo", "dora"] * 6
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda user: (user, application.chat(user=user).status_code), users))
    assert Counter(statuses) == {(user, status): 3 for user in set(users) for status in (200, 429)}
    assert len(upstream.ledger.entries()) == len(closed_usage(12)) == 12
    assert sorted(LimitWindow.objects.values_list("used", "held")) == [(3, 0)] * 4


def test_a_forgotten_end_user_is_a_hash(application: Application, account: Account) -> None:
    assert application.chat(user="u1").status_code == 200
    names(account)
    assert forget_name(account, "u1") == (1, 0)
    assert application.chat(user="u1").status_code == 200
    assert application.chat(user="u2").status_code == 200
    first, second, third = closed_usage(3)
    assert first.end_user == second.end_user
    # Names are written in the order of calls, so u1's would be there.
    assert names(account) == {third.end_user: "u2"}


def test_after_all_were_forgotten_no_name_comes_back_for_an_old_hash(
    application: Application, account: Account
) -> None:
    assert application.chat(user="u1").status_code == 200
    names(account)
    assert forget_all(account) == (1, 0)
    # The process still has the key.
    assert application.chat(user="u2").status_code == 200
    old, cached = closed_usage(2)
    assert not EndUser.objects.exists()
    time.sleep(0.2)
    assert not EndUser.objects.exists()
    # Another key of the account, with which the process reads the account anew.
    again = application.using(create_key(account, name="tests")[1])
    assert again.chat(user="u1").status_code == 200
    new = closed_usage(3)[-1]
    assert new.end_user not in (old.end_user, cached.end_user)
    assert names(account) == {new.end_user: "u1"}


def test_many_calls_at_once_share_one_key(application: Application, account: Account, cancelling: Gateway) -> None:
    """Also as the first ones of their account, in two processes."""
    bodies = [
        orjson.dumps({"model": "gpt-4o", "messages": HELLO, "user": f"u{number // 2 % 4}"}) for number in range(16)
    ]
    connections = [each.connect() for _ in range(8) for each in (application, application.at(cancelling))]
    for connection, body in zip(connections, bodies, strict=True):
        connection.sendall(application.request_bytes(body))
    for connection in connections:
        with connection:
            assert b" 200 OK" in connection.recv(65_536)
    closed_usage(16)
    [key] = EndUserKey.objects.all()
    expected = {hash_end_user(f"u{number}", bytes(key.key)): f"u{number}" for number in range(4)}
    assert set(Usage.objects.values_list("end_user", flat=True)) == set(expected)
    assert names(account, count=4) == expected
