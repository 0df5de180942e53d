"""A month is closed or checked by a job, which says how far it is and what came of it."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from billing.enums import InvoiceState, JobState, MonthJobKind
from billing.errors import BillingError
from billing.invoices.closing import ClosingReport
from billing.jobs import months, runner
from billing.jobs.months import run_month_job, run_waiting
from billing.models import BillingProfile, Invoice, InvoiceEvent, MonthJob
from billing.types import Progress
from llm.audit import MAX_FINDINGS, Findings
from tests.billing.admin.pages import make_draft, make_submitted
from tests.billing.calls import make_call, make_price
from tests.billing.factories import OCTOBER, make_account
from tests.billing.people import make_preparer

pytestmark = pytest.mark.django_db


def make_job(kind: MonthJobKind = MonthJobKind.CLOSE, **values: object) -> MonthJob:
    return MonthJob.objects.create(kind=kind, period_start=OCTOBER, **values)


def done(job: MonthJob) -> MonthJob:
    run_month_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == (JobState.DONE, "")
    assert job.ended_at is not None
    return job


@pytest.mark.slow
def test_closing_tells_what_became_of_each_account() -> None:
    make_draft("Busy")
    kept = make_submitted("Kept")
    broken = make_draft("Broken")
    BillingProfile.objects.filter(account=broken.account).update(currency="EUR")
    make_account("Idle")
    job = done(make_job(requested_by=make_preparer("paula")))
    assert job.counts == {"drafted": 1, "kept": 1, "empty": 1}
    assert (job.problems, job.progress, job.total) == (1, 4, 4)
    [failure] = job.findings
    assert failure.startswith("Broken: The plan “At cost” has prices in USD, the profile bills in EUR: give the plan")
    kept.refresh_from_db()
    assert (kept.state, Invoice.objects.count()) == (InvoiceState.IN_REVIEW, 3)


def test_drafts_are_whoevers_who_asked_for_the_closing() -> None:
    make_call(make_account(), price=make_price(), prompt_tokens=1_000_000)
    done(make_job(requested_by=make_preparer("paula")))
    assert [str(event.user) for event in InvoiceEvent.objects.all()] == ["paula"]


def test_closing_one_account_leaves_the_others_alone() -> None:
    one, other = make_draft("One"), make_draft("Other")
    cutoff = other.cutoff_at
    job = done(make_job(account=one.account))
    other.refresh_from_db()
    assert (job.counts, job.total, other.cutoff_at) == ({"drafted": 1, "kept": 0, "empty": 0}, 1, cutoff)


@pytest.mark.slow
def test_a_check_of_a_sound_month_finds_nothing() -> None:
    make_submitted()
    make_draft("Draft, which is not checked")
    job = done(make_job(MonthJobKind.VERIFY))
    assert (job.counts, job.problems, job.findings) == ({"invoices": 1, "calls": 1}, 0, [])
    assert (job.progress, job.total) == (1, 1)


def test_a_check_names_each_difference_and_its_invoice() -> None:
    broken, other = make_submitted("Broken"), make_submitted("Other")
    Invoice.objects.filter(pk__in=(broken.pk, other.pk)).update(content_digest="f" * 64)
    job = done(make_job(MonthJobKind.VERIFY, account=broken.account))
    assert job.findings == [
        f"invoice {broken.pk} of Broken, 2026-10: its content no longer matches {whose}."
        for whose in ("the submitted digest", "its history")
    ]
    assert (job.problems, job.counts) == (2, {"invoices": 1, "calls": 1})


def test_what_is_kept_of_many_findings_is_bounded_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    report = ClosingReport(failed=[(f"Account {number}", "no") for number in range(MAX_FINDINGS + 5)])
    monkeypatch.setattr(months, "close_month", lambda *args, **values: report)
    job = done(make_job())
    assert (job.problems, len(job.findings)) == (MAX_FINDINGS + 5, MAX_FINDINGS)


def test_progress_is_written_while_a_month_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, int]] = []

    def close(*args: object, on_progress: Progress, **values: object) -> ClosingReport:
        for account in range(3):
            on_progress(account + 1, 3)
            seen.append(MonthJob.objects.values_list("state", "progress", "total").get())
        return ClosingReport()

    monkeypatch.setattr(months, "close_month", close)
    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_REPORTS", 0)
    make_job()
    run_waiting()
    assert seen == [("running", 1, 3), ("running", 2, 3), ("running", 3, 3)]


def test_a_job_that_its_worker_left_is_taken_up_again() -> None:
    make_draft()
    make_job(state=JobState.RUNNING, progress=4, total=9)
    [job] = run_waiting()
    assert (job.state, job.counts["drafted"], job.progress, job.total) == (JobState.DONE, 1, 1, 1)
    assert run_waiting() == []
    assert Invoice.objects.count() == 1


def test_a_job_that_can_not_be_done_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **values: object) -> Findings:
        raise BillingError("No.")

    monkeypatch.setattr(months, "verify_protected_month", refuse)
    job = run_month_job(make_job(MonthJobKind.VERIFY).pk)
    assert (job.state, job.error, job.counts) == (JobState.FAILED, "No.", {})


def test_a_job_is_of_a_known_kind() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        MonthJob.objects.create(kind="other", period_start=OCTOBER)
