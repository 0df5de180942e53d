"""The staff's pages in a real browser: they work, and the content security policy has nothing to complain about."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.utils import timezone
from playwright.sync_api import Page, expect

from llm.admin import usage_summaries
from llm.models import ApiKey, Limit, ModelRoute, RouteTarget, UsageAdjustment
from llm.secretstore import unseal
from tests.browser.conftest import PASSWORD
from tests.llm.admin.factories import (
    lost_row,
    make_account,
    make_key,
    make_limit,
    make_message,
    open_row,
    save,
    usage_row,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("browser")]


@pytest.fixture
def page(sign_in: Callable[[str], Page]) -> Page:
    """Signed in, on the index."""
    User.objects.create_superuser("admin", password=PASSWORD)
    return sign_in("admin")


@pytest.fixture
def key() -> ApiKey:
    key = make_key(make_account())
    now = timezone.now()
    save(*(usage_row(key, opened_at=now) for _ in range(60)), usage_row(key, opened_at=now, cost=None), open_row(key))
    route = ModelRoute.objects.create(name="smart")
    RouteTarget.objects.create(route=route, position=0, provider="echo", upstream_model="echo")
    return key


def test_no_page_violates_the_policy_or_is_wider_than_a_phone(key: ApiKey, page: Page, complaints: list[str]) -> None:
    route, call = ModelRoute.objects.get(), key.usage.order_by("-id")[0]
    (lost,) = save(lost_row(key, opened_at=timezone.now()))
    limit, message = make_limit(key.account, used=950), make_message(key.account, given_up_at=timezone.now())
    paths = (
        "",
        "llm/",
        "llm/account/",
        f"llm/account/{key.account_id}/change/",
        "llm/account/add/",
        "llm/apikey/",
        f"llm/apikey/{key.pk}/change/",
        f"llm/apikey/{key.pk}/rotate/",
        f"llm/apikey/{key.pk}/action/revoke/",
        f"llm/apikey/{key.pk}/history/",
        "llm/apikey/add/",
        "llm/modelroute/",
        f"llm/modelroute/{route.pk}/change/",
        "llm/price/",
        "llm/price/add/",
        "llm/price/unpriced/",
        "llm/usage/",
        f"llm/usage/{call.pk}/change/",
        f"llm/usage/{lost.pk}/change/",
        f"llm/usage/{lost.pk}/decide/",
        "llm/limit/",
        "llm/limit/add/",
        f"llm/limit/{limit.pk}/change/",
        f"llm/limit/{limit.pk}/action/end/",
        f"llm/account/{key.account_id}/webhook-secret/",
        "llm/outbox/",
        f"llm/outbox/{message.pk}/change/",
        "llm/refusedwrite/",
        "llm/bookscheck/",
        "llm/process/",
        "llm/scheduledtask/",
        "auth/user/",
        "auth/user/add/",
        "password_change/",
    )

    page.set_viewport_size({"width": 390, "height": 844})
    for path in paths:
        response = page.goto(f"/admin/{path}")
        assert response is not None
        assert response.status == 200, path
        assert "default-src 'self'" in (response.header_value("content-security-policy") or "")
        assert (page.evaluate("document.documentElement.scrollWidth"), complaints) == (390, []), path


def test_the_button_of_actions_is_not_clipped(key: ApiKey, page: Page) -> None:
    make_limit(key.account)
    page.goto("/admin/llm/limit/")
    search, go = (page.get_by_role("button", name=name).bounding_box() for name in ("Search", "Go"))

    assert search is not None
    assert go is not None
    assert go["height"] == search["height"]


def test_the_index_draws_its_chart_in_both_themes(key: ApiKey, page: Page, complaints: list[str]) -> None:
    page.goto("/admin/")
    drawn = "document.getElementById('day-chart').toDataURL().length"
    assert page.evaluate(drawn) > 3000

    page.get_by_role("button", name=re.compile("Toggle theme")).click()

    assert page.evaluate(drawn) > 3000
    assert complaints == []


def test_a_month_too_large_for_one_visit_is_summed_by_and_by(
    key: ApiKey, page: Page, monkeypatch: pytest.MonkeyPatch, complaints: list[str]
) -> None:
    monkeypatch.setattr(usage_summaries, "READ_SECONDS", 0.0)
    cache.clear()
    page.goto("/admin/")

    expect(page.locator("#gw-month[data-complete=yes]")).to_be_visible(timeout=30_000)

    assert page.locator("#gw-month dd").inner_text().startswith("$")
    assert complaints == []


def test_a_key_is_made_shown_once_and_copied(key: ApiKey, page: Page, complaints: list[str]) -> None:
    page.goto("/admin/llm/apikey/add/")
    page.get_by_label("Name").fill("from the browser")
    page.locator(".select2-selection").click()
    page.get_by_role("option", name="Acme").click()
    page.get_by_role("button", name="Create the key").click()

    secret = page.get_by_label("API key", exact=True).input_value()
    page.locator(".gw-secret").get_by_role("button", name="Copy").click()
    expect(page.locator(".gw-secret").get_by_role("button", name="Copied")).to_be_visible()

    made = ApiKey.objects.get(name="from the browser")
    assert secret.startswith(made.prefix)
    assert page.evaluate("navigator.clipboard.readText()") == secret
    assert complaints == []

    page.reload()
    expect(page.get_by_text("This form was already submitted")).to_be_visible()
    assert secret not in page.content()
    page.go_back()
    assert secret not in page.content()
    assert ApiKey.objects.count() == 2


def test_a_key_is_rotated_and_revoked_with_a_question(key: ApiKey, page: Page) -> None:
    page.goto(f"/admin/llm/apikey/{key.pk}/change/")
    page.get_by_role("link", name="Rotate").click()
    page.get_by_label("1 hour").check()
    page.get_by_role("button", name="Rotate").click()
    expect(page.get_by_text("keeps working until")).to_be_visible()

    page.goto(f"/admin/llm/apikey/{key.pk}/change/")
    page.get_by_role("link", name="Revoke").click()
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("1 API key revoked.")).to_be_visible()

    key.refresh_from_db()
    assert key.is_usable is False


def test_a_pasted_secret_never_leaves_the_browser(key: ApiKey, page: Page) -> None:
    secret = f"llm_{'b' * 38}"
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto("/admin/llm/apikey/")

    page.locator("#searchbar").fill(secret)
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/apikey/?q=*")
    page.goto("/admin/llm/usage/")
    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/usage/?key=*")

    assert not [url for url in requested if secret in url]


def test_usage_pages_and_filters(key: ApiKey, page: Page) -> None:
    page.goto("/admin/llm/usage/")
    expect(page.locator("#result_list tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Older").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(12)

    page.get_by_label("Cost").select_option("unpriced")
    page.get_by_role("button", name="Show").click()

    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    assert page.url.endswith("/admin/llm/usage/?cost=unpriced")


def test_a_limit_is_set_from_the_page_of_its_account_and_ended(key: ApiKey, page: Page, complaints: list[str]) -> None:
    page.goto(f"/admin/llm/account/{key.account_id}/change/")
    page.get_by_role("link", name="Add a limit").click()
    page.get_by_label("Metric").select_option("tokens")
    page.get_by_label("Period").select_option("month")
    page.get_by_label("Amount").fill("1,000,000")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("1,000,000 tokens per month")).to_be_visible()

    limit = Limit.objects.get()
    assert (limit.account_id, limit.amount, limit.api_key) == (key.account_id, 1_000_000, None)

    page.goto(f"/admin/llm/limit/{limit.pk}/change/")
    page.get_by_role("link", name="End", exact=True).click()
    page.get_by_role("button", name="End", exact=True).click()
    expect(page.get_by_text("1 limit ended.")).to_be_visible()
    assert not Limit.objects.in_force().exists()
    assert complaints == []


def test_a_lost_call_is_decided_from_the_index(key: ApiKey, page: Page, complaints: list[str]) -> None:
    save(lost_row(key, opened_at=timezone.now()))
    page.goto("/admin/")
    page.get_by_role("link", name="Decide").click()
    page.locator("#result_list tbody a").first.click()
    page.get_by_role("link", name="Decide").click()
    page.get_by_label("Not billable").check()
    page.get_by_label("Reason:", exact=True).fill("The provider never got it.")
    page.get_by_role("button", name="Decide").click()
    expect(page.get_by_text("Decided: 100 tokens in, 20 out")).to_be_visible()

    decision = UsageAdjustment.objects.get()
    assert (decision.is_billable, decision.reason) == (False, "The provider never got it.")
    assert complaints == []


def test_a_webhook_secret_is_made_and_copied(key: ApiKey, page: Page, complaints: list[str]) -> None:
    page.goto(f"/admin/llm/account/{key.account_id}/change/")
    page.get_by_role("link", name="Create webhook secret").click()
    page.get_by_role("button", name="Create the secret").click()

    secret = page.get_by_label("Webhook secret", exact=True).input_value()
    page.locator(".gw-secret").get_by_role("button", name="Copy").click()
    expect(page.locator(".gw-secret").get_by_role("button", name="Copied")).to_be_visible()

    key.account.refresh_from_db()
    assert secret == unseal(key.account.webhook_secret)
    page.reload()
    expect(page.get_by_text("This form was already submitted")).to_be_visible()
    assert secret not in page.content()
    assert complaints == []
