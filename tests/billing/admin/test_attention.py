"""What waits in billing stands on the index page, for those who may see it."""

from __future__ import annotations

from datetime import timedelta

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

DAY = timedelta(days=1)


def make_everything() -> None:
    now = timezone.now()
    for number, state in enumerate((InvoiceState.IN_REVIEW, InvoiceState.IN_REVIEW, InvoiceState.DRAFT)):
        make_invoice(make_profile(make_account(f"Account {number}")), state=state, created_at=now - 8 * DAY)
    ExportJob.objects.create(period_start=OCTOBER, state=JobState.FAILED, ended_at=now)
    MonthJob.objects.create(period_start=OCTOBER, kind=MonthJobKind.CLOSE, state=JobState.FAILED, ended_at=now)


@pytest.fixture(autouse=True)
def _no_processes(db: None) -> None:
    """Gateways of other tests may be running, and say which targets they skip."""
    Process.objects.all().delete()


def texts(user: User) -> list[str]:
    return [entry.text for entry in attention_for(user, timezone.now())]


@pytest.mark.slow
def test_all_that_waits_is_said_with_links(admin_user: User, admin_client: Client) -> None:
    make_everything()
    cache.clear()
    page = admin_client.get("/admin/").content.decode()
    assert texts(admin_user) == [
        "2 invoices wait for approval",
        "1 draft is older than 7 days",
        "1 export failed within the last 7 days",
        "1 month job failed within the last 7 days",
    ]
    for entry in attention_for(admin_user, timezone.now()):
        assert f'href="{entry.url}"' in page
        assert admin_client.get(entry.url).status_code == 200


def test_what_is_young_or_long_past_is_not_said(admin_user: User) -> None:
    now = timezone.now()
    make_invoice(created_at=now - 6 * DAY)
    make_invoice(make_profile(make_account("Other")), state=InvoiceState.APPROVED, created_at=now - 8 * DAY)
    ExportJob.objects.create(period_start=OCTOBER, state=JobState.FAILED, ended_at=now - 8 * DAY)
    ExportJob.objects.create(period_start=OCTOBER, state=JobState.DONE, ended_at=now)
    assert texts(admin_user) == []


def test_each_is_said_to_those_who_may_see_it() -> None:
    make_everything()
    assert texts(make_person("finance", "view_invoice")) == [
        "2 invoices wait for approval",
        "1 draft is older than 7 days",
        "1 month job failed within the last 7 days",
    ]
    assert texts(make_person("exporter", "view_exportjob")) == ["1 export failed within the last 7 days"]
    assert texts(make_person("other", "view_plan")) == []
