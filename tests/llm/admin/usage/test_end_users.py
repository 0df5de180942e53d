"""Calls of one end user, or with a tag, on the staff's pages."""

from __future__ import annotations

import pytest
from django.test import Client

from llm.endusers import forget_name, hash_end_user
from llm.models import Account, EndUser, EndUserKey, Usage
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

LIST = "/admin/llm/usage/"
KEY = bytes(range(32))
ALICE = "<alice>"


@pytest.fixture
def acme() -> Account:
    account = make_account()
    EndUserKey.objects.create(account=account, key=KEY)
    return account


@pytest.fixture
def call(acme: Account) -> Usage:
    """Alice's, beside another one."""
    EndUser.objects.create(account=acme, end_user=hash_end_user(ALICE, KEY), name=ALICE)
    key = make_key(acme)
    save(usage_row(key, end_user=hash_end_user("bob", KEY), tags={"team": "sales"}))
    return save(usage_row(key, end_user=hash_end_user(ALICE, KEY), tags={"team": "<search>"}))[0]


def test_calls_are_narrowed_to_an_end_user_or_a_tag(admin_client: Client, call: Usage) -> None:
    for query in (
        {"account": "Acme", "end_user": ALICE},
        {"end_user": call.end_user},
        {"end_user": call.end_user, "account": "Acme", "model": "gpt-test"},
        {"tag": "team:<search>"},
        {"account": "Acme", "tag": "team:<search>"},
        {"account": "Acme", "end_user": ALICE, "tag": "team:<search>"},
    ):
        assert list(admin_client.get(LIST, query).context["cl"].result_list) == [call], query
    nothing = {"account": "Acme", "end_user": ALICE, "tag": "team:sales"}
    assert list(admin_client.get(LIST, nothing).context["cl"].result_list) == []


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ({"end_user": ALICE}, "end_user", "Choose the account too, or enter a hash."),
        ({"end_user": ALICE, "account": "Other"}, "end_user", "The account has no end users."),
        ({"tag": "team"}, "tag", "A key and a value, such as team:search."),
    ],
)
def test_a_wrong_filter_says_why(
    admin_client: Client, call: Usage, query: dict[str, str], field: str, message: str
) -> None:
    make_account("Other")
    changelist = admin_client.get(LIST, query).context["cl"]
    assert changelist.filter_form.errors == {field: [message]}
    assert list(changelist.result_list) == []


def test_a_call_shows_who_used_it(admin_client: Client, acme: Account, call: Usage) -> None:
    page = admin_client.get(f"{LIST}{call.pk}/change/").content.decode()
    assert "&lt;alice&gt;" in page
    assert f"?end_user={call.end_user}" in page
    assert "team: &lt;search&gt;" in page
    forget_name(acme, ALICE)
    page = admin_client.get(f"{LIST}{call.pk}/change/").content.decode()
    assert "alice" not in page
    assert call.end_user in page
