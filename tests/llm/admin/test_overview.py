from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llm.admin.format import NOTHING, milliseconds, short_count, short_usd
from llm.admin.overview import overview_for
from llm.admin.secrets import reduce_secrets
from llmproject.providers import InstanceSettings
from tests.llm.admin.factories import make_account, make_key, on, open_row, save, usage_row


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.mark.django_db
def test_the_index_shows_the_day(admin_client: Client, admin_user: User) -> None:
    now = timezone.now()
    today = now.date()
    key = make_key(make_account(), expires_at=now + timedelta(days=2))
    save(
        usage_row(key, opened_at=on(today), cost=Decimal("1.25")),
        usage_row(key, opened_at=on(today), cost=None),
        usage_row(
            key,
            opened_at=on(today),
            status="void",
            outcome="timeout",
            cost=None,
            prompt_tokens=0,
            completion_tokens=0,
        ),
        open_row(key, opened_at=on(today)),
        usage_row(key, opened_at=on(today - timedelta(days=13)), cost=Decimal(7)),
    )

    overview = overview_for(admin_user)

    assert overview.usage is not None
    assert overview.usage.today.total.calls == 4
    assert overview.usage.today.total.cost == Decimal("1.25")
    assert overview.usage.failed_percent == "25.0"
    assert (overview.usage.open_calls, len(overview.usage.recent), len(overview.usage.days)) == (1, 5, 14)
    assert overview.usage.days[0].cost == Decimal(7)
    assert overview.expiring_keys == (key,)
    page = admin_client.get("/admin/").content.decode()
    for text in ("$1.25", "<strong>25.0 %</strong> failed", "<strong>1</strong> unpriced", "Acme, production"):
        assert text in page


@pytest.mark.django_db
def test_the_month_begins_on_the_first(monkeypatch: pytest.MonkeyPatch, admin_user: User) -> None:
    monkeypatch.setattr("llm.admin.overview.timezone.now", lambda: datetime(2026, 11, 3, 12, tzinfo=UTC))
    key = make_key(make_account())
    days = (on(datetime(2026, 10, 31, tzinfo=UTC).date()), on(datetime(2026, 11, 1, tzinfo=UTC).date()))
    save(*(usage_row(key, opened_at=day, cost=Decimal(1)) for day in days))

    overview = overview_for(admin_user)

    assert overview.usage is not None
    assert overview.usage.month_cost == Decimal(1)
    assert sum(figures.calls for figures in overview.usage.days) == 2


@pytest.mark.django_db
def test_the_index_takes_few_queries_and_never_reads_all_usage(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else a machine that is busy reads its days in more pieces.
    monkeypatch.setattr("llm.admin.usage_summaries.READ_SECONDS", 3600)
    keys = [make_key(make_account(f"account {number}")) for number in range(10)]
    save(*(usage_row(key, opened_at=timezone.now()) for key in keys for _ in range(5)))

    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get("/admin/").status_code == 200

    assert len(queries) <= 43
    usage = [entry["sql"] for entry in queries if 'FROM "llm_usage"' in entry["sql"]]
    assert usage
    assert all("local_day" in sql.partition("WHERE")[2] or "LIMIT" in sql for sql in usage)


@pytest.mark.django_db
def test_people_see_on_the_index_what_they_may(client: Client) -> None:
    key = make_key(make_account("Secret Customer"), expires_at=timezone.now() + timedelta(days=1))
    save(usage_row(key, opened_at=timezone.now()))
    user = User.objects.create_user("helper", is_staff=True)
    client.force_login(user)
    assert "Secret Customer" not in client.get("/admin/").content.decode()

    user.user_permissions.add(Permission.objects.get(codename="view_usage"))
    page = client.get("/admin/").content.decode()
    assert "Calls today" in page
    assert f"/admin/llm/apikey/{key.pk}/change/" not in page


@pytest.mark.django_db
def test_the_first_visit_says_what_to_do(admin_client: Client) -> None:
    page = admin_client.get("/admin/").content.decode()

    assert "No calls yet." in page
    assert "No calls today yet." in page


@pytest.mark.django_db
@pytest.mark.parametrize("setting", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LLM_COMPATIBLE_API_KEY", "LLM_KEY_PEPPER"])
def test_credentials_are_on_no_page(admin_client: Client, settings: Any, setting: str) -> None:
    setattr(settings, setting, "sk-very-secret-credential")
    settings.LLM_PROVIDER = "openai"

    for path in ("", "llm/modelroute/add/", "llm/price/add/", "llm/apikey/add/", "llm/usage/"):
        assert "sk-very-secret-credential" not in admin_client.get(f"/admin/{path}").content.decode()


@pytest.mark.django_db
def test_the_index_names_the_instances(admin_client: Client, settings: Any) -> None:
    key = "sk-very-secret-credential"
    settings.LLM_PROVIDERS = (
        InstanceSettings("main", "openai", api_keys=(key,), weights=(1,)),
        InstanceSettings("mock", "echo"),
    )
    settings.LLM_PROVIDER = "mock"
    page = admin_client.get("/admin/").content.decode()
    assert "<strong>main</strong>" in page
    assert "It only echoes requests" in page
    assert key not in page


@pytest.mark.django_db
def test_pages_carry_no_inline_script_or_style(admin_client: Client) -> None:
    key = make_key(make_account())
    (call,) = save(usage_row(key, opened_at=timezone.now()))
    paths = ("", "llm/usage/", f"llm/usage/{call.pk}/change/", "llm/price/unpriced/", f"llm/apikey/{key.pk}/rotate/")

    for path in paths:
        response = admin_client.get(f"/admin/{path}")
        text = response.content.decode()
        assert "default-src 'self'" in response["Content-Security-Policy"]
        assert "<style" not in text
        assert " style=" not in text
        assert " on" + "click=" not in text
        assert "<script>" not in text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10.0k"), (15_049, "15.0k"), (999_999, "999k"), (1_000_000, "1.00M")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert short_count(number) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"),
        ("0.000000000001", "0.000000000001"),
        ("0.00000274999", "0.00000274999"),
        ("0.0457624123", "0.0457624"),
        ("2.5", "2.50"),
        ("1234.56789", "1,234.57"),
        ("12.345678", "12.3457"),
        ("1234567.891", "1,234,567.89"),
    ],
)
def test_amounts_keep_six_significant_digits(amount: str, text: str) -> None:
    assert short_usd(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, NOTHING), (87, "87 ms"), (1_240, "1.24 s"), (185_000, "3 min 05 s")]
)
def test_durations(value: int | None, text: str) -> None:
    assert milliseconds(value) == text


def test_a_key_in_a_text_is_reduced() -> None:
    assert reduce_secrets(f"see llm_{'a' * 34}WXYZ now") == "see llm_aaaaaaaa…WXYZ now"
    assert reduce_secrets("llm_abcdefgh…WXYZ") == "llm_abcdefgh…WXYZ"
