from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.test import Client

from llm.models import Account
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/account/"


def change_form(**values: str) -> dict[str, str]:
    management = {"keys-TOTAL_FORMS": "0", "keys-INITIAL_FORMS": "0"}
    return {"name": "Acme", "time_zone": "UTC", **management, **values}


def test_an_account_is_made_with_its_zone(admin_client: Client) -> None:
    admin_client.post(f"{LIST}add/", {"name": "Acme", "time_zone": "Asia/Kathmandu"})

    account = Account.objects.get()
    assert (account.name, account.time_zone, account.status) == ("Acme", "Asia/Kathmandu", "active")


def test_an_unknown_zone_is_refused(admin_client: Client) -> None:
    response = admin_client.post(f"{LIST}add/", {"name": "Acme", "time_zone": "Mars/Olympus"})

    assert "is no time zone" in response.content.decode()
    assert not Account.objects.exists()


@pytest.mark.parametrize(
    ("before", "action", "after"),
    [("active", "suspend", "suspended"), ("suspended", "activate", "active"), ("active", "close", "closed")],
)
def test_the_status_changes_by_confirmed_actions(admin_client: Client, before: str, action: str, after: str) -> None:
    account = make_account(status=before)
    url = f"{LIST}{account.pk}/action/{action}/"

    assert admin_client.get(url).status_code == 200
    account.refresh_from_db()
    assert account.status == before

    admin_client.post(url)
    account.refresh_from_db()
    assert account.status == after
    assert LogEntry.objects.get().change_message == f"Status changed from {before} to {after}."


def test_several_accounts_are_suspended_after_one_question(admin_client: Client) -> None:
    accounts = [make_account("a"), make_account("b"), make_account("c", status="closed")]
    form: dict[str, Any] = {"action": "suspend", "_selected_action": [account.pk for account in accounts]}

    question = admin_client.post(LIST, form)
    assert "From the next call on all their keys are refused" in question.content.decode()
    assert Account.objects.filter(status="suspended").count() == 0

    response = admin_client.post(LIST, {**form, "confirmed": "yes"})
    assert [str(message) for message in get_messages(response.wsgi_request)] == ["2 accounts suspended."]
    assert list(Account.objects.values_list("status", flat=True)) == ["suspended", "suspended", "closed"]


def test_the_status_can_not_be_edited_past_the_question(admin_client: Client) -> None:
    account = make_account()

    admin_client.post(f"{LIST}{account.pk}/change/", change_form(status="closed", time_zone="Europe/Lisbon"))

    account.refresh_from_db()
    assert (account.status, account.time_zone) == ("active", "Europe/Lisbon")


def test_an_unknown_action_is_not_found(admin_client: Client) -> None:
    assert admin_client.post(f"{LIST}{make_account().pk}/action/delete/").status_code == 404
    assert admin_client.post(f"{LIST}999/action/close/").status_code == 404


def test_accounts_are_never_deleted(admin_client: Client) -> None:
    account = make_account()

    assert admin_client.post(f"{LIST}{account.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in admin_client.get(LIST).content.decode()


def test_actions_need_the_right_to_change(client: Client) -> None:
    account = make_account()
    client.force_login(User.objects.create_user("helper", is_staff=True))

    assert client.post(f"{LIST}{account.pk}/action/close/").status_code == 403
    account.refresh_from_db()
    assert account.status == "active"


def test_an_account_lists_its_keys_masked(admin_client: Client) -> None:
    account = make_account()
    key = make_key(account)

    page = admin_client.get(f"{LIST}{account.pk}/change/").content.decode()

    assert key.masked in page
    assert f"/admin/llm/apikey/{key.pk}/change/" in page


def test_the_list_takes_as_many_queries_for_50_accounts_as_for_one(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    keys = [make_key(make_account(f"account {number:02}")) for number in range(50)]
    save(*(usage_row(key) for key in keys))

    with django_assert_max_num_queries(5):
        response = admin_client.get(LIST)

    assert [account.usable_keys for account in response.context["cl"].result_list] == [1] * 50
