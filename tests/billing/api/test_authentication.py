"""Who may ask the management API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from billing.models import ExportJob
from llm.keys import revoke_key
from llm.models import ApiKey
from tests.billing.api.asking import API, Asker, customer, make_staff, staff_asker, token_of
from tests.billing.factories import make_account

pytestmark = pytest.mark.django_db

ACCOUNTS = f"{API}accounts/"


def ask(**headers: str) -> Any:
    return Client().get(ACCOUNTS, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_nobody_is_asked_for_a_credential() -> None:
    response = ask()

    assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="management"')
    assert response.json() == {"detail": "Authentication credentials were not provided."}


def test_a_staff_token_is_taken_in_each_of_its_forms() -> None:
    token = token_of(make_staff("view_account"))

    for headers in (
        {"authorization": f"Token {token}"},
        {"authorization": f"token  {token}"},
        {"authorization": f"Bearer {token}"},
        {"authorization": token},
        {"x_api_key": token},
    ):
        assert ask(**headers).status_code == 200, headers


@pytest.mark.parametrize(
    "credential", ["Bearer nonsense", "Token " + "0" * 40, "Bearer " + "F" * 40, "Bearer \x01", "Basic YTpi", "Token"]
)
def test_what_is_no_token_is_refused(credential: str) -> None:
    response = ask(authorization=credential)

    assert (response.status_code, response.json()) == (401, {"detail": "This token is not known. Ask for a new one."})


def test_a_token_works_as_long_as_its_user_is_active() -> None:
    asker = staff_asker("view_account")
    assert asker.get("accounts/").status_code == 200

    User.objects.get().delete()
    assert asker.get("accounts/").status_code == 401

    asker = staff_asker("view_account")
    user = User.objects.get()
    user.is_active = False
    user.save()
    assert asker.get("accounts/").status_code == 401


def test_staff_need_the_permission_and_are_told_which() -> None:
    asker = staff_asker("view_invoice")

    assert asker.get("invoices/").status_code == 200
    for path, permission in (
        ("accounts/", "llm.view_account"),
        ("limits/", "llm.view_limit"),
        ("usage/", "billing.view_dailyusage"),
        ("calls/", "llm.view_usage"),
        ("exports/", "billing.view_exportjob"),
    ):
        assert asker.refusal(path, status=403) == f"This needs the permission {permission}."


def test_who_isn_t_staff_may_nothing_whatever_the_permissions() -> None:
    user = make_staff("view_account")
    token = token_of(user)
    user.is_staff = False
    user.save()

    assert Asker(token).refusal("accounts/", status=403) == "This needs the permission llm.view_account."


def test_the_admins_session_works_too_and_changes_need_its_csrf_token() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_staff("view_account", "run_export", "view_exportjob"))

    assert client.get(ACCOUNTS).status_code == 200
    refused = client.post(f"{API}exports/", {"period": "2026-10"}, content_type="application/json")
    assert (refused.status_code, list(refused.json())) == (403, ["detail"])


@pytest.mark.slow
def test_a_key_sees_its_own_account() -> None:
    _, asker = customer(make_account())
    make_account("Other")

    assert [account["name"] for account in asker.results("accounts/")] == ["Acme"]
    assert Client().get(ACCOUNTS, headers={"x-api-key": asker.secret}).status_code == 200


def test_a_key_that_is_refused_says_why() -> None:
    key, asker = customer(make_account())
    revoked, of_revoked = customer(make_account(), "revoked")
    revoke_key(revoked)
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))

    assert of_revoked.refusal("accounts/", status=401) == "This API key was revoked. Ask for a new one."
    assert asker.refusal("accounts/", status=401) == "This API key has expired. Ask for a new one."
    assert "Check it for a typo" in Asker(f"llm_{'x' * 38}").refusal("accounts/", status=401)


def test_a_suspended_account_is_told_so() -> None:
    _, asker = customer(make_account(status="suspended"))

    assert "This account is not active." in asker.refusal("accounts/", status=403)


def test_two_credentials_are_one_too_many() -> None:
    _, asker = customer(make_account())
    token = token_of(make_staff("view_account"))

    response = ask(authorization=f"Bearer {token}", x_api_key=asker.secret)

    assert (response.status_code, "Two different" in response.json()["detail"]) == (401, True)


def test_customers_start_nothing() -> None:
    _, asker = customer(make_account())

    response = asker.post("exports/", {"period": "2026-10"})

    assert (response.status_code, list(response.json())) == (403, ["detail"])
    assert response.json()["detail"].startswith("API keys have read-only access here.")
    assert not ExportJob.objects.exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
def test_nothing_but_reading_is_served(method: str) -> None:
    _, as_customer = customer(make_account())
    staff = staff_asker("view_account", "view_invoice")

    for asker, statuses in ((as_customer, {403, 405}), (staff, {405})):
        headers = {"authorization": f"Bearer {asker.secret}"}
        for path in ("accounts/", "invoices/", "usage/", "calls/", "limits/", "invoices/1/"):
            response = getattr(Client(), method)(f"{API}{path}", headers=headers)
            allowed = statuses if path in ("accounts/", "invoices/", "invoices/1/") else statuses | {403}
            assert response.status_code in allowed, (path, response.status_code)
            assert list(response.json()) == ["detail"]


def test_other_paths_are_answered_as_json() -> None:
    for path in ("nothing/", "", "invoices/x/", "invoices/-1/", "calls/1/", "exports/1/files/../../etc/passwd/"):
        response = Client().get(f"{API}{path}")
        assert (response.status_code, list(response.json())) == (404, ["detail"]), path


def test_a_forgotten_slash_leads_on() -> None:
    assert Client().get(f"{API}usage")["Location"] == f"{API}usage/"
