"""What waits in billing stands on the index page, for those who may see it."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from billing.enums import InvoiceState, JobState, MonthJobKind
from billing.models import ExportJob, MonthJob
from llm.admin.attention import attention_for
from llm.models import Process
from tests.billing.factories import OCTOBER, make_account, make_invoice, make_profile
from tests.billing.people import make_person

pytestmark = pytest.mark.django_db

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)

OF_INVOICES = [
    "1 invoice is overdue",
    "1 approved invoice is not issued yet",
    "2 invoices wait for approval",
    "2 drafts wait to be submitted, 1 for over 7 days",
    "1 invoice can't be issued before calls without a price have one",
]


def make_everything() -> None:
    now = timezone.now()
    for number, state in enumerate((InvoiceState.IN_REVIEW, InvoiceState.IN_REVIEW, InvoiceState.DRAFT)):
        make_invoice(make_profile(make_account(f"Account {number}")), state=state, created_at=now - 8 * DAY)
    for number, (name, days) in enumerate((("Late", 30), ("In time", 31))):
        profile = make_profile(make_account(name), payment_days=days)
        make_invoice(profile, state=InvoiceState.ISSUED, number=number)
    make_invoice(make_profile(make_account("Approved")), state=InvoiceState.APPROVED)
    make_invoice(make_profile(make_account("Blocked")), flags=["first", "unpriced"])
    ExportJob.objects.create(period_start=OCTOBER, state=JobState.FAILED, ended_at=now)
    MonthJob.objects.create(period_start=OCTOBER, kind=MonthJobKind.CLOSE, state=JobState.FAILED, ended_at=now)
    MonthJob.objects.create(period_start=OCTOBER, kind=MonthJobKind.VERIFY, created_at=now - 6 * MINUTE)
    MonthJob.objects.create(period_start=OCTOBER, kind=MonthJobKind.VERIFY, created_at=now - MINUTE)


@pytest.fixture(autouse=True)
def _no_processes(db: None) -> None:
    """Gateways of other tests may be running, and say which targets they skip."""
    Process.objects.all().delete()


@pytest.fixture(autouse=True)
def _on_the_fourth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invoices of the third of November are due then, after 31 days."""
    monkeypatch.setattr("billing.invoices.payments.sellers_date", lambda _: date(2026, 12, 4))


def texts(user: User) -> list[str]:
    return [entry.text for entry in attention_for(user, timezone.now())]


@pytest.mark.slow
def test_all_that_waits_is_said_with_links(admin_user: User, admin_client: Client) -> None:
    make_everything()
    cache.clear()
    page = admin_client.get("/admin/").content.decode()
    assert texts(admin_user) == [
        *OF_INVOICES,
        "1 export failed within the last 7 days",
        "1 month job failed within the last 7 days",
        "1 job waits for a worker: check that Celery is running",
    ]
    for entry in attention_for(admin_user, timezone.now()):
        assert f'href="{entry.url}"' in page
        assert admin_client.get(entry.url).status_code == 200


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("due=overdue", {"Late"}),
        ("due=outstanding", {"Late", "In time"}),
        ("flagged=unpriced", {"Blocked"}),
        ("state__exact=approved", {"Approved"}),
    ],
)
def test_links_lead_to_exactly_that(admin_client: Client, query: str, names: set[str]) -> None:
    make_everything()
    rows = admin_client.get(f"/admin/billing/invoice/?{query}").context["cl"].queryset
    assert set(rows.values_list("account__name", flat=True)) == names


def test_what_is_young_or_long_past_is_not_said(admin_user: User) -> None:
    now = timezone.now()
    make_invoice(period_start=(now + DAY).date().replace(day=1))
    make_invoice(make_profile(make_account("Other")), state=InvoiceState.PAID, flags=["unpriced"])
    ExportJob.objects.create(period_start=OCTOBER, state=JobState.FAILED, ended_at=now - 8 * DAY)
    ExportJob.objects.create(period_start=OCTOBER, state=JobState.DONE, ended_at=now)
    assert texts(admin_user) == []


def test_each_is_said_to_those_who_may_see_it() -> None:
    make_everything()
    assert texts(make_person("finance", "view_invoice")) == [
        *OF_INVOICES,
        "1 month job failed within the last 7 days",
    ]
    assert texts(make_person("exporter", "view_exportjob")) == ["1 export failed within the last 7 days"]
    assert texts(make_person("other", "view_plan")) == []
