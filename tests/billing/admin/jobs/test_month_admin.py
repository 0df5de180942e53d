"""A month is closed and checked from the admin: asked for there, done by a worker, watched on a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing.enums import JobState, MonthJobKind
from billing.jobs import months
from billing.models import BillingProfile, Invoice, MonthJob
from tests.billing.admin.pages import PREPARER, make_draft, make_submitted, sign_in, text_of
from tests.billing.factories import OCTOBER, make_account

pytestmark = pytest.mark.django_db

CLOSE = "/admin/billing/invoice/close/"
VERIFY = "/admin/billing/invoice/check/"
JOBS = "/admin/billing/monthjob/"
REFRESHES = 'http-equiv="refresh"'


def page_of(job: MonthJob) -> str:
    return reverse("admin:billing_monthjob_change", args=(job.pk,))


def make_job(kind: MonthJobKind = MonthJobKind.CLOSE, **values: Any) -> MonthJob:
    return MonthJob.objects.create(kind=kind, period_start=OCTOBER, **values)


def run(client: Client) -> str:
    """What the page of the only job says once a worker has done it."""
    months.run_month_job(MonthJob.objects.get().pk)
    return text_of(client.get(page_of(MonthJob.objects.get())))


@pytest.mark.slow
def test_a_month_is_closed_by_a_job(sent: list[Any], django_capture_on_commit_callbacks: Callable[..., Any]) -> None:
    client = sign_in("pat", *PREPARER)
    make_draft()

    assert "Generate invoices" in text_of(client.get(CLOSE))
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(CLOSE, {"month": "2026-10", "account": "acme"})
    job = MonthJob.objects.get()

    assert answer.headers["Location"] == page_of(job)
    assert (job.kind, str(job.period), str(job.account), str(job.requested_by)) == ("close", "2026-10", "Acme", "pat")
    assert sent == [("billing.tasks.run_month_job", [job.pk])]
    waiting = text_of(client.get(page_of(job)))
    assert "Invoice run for 2026-10, Acme is in progress." in waiting
    assert REFRESHES in waiting
    ended = run(client)
    assert REFRESHES not in ended
    assert "Drafted" in ended
    assert "1 of 1" in ended
    assert "/admin/billing/invoice/?month=2026-10" in ended
    assert Invoice.objects.count() == 1


def test_a_wrong_form_asks_for_nothing() -> None:
    client = sign_in("pat", *PREPARER)

    assert "is not a month" in text_of(client.post(CLOSE, {"month": "2026-13"}))
    assert "No account has this name" in text_of(client.post(CLOSE, {"month": "2026-10", "account": "nobody"}))
    to_come = text_of(client.post(CLOSE, {"month": "2999-12"}))
    assert "2999-12 has not started: its invoices can be generated once it has ended." in to_come
    assert "Null characters are not allowed" in text_of(client.post(VERIFY, {"month": "\x00"}))
    assert MonthJob.objects.count() == 0


def test_a_form_proposes_what_its_link_says() -> None:
    page = text_of(sign_in("vera", "view_invoice").get(f"{VERIFY}?month=2026-07&account=%3CAcme%3E"))

    assert 'value="2026-07"' in page
    assert 'value="&lt;Acme&gt;"' in page


@pytest.mark.slow
def test_closing_says_which_accounts_could_not_be_billed() -> None:
    client = sign_in("pat", *PREPARER)
    BillingProfile.objects.filter(account=make_draft().account).update(currency="EUR")
    make_draft("Sound")
    client.post(CLOSE, {"month": "2026-10"})

    page = run(client)

    assert "Acme: The plan" in page
    assert "generate the invoices again" in page
    assert 'gw-badge-bad">1<' in text_of(client.get(JOBS))
    assert Invoice.objects.count() == 2


@pytest.mark.slow
def test_a_month_is_checked_against_its_calls() -> None:
    client = sign_in("vera", "view_invoice")
    invoice = make_submitted()

    client.post(VERIFY, {"month": "2026-10"})
    assert "Every line agrees with its calls" in run(client)

    Invoice.objects.filter(pk=invoice.pk).update(content_digest="f" * 64)
    MonthJob.objects.all().delete()
    client.post(VERIFY, {"month": "2026-10"})
    assert "its content no longer matches the submitted digest" in run(client)


def test_a_check_of_a_month_without_submitted_invoices_says_so() -> None:
    client = sign_in("vera", "view_invoice")
    make_draft()
    client.post(VERIFY, {"month": "2026-10"})

    assert "there was nothing to check" in run(client)


def test_more_findings_than_are_shown_are_counted() -> None:
    said = {"problems": 3400, "findings": ["One.", "Two."], "counts": {"calls": 9}}
    job = make_job(MonthJobKind.VERIFY, state=JobState.DONE, **said)

    page = text_of(sign_in("vera", "view_invoice").get(page_of(job)))

    assert "The first 2 of 3,400." in page


def test_a_running_job_shows_how_far_it_is() -> None:
    client = sign_in("vera", "view_invoice")
    job = make_job(state=JobState.RUNNING, progress=250, total=1000)

    assert "250 of 1,000 accounts" in text_of(client.get(JOBS))
    page = text_of(client.get(page_of(job)))
    assert "250 of 1,000" in page
    assert REFRESHES in page


def test_a_job_that_nobody_begins_says_what_to_look_for() -> None:
    client = sign_in("vera", "view_invoice")
    early, late = make_job(), make_job(created_at=timezone.now() - timedelta(minutes=5))

    assert "No worker has picked this up yet" not in text_of(client.get(page_of(early)))
    assert "Check that a Celery worker and beat are running" in text_of(client.get(page_of(late)))


def test_a_job_that_failed_says_why() -> None:
    job = make_job(state=JobState.FAILED, error="It failed for a reason.")

    assert "It failed for a reason." in text_of(sign_in("vera", "view_invoice").get(page_of(job)))


def test_pages_of_a_month_are_for_those_who_may(sent: list[Any]) -> None:
    job = make_job(account=make_account("Secret customer"))
    viewer, nobody = sign_in("vera", "view_invoice"), sign_in("nina", "prepare_invoice", "view_account")

    for client in (viewer, nobody):
        assert client.get(CLOSE).status_code == 403
        assert client.post(CLOSE, {"month": "2026-10"}).status_code == 403
    assert nobody.get(VERIFY).status_code == 403
    assert nobody.post(VERIFY, {"month": "2026-10"}).status_code == 403
    assert nobody.get(JOBS).status_code == 403
    assert nobody.get(page_of(job)).status_code == 403
    assert nobody.get(f"{JOBS}{job.pk}/history/").status_code == 403
    assert Client().get(page_of(job)).status_code == 302
    assert viewer.get(page_of(job)).status_code == 200
    assert (MonthJob.objects.count(), sent) == (1, [])


def test_nobody_makes_changes_or_deletes_jobs_by_hand(admin_client: Client) -> None:
    job = make_job()

    assert admin_client.get(f"{JOBS}add/").status_code == 403
    assert admin_client.post(page_of(job), {"state": "done"}).status_code == 403
    assert admin_client.post(f"{JOBS}{job.pk}/delete/", {"post": "yes"}).status_code == 403
    job.refresh_from_db()
    assert job.state == JobState.WAITING


def test_a_job_that_is_not_there_leads_back(admin_client: Client) -> None:
    assert admin_client.get(f"{JOBS}4711/change/", follow=True).status_code == 200
    assert admin_client.get(f"{JOBS}nonsense/change/", follow=True).status_code == 200
