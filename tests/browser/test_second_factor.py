"""A passkey and an authenticator app, in a real browser with a virtual authenticator."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from llm.models import Account, AuditEntry
from tests.browser.conftest import PASSWORD
from tests.browser.signing_in import fill_sign_in

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]


def shoot(page: Page, name: str) -> None:
    """For looking at the pages: SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_passkey_is_added_and_signs_in(sign_in: Callable[[str], Page], complaints: list[str]) -> None:
    User.objects.create_superuser("ada", password=PASSWORD)
    page = sign_in("ada")
    base = page.url.split("/admin")[0]
    assert "localhost" in base, "a passkey belongs to a name, not to an address"
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "internal", "hasResidentKey": True, "hasUserVerification": True}
    device = {**options, "isUserVerified": True, "automaticPresenceSimulation": True}
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": device})

    page.goto(f"{base}/admin/second-factor/")
    shoot(page, "second-factor")
    page.get_by_role("link", name="Add an app").click()
    shoot(page, "app")
    page.goto(f"{base}/admin/second-factor/passkeys/add/")
    page.get_by_label("Name").fill("My laptop")
    shoot(page, "passkey")
    page.get_by_role("button", name="Add this passkey").click()
    expect(page.get_by_text("Each works once")).to_be_visible()
    shoot(page, "recovery-codes")
    assert Authenticator.objects.filter(type="webauthn").count() == 1

    page.get_by_role("button", name="Log out").click()
    page.goto(f"{base}/admin/")
    fill_sign_in(page, "ada", PASSWORD)
    shoot(page, "authenticate")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("heading", name="Accounts today")).to_be_visible()
    assert complaints == []


def test_the_audit_log_is_readable(sign_in: Callable[[str], Page], complaints: list[str]) -> None:
    User.objects.create_superuser("ada", password=PASSWORD)
    account = Account.objects.create(name="Acme")
    Account.objects.filter(pk=account.pk).update(shows_cost=True, alert_email="billing@example.com")
    page = sign_in("ada")
    page.goto(page.url.split("/admin")[0] + "/admin/llm/auditentry/")
    expect(page.get_by_text("Show cost to callers: no → yes")).to_be_visible()
    shoot(page, "audit-log")
    page.get_by_role("cell").get_by_role("link").first.click()
    page.wait_for_load_state()
    shoot(page, "audit-entry")
    user = User.objects.get()
    page.goto(page.url.split("/admin")[0] + f"/admin/auth/user/{user.pk}/change/")
    shoot(page, "user")
    assert AuditEntry.objects.filter(action="signed_in").exists()
    assert complaints == []
