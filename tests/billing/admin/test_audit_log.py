"""The audit log's page and file."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from billing.admin import audit_log
from llm.models import Account, AuditEntry
from llm.trail.actor import Actor, acting
from tests.pages import form_on, text_of

pytestmark = pytest.mark.django_db
URL = "/admin/llm/auditentry/"


@pytest.fixture
def auditor() -> Client:
    user = User.objects.create_user("audrey", is_staff=True)
    user.groups.add(Group.objects.get(name="Auditors"))
    client = Client()
    client.force_login(user)
    return client


def test_it_says_who_changed_what_from_what_to_what(auditor: Client) -> None:
    with acting(Actor(1, "ada", "admin", "192.0.2.1")):
        account = Account.objects.create(name="Acme")
        Account.objects.filter(pk=account.pk).update(shows_cost=True, alert_email="a@example.com")

    page = text_of(auditor.get(URL))

    assert "ada" in page
    assert "192.0.2.1" in page
    assert "Account Acme" in page
    assert "Show cost to callers: no → yes" in page
    assert "→ a@example.com" in page


def test_an_entry_has_a_page_of_its_own(auditor: Client) -> None:
    Account.objects.create(name="Acme", alert_email="a@example.com")
    entry = AuditEntry.objects.get(table_name="llm_account")

    assert "Alert email: a@example.com" in text_of(auditor.get(f"{URL}{entry.pk}/change/"))


def test_it_is_for_those_who_may_see_it() -> None:
    client = Client()
    client.force_login(User.objects.create_user("kim", is_staff=True))

    assert [client.get(url).status_code for url in (URL, f"{URL}csv/")] == [403, 403]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?table=llm_account", ["Acme"]),
        ("?action__exact=deleted", ["Some"]),
        ("?days=1&q=ada", ["Acme"]),
        ("?days=soon", []),
        ("?q=nothing", []),
    ],
)
def test_it_is_filtered_and_so_is_its_file(auditor: Client, query: str, names: list[str]) -> None:
    with acting(Actor(1, "ada")):
        Account.objects.create(name="Acme")
    Group.objects.create(name="Some").delete()

    assert auditor.get(URL + query).status_code == 200
    found = rows_of(auditor.get(f"{URL}csv/{query}"))

    assert [row["object"].split(" ", 1)[1] for row in found] == names


def rows_of(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200
    assert "attachment" in response["Content-Disposition"]
    return list(csv.DictReader(StringIO(response.content.decode())))


def test_no_cell_of_the_file_is_a_formula(auditor: Client) -> None:
    with acting(Actor(1, "=cmd()")):
        Account.objects.create(name="Acme")

    [row] = rows_of(auditor.get(f"{URL}csv/?table=llm_account"))

    assert row["user"] == "'=cmd()"


def test_a_file_that_would_be_too_long_is_refused(auditor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MAX_EXPORTED", 1)
    for name in ("Acme", "Other"):
        Account.objects.create(name=name)

    response = auditor.get(f"{URL}csv/?table=llm_account", follow=True)

    assert "More than 1 entries match" in text_of(response)


def test_the_page_costs_the_same_for_many_entries(auditor: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(40):
        Account.objects.create(name=f"Account {number}")

    with django_assert_max_num_queries(10):
        auditor.get(URL)


@pytest.mark.parametrize("url", [URL, f"{URL}csv/"])
@pytest.mark.parametrize(
    "query", ["?q=%00", "?table=x", "?row_id=abc", "?user_id=x", "?user_id=1", "?digest=1", "?p=99"]
)
def test_odd_addresses_are_no_failures(auditor: Client, url: str, query: str) -> None:
    assert auditor.get(url + query).status_code in {200, 302, 400}


def test_a_stale_save_is_told_from_what_to_what(admin_client: Client) -> None:
    account = Account.objects.create(name="Acme")
    url = f"/admin/llm/account/{account.pk}/change/"
    form = form_on(admin_client, url)
    with acting(Actor(None, "", "manage.py shell")):
        Account.objects.filter(pk=account.pk).update(name="Theirs")

    answer = text_of(admin_client.post(url, {**form, "alert_email": "me@example.com"}))

    assert "manage.py shell changed “Name” after you opened this page." in answer
    assert "Since then: Name: Acme → Theirs." in answer


def test_a_stale_save_is_told_which_group_was_added(admin_client: Client) -> None:
    user = User.objects.create_user("kim", is_staff=True)
    url = f"/admin/auth/user/{user.pk}/change/"
    form = form_on(admin_client, url)
    user.groups.add(Group.objects.get(name="Auditors"))

    answer = text_of(admin_client.post(url, {**form, "first_name": "Kim"}))

    assert "Group: Auditors" in answer
