"""No page of the admin complains in the console, breaks the content policy, or keeps anyone out.

A sample of the pages is opened in the suite; `make pages` opens all of them, for every role, light and dark, wide and
narrow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from playwright.sync_api import Browser, Page
from pytest_django.live_server_helper import LiveServer

from billing.management.commands import demo_data
from billing.management.demo.cast import CUSTOMERS
from llm.models import Account, ApiKey, Outbox, Usage
from tests.browser.admin_pages import all_pages
from tests.browser.conftest import PASSWORD
from tests.browser.signing_in import fill_sign_in
from tests.llm.admin.factories import make_limit, make_message

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
SERIOUS = ("serious", "critical")
RUN_AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations.map(
    (found) => [found.impact, found.id, found.nodes.length, found.nodes[0].html.slice(0, 200)])"""
# Django's own pages for users and groups have widgets that we don't draw.
NOT_OURS = ("/admin/auth/",)
ROLES = ("Key managers", "Billing preparers", "Billing approvers", "Auditors")
IS_EVERYTHING = os.environ.get("LLM_TEST_ALL_PAGES") == "yes"
FEW = tuple(
    replace(customer, joined=1, calls_a_day=1)
    for customer in CUSTOMERS
    if customer.name in ("Northwind Logistics", "مختبر النور")
)


@dataclass(frozen=True, slots=True)
class View:
    width: int
    scheme: Any


VIEWS = [View(1440, "light"), View(1440, "dark"), View(390, "light"), View(390, "dark")]


@pytest.fixture
def _demo(monkeypatch: pytest.MonkeyPatch, live_server: LiveServer) -> None:
    monkeypatch.setattr(demo_data, "CUSTOMERS", FEW)
    call_command("demo_data")
    make_message(Account.objects.earliest("pk"), payload=_threshold())
    root = User.objects.create_superuser("root", password=PASSWORD)
    for name in ROLES:
        user = User.objects.create_user(name.replace(" ", "-"), password=PASSWORD, is_staff=True)
        user.groups.add(Group.objects.get(name=name))
    assert root.is_superuser


def _threshold() -> dict[str, Any]:
    limit = make_limit(Account.objects.earliest("pk"))
    return {
        "limit_id": limit.pk,
        "api_key_id": None,
        "metric": "tokens",
        "per": "month",
        "amount": 1000,
        "used": 900,
        "percent": 80,
        "window_starts_at": "2026-11-01T00:00:00+00:00",
    }


@pytest.fixture
def open_as(browser: Browser, live_server: LiveServer, complaints: list[str]) -> Iterator[Callable[[str, View], Page]]:
    contexts = []

    def open_as(name: str, view: View) -> Page:
        context = browser.new_context(
            base_url=live_server.url, viewport={"width": view.width, "height": 900}, color_scheme=view.scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: _listen(message, complaints))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/admin/login/")
        fill_sign_in(page, name, PASSWORD)
        return page

    yield open_as
    for context in contexts:
        context.close()


def _listen(message: Any, complaints: list[str]) -> None:
    # Pages that a role may not open are refused, which the browser reports.
    if message.type in ("error", "warning") and "403 (Forbidden)" not in message.text:
        complaints.append(f"{message.text} ({message.location.get('url')})")


def findings_on(page: Page, address: str, complaints: list[str], *, checks_access: bool) -> list[str]:
    """What is wrong there, in a line each."""
    response = page.goto(address)
    assert response is not None
    if response.status not in (200, 403):
        return [f"{address}: {response.status}"]
    page.wait_for_load_state("networkidle")
    found = []
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if width > 0:
        found.append(f"{address}: {width} px wider than the screen")
    if checks_access and not address.startswith(NOT_OURS):
        before = len(complaints)
        page.evaluate(AXE)
        violations = page.evaluate(RUN_AXE)
        # Axe sets styles itself.
        del complaints[before:]
        found += [f"{address}: {each}" for each in violations if each[0] in SERIOUS]
    return found


def sample() -> list[str]:
    """One page of each kind."""
    account, key = Account.objects.earliest("pk"), ApiKey.objects.earliest("pk")
    return [
        "/admin/",
        "/admin/search/?q=north",
        "/admin/llm/apikey/",
        f"/admin/llm/apikey/{key.pk}/change/",
        f"/admin/llm/account/{account.pk}/change/",
        f"/admin/llm/usage/{Usage.objects.latest('pk').pk}/change/",
        "/admin/llm/limit/add/",
        f"/admin/llm/outbox/{Outbox.objects.latest('pk').pk}/change/",
        "/admin/billing/invoice/",
    ]


@pytest.mark.usefixtures("_demo")
def test_pages_are_free_of_errors_and_open_to_everyone(
    open_as: Callable[[str, View], Page], complaints: list[str]
) -> None:
    found = []
    addresses = sample()
    for view, some in ((View(1440, "light"), addresses), (View(390, "dark"), addresses[::2])):
        page = open_as("root", view)
        for address in some:
            found += findings_on(page, address, complaints, checks_access=True)
    assert "\n".join(found) == ""
    assert complaints == []


@pytest.mark.skipif(not IS_EVERYTHING, reason="takes half an hour: make pages")
@pytest.mark.usefixtures("_demo")
def test_every_page_for_every_role(open_as: Callable[[str, View], Page], complaints: list[str]) -> None:
    pages = all_pages()
    assert len(pages) > 90
    found = []
    for name in ("root", *(role.replace(" ", "-") for role in ROLES)):
        for view in VIEWS if name == "root" else VIEWS[:1]:
            page = open_as(name, view)
            for address in pages:
                seen = findings_on(page, address, complaints, checks_access=name == "root")
                found += [f"{name} {view.width} {view.scheme} {each}" for each in seen]
    assert "\n".join(found) == ""
    assert complaints == []
