from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from llm.admin.search import MAX_SHOWN
from llm.keys import create_key
from llm.models import ApiKey, Usage
from tests.billing.factories import make_invoice, make_profile
from tests.llm.admin.factories import make_account, make_key, save, staff_with, usage_row

pytestmark = pytest.mark.django_db

URL = "/admin/search/"
REQUEST = UUID("0192f3a4-0000-7000-8000-000000000001")


def names(client: Client, text: str) -> list[str]:
    return [hit.name for hit in client.get(URL, {"q": text}).context["hits"]]


def target(client: Client, text: str) -> str:
    response = client.get(URL, {"q": text})
    assert response.status_code == 302
    return str(response["Location"])


def make_call(**values: Any) -> Usage:
    return save(usage_row(make_key(make_account()), request_id=REQUEST, **values))[0]


def test_a_pasted_secret_leads_to_its_key_and_is_never_shown(admin_client: Client) -> None:
    key, secret = create_key(make_account(), name="production")

    reduced = admin_client.get(URL, {"q": f" {secret} "})

    assert secret not in reduced["Location"]
    found = admin_client.get(reduced["Location"])
    assert found["Location"] == f"/admin/llm/apikey/{key.pk}/change/"


@pytest.mark.parametrize("form", ["{0}", "{0.hex}", "req_{0.hex}"])
def test_a_call_is_found_by_the_id_of_its_request(admin_client: Client, form: str) -> None:
    call = make_call()
    assert target(admin_client, form.format(REQUEST)) == f"/admin/llm/usage/{call.pk}/change/"


def test_a_call_is_found_by_the_beginning_of_its_id_or_its_reply(admin_client: Client) -> None:
    call = make_call(upstream_response_id="resp_1")
    for text in (str(call.pk), str(call.pk)[:9], "resp_1"):
        assert target(admin_client, text) == f"/admin/llm/usage/{call.pk}/change/"
    assert names(admin_client, str(call.pk)[:7]) == []


def test_an_invoice_is_found_by_its_number(admin_client: Client) -> None:
    invoice = make_invoice(make_profile(), state="issued", number=17)  # type: ignore[arg-type]
    assert target(admin_client, "inv-2026-000017") == f"/admin/billing/invoice/{invoice.pk}/change/"
    assert names(admin_client, "17") == ["INV-2026-000017"]
    assert names(admin_client, "INV-2025-000017") == []


def test_names_are_found_by_a_part(admin_client: Client) -> None:
    account = make_account("Acme Foods")
    make_key(account, "batch jobs")
    assert names(admin_client, "foods") == ["Acme Foods"]
    assert target(admin_client, "acme foods") == f"/admin/llm/account/{account.pk}/change/"
    [key] = names(admin_client, "batch")
    assert key.startswith("batch jobs (llm_")


def test_only_a_few_of_each_are_shown(admin_client: Client) -> None:
    for number in range(MAX_SHOWN + 2):
        make_account(f"Acme {number}")
    response = admin_client.get(URL, {"q": "acme"})
    assert len(response.context["hits"]) == MAX_SHOWN
    assert "Only the first 8 are shown" in response.content.decode()


@pytest.mark.parametrize(
    ("permission", "kinds"),
    [
        ("view_account", {"Accounts"}),
        ("view_apikey", {"API keys"}),
        ("view_usage", {"Models"}),
        ("view_billingprofile", {"Billing profiles"}),
        ("view_limit", set()),
    ],
)
def test_people_find_what_they_may_see(permission: str, kinds: set[str]) -> None:
    account = make_account("test")
    make_profile(account)
    save(usage_row(make_key(account, "test"), model="test"))
    client = staff_with(permission)
    # A single exact hit would be opened.
    make_account("test 2")
    ApiKey.objects.filter(name="test").update(name="test 1")

    response = client.get(URL, {"q": "test" if permission != "view_account" else "tes"})

    assert {hit.kind for hit in response.context["hits"]} == kinds


@pytest.mark.parametrize("text", ["", "%", "\U0001f600", "0" * 300, "()[", "-", "INV-", "…", "ffffffff"])
def test_any_text_is_answered(admin_client: Client, text: str) -> None:
    make_call()
    assert admin_client.get(URL, {"q": text}).status_code == 200


def test_strangers_sign_in_first(client: Client) -> None:
    assert client.get(URL, {"q": "acme"})["Location"].startswith("/admin/login/")


def test_the_menu_goes_by_jobs_and_shows_what_its_reader_may_open(admin_client: Client) -> None:
    groups = {group["name"]: [each["name"] for each in group["models"]] for group in _menu(admin_client)}
    assert list(groups) == [
        "Usage",
        "Accounts & keys",
        "Limits",
        "Models & prices",
        "Invoices",
        "Plans",
        "Audit",
        "System",
    ]
    assert groups["Invoices"] == ["Invoices", "Month jobs", "Export jobs", "Exchange rates"]
    assert "Models without a price" in groups["Models & prices"]

    user = User.objects.create_user("kim", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_price", "view_limit"]))
    kim = Client()
    kim.force_login(user)
    groups = {group["name"]: [each["name"] for each in group["models"]] for group in _menu(kim)}
    assert groups == {"Limits": ["Limits"], "Models & prices": ["Prices"]}


def test_each_entry_of_the_menu_opens(admin_client: Client) -> None:
    urls = [each["admin_url"] for group in _menu(admin_client) for each in group["models"]]
    assert len(urls) == len(set(urls)) > 20
    assert [url for url in urls if admin_client.get(url).status_code != 200] == []


def _menu(client: Client) -> list[dict[str, Any]]:
    menu: list[dict[str, Any]] = client.get("/admin/").context["app_list"]
    return menu
