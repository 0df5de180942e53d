from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from llm.limits.changes import archive_limit
from llm.models import Account
from llm.secretstore import seal, unseal
from tests.llm.admin.factories import make_account, make_key, make_limit, messages_of, save, staff_with, usage_row
from tests.pages import confirm, seen_on, send

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

    assert "is not a time zone" in response.content.decode()
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

    send(admin_client, url)
    account.refresh_from_db()
    assert account.status == after
    assert LogEntry.objects.get().change_message == f"Status changed from {before} to {after}."


def test_closing_says_that_it_ends_the_billing_month(admin_client: Client) -> None:
    page = admin_client.get(f"{LIST}{make_account().pk}/action/close/").content.decode()
    assert "Their billing month ends: the last invoice can be drafted and submitted at once" in page


def test_several_accounts_are_suspended_after_one_question(admin_client: Client) -> None:
    accounts = [make_account("a"), make_account("b"), make_account("c", status="closed")]
    form: dict[str, Any] = {"action": "suspend", "_selected_action": [account.pk for account in accounts]}

    question = admin_client.post(LIST, form)
    assert "All their keys are refused from the next call" in question.content.decode()
    assert Account.objects.filter(status="suspended").count() == 0

    response = confirm(admin_client, LIST, form)
    assert messages_of(response) == ["2 accounts suspended."]
    assert list(Account.objects.values_list("status", flat=True)) == ["suspended", "suspended", "closed"]


def test_the_status_can_not_be_edited_past_the_question(admin_client: Client) -> None:
    account = make_account()

    send(admin_client, f"{LIST}{account.pk}/change/", change_form(status="closed", time_zone="Europe/Lisbon"))

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


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"alert_email": "nobody"}, "Enter a valid email address."),
        ({"webhook_url": "ftp://example.com/"}, "Enter a valid URL."),
        ({"webhook_url": "javascript:alert(1)"}, "Enter a valid URL."),
        ({"webhook_url": "http://[half"}, "Enter a valid URL."),
        ({"webhook_url": f"https://example.com/{'x' * 200}"}, "at most 200 characters"),
    ],
)
def test_a_wrong_address_is_a_form_error(admin_client: Client, values: dict[str, str], complaint: str) -> None:
    account = make_account()

    response = admin_client.post(f"{LIST}{account.pk}/change/", change_form(**values))

    account.refresh_from_db()
    assert complaint in response.content.decode()
    assert (account.alert_email, account.webhook_url) == ("", "")


def test_end_users_are_recorded_as_long_as_they_are_limited(admin_client: Client) -> None:
    account = make_account()
    limit = make_limit(account, metric="requests", is_per_end_user=True)
    url = f"{LIST}{account.pk}/change/"
    refused = send(admin_client, url, change_form())
    assert "This account has limits for each end user" in refused.content.decode()
    archive_limit(limit)
    send(admin_client, url, change_form())
    account.refresh_from_db()
    assert (account.records_end_users, account.allows_storage) == (False, False)
    send(admin_client, url, change_form(records_end_users="on", allows_storage="on"))
    account.refresh_from_db()
    assert (account.records_end_users, account.allows_storage) == (True, True)


def test_an_account_has_addresses_for_messages(admin_client: Client) -> None:
    account = make_account()
    form = change_form(alert_email="ops@example.com", webhook_url="https://example.com/hook?a=1")

    send(admin_client, f"{LIST}{account.pk}/change/", form)

    account.refresh_from_db()
    assert (account.alert_email, account.webhook_url) == ("ops@example.com", "https://example.com/hook?a=1")


def test_editing_keeps_what_changed_meanwhile(admin_client: Client) -> None:
    account = make_account()
    page = f"{LIST}{account.pk}/change/"
    seen = seen_on(admin_client, page)
    Account.objects.update(status="suspended", webhook_secret="whsec_c2VjcmV0")

    admin_client.post(page, {**seen, **change_form(name="Renamed")})

    account.refresh_from_db()
    assert (account.name, account.status, account.webhook_secret) == ("Renamed", "suspended", "whsec_c2VjcmV0")


@pytest.mark.slow
def test_a_webhook_secret_is_in_the_reply_and_on_no_page_again(admin_client: Client) -> None:
    account = make_account()
    url = f"{LIST}{account.pk}/webhook-secret/"
    form = seen_on(admin_client, url)
    assert Account.objects.get().webhook_secret == ""

    response = admin_client.post(url, form)

    secret = unseal(Account.objects.get().webhook_secret)
    page = admin_client.get(f"{LIST}{account.pk}/change/").content.decode()
    assert secret.startswith("whsec_")
    assert secret in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    assert secret not in page
    assert f"whsec_…{secret[-4:]}" in page
    assert LogEntry.objects.get().change_message == f"Created webhook secret whsec_…{secret[-4:]}."
    assert secret not in " ".join(str(session.get_decoded()) for session in Session.objects.all())


def test_sending_the_form_again_makes_no_second_secret(admin_client: Client) -> None:
    account = make_account()
    url = f"{LIST}{account.pk}/webhook-secret/"
    form = seen_on(admin_client, url)
    admin_client.post(url, form)
    secret = Account.objects.get().webhook_secret

    response = admin_client.post(url, form)

    assert response["Location"] == f"{LIST}{account.pk}/change/"
    assert messages_of(response)[0].startswith("This form was already submitted")
    assert Account.objects.get().webhook_secret == secret


def test_a_stored_webhook_secret_is_replaced_and_never_shown(admin_client: Client) -> None:
    account = make_account(webhook_secret=seal("whsec_b2xkIHNlY3JldA"))
    url = f"{LIST}{account.pk}/webhook-secret/"
    question = admin_client.get(url)

    response = send(admin_client, url)

    assert "whsec_…JldA" in question.content.decode()
    assert "whsec_b2xkIHNlY3JldA" not in question.content.decode() + response.content.decode()
    assert unseal(Account.objects.get().webhook_secret) not in ("", "whsec_b2xkIHNlY3JldA")


def test_a_webhook_secret_takes_the_right_to_change_and_a_token(admin_client: Client) -> None:
    account = make_account()
    url = f"{LIST}{account.pk}/webhook-secret/"

    assert staff_with("view_account").post(url).status_code == 403
    assert admin_client.post(url).status_code == 200
    assert admin_client.get(f"{LIST}999/webhook-secret/").status_code == 404
    assert Account.objects.get().webhook_secret == ""


def test_an_account_lists_its_keys_masked(admin_client: Client) -> None:
    account = make_account()
    key = make_key(account)

    page = admin_client.get(f"{LIST}{account.pk}/change/").content.decode()

    assert key.masked in page
    assert f"/admin/llm/apikey/{key.pk}/change/" in page


@pytest.mark.slow
def test_the_list_takes_as_many_queries_for_50_accounts_as_for_one(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    keys = [make_key(make_account(f"account {number:02}")) for number in range(50)]
    save(*(usage_row(key) for key in keys))

    with django_assert_max_num_queries(5):
        response = admin_client.get(LIST)

    assert [account.usable_keys for account in response.context["cl"].result_list] == [1] * 50
