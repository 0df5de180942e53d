"""A job is done by one worker at a time, is begun again after its worker was killed, and not for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import Settings

from billing.enums import InvoiceState, JobState
from billing.exports import walk
from billing.jobs import runner
from billing.jobs.exports import run_export, run_waiting
from billing.models import ExportJob
from billing.types import Progress
from tests.billing.factories import OCTOBER, make_account, make_invoice, make_profile
from tests.gateway_process import _database_environment

pytestmark = pytest.mark.django_db

DIE_AT_WORK = """
import os, sys
import django
django.setup()
from billing.jobs import runner as jobs
from billing.models import ExportJob
from billing.types import Progress
jobs.run_waiting(ExportJob, lambda job, report: os._exit(9))
"""


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    """Where exports are written; not there yet."""
    settings.BILLING_EXPORT_DIR = tmp_path / "exports"
    return tmp_path / "exports"


def make_job(**values: object) -> ExportJob:
    return ExportJob.objects.create(**{"pk": 7, "period_start": OCTOBER, "formats": ["csv", "jsonl"], **values})


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_job_ends_with_its_folder_and_manifest(folder: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job()
    job = run_export(7)
    job.refresh_from_db()
    assert (job.state, job.folder, job.error) == (JobState.DONE, "2026-10-7", "")
    assert job.manifest == json.loads((folder / job.folder / "manifest.json").read_bytes())
    assert job.manifest is not None
    assert job.manifest["totals"]["USD"]["total"] == "10.00"
    assert job.started_at is not None
    assert job.ended_at is not None
    assert visible(folder) == ["2026-10-7"]


def test_a_job_of_one_account_leaves_out_the_others_and_our_costs(folder: Path) -> None:
    account = make_account("Acme")
    invoice = make_invoice(make_profile(account), state=InvoiceState.ISSUED)
    make_invoice(make_profile(make_account("Other")), state=InvoiceState.ISSUED, number=18)
    job = make_job(account=account)
    assert str(job) == "Export of 2026-10, Acme"
    manifest = run_export(7).manifest
    assert manifest is not None
    assert (manifest["account_id"], [row["number"] for row in manifest["invoices"]]) == (account.pk, [invoice.label])
    assert "cost_usd" not in (folder / "2026-10-7" / "usage.csv").read_text()


def test_a_job_of_an_account_without_invoices_says_so(folder: Path) -> None:
    make_invoice(make_profile(make_account("Other")), state=InvoiceState.ISSUED)
    make_job(account=make_account("Acme"))
    assert run_export(7).error == "There are no invoices of Acme for 2026-10."
    assert visible(folder) == []


def test_a_job_that_is_done_is_left_alone(folder: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job()
    done = run_export(7)
    make_invoice(make_profile(make_account("Other")), state=InvoiceState.ISSUED, number=18)
    again = run_export(7)
    assert (again.state, again.ended_at, again.manifest) == (JobState.DONE, done.ended_at, done.manifest)
    assert run_waiting() == []


def test_a_job_that_fails_says_why_and_leaves_nothing(folder: Path) -> None:
    make_job()
    job = run_export(7)
    job.refresh_from_db()
    assert (job.state, job.error) == (JobState.FAILED, "There are no invoices for 2026-10.")
    assert (job.folder, job.manifest) == ("", None)
    assert visible(folder) == []


def test_a_job_without_a_format_that_exists_fails(folder: Path) -> None:
    make_job(formats=["csv", "pdf"])
    assert run_export(7).error == "Unknown export format “pdf”. Choose from csv, xlsx, jsonl, focus, xero."


def test_a_job_that_breaks_is_not_tried_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*args: object) -> None:
        raise ZeroDivisionError

    make_invoice(state=InvoiceState.ISSUED)
    make_job()
    monkeypatch.setattr(walk, "read_usage", break_down)
    with pytest.raises(ZeroDivisionError):
        run_waiting()
    job = ExportJob.objects.get(pk=7)
    assert job.state == JobState.FAILED
    assert job.error == "The job failed; the worker's log has the cause. Fix it, then request the job again."
    assert visible(folder) == []
    assert run_waiting() == []


def test_a_job_that_another_worker_has_is_left_to_it(folder: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job(state=JobState.RUNNING, progress=4, attempts=1, lease_until=timezone.now() + timedelta(minutes=1))
    assert run_waiting() == []
    job = run_export(7)
    job.refresh_from_db()
    assert (job.state, job.progress, job.started_at, job.attempts) == (JobState.RUNNING, 4, None, 1)
    assert visible(folder) == []


def test_a_job_whose_worker_was_killed_is_begun_again(folder: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job(state=JobState.RUNNING, progress=4, attempts=2, lease_until=timezone.now())
    # It was killed once while it wrote, and once before it could record the result.
    for name in (".2026-10-7.abc.partial", "2026-10-7-2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "usage.csv").write_text("half")
    [job] = run_waiting()
    assert (job.state, job.progress, job.attempts, job.lease_until) == (JobState.DONE, 0, 3, None)
    assert visible(folder) == ["2026-10-7-3"]
    assert "half" not in (folder / "2026-10-7-3" / "usage.csv").read_text()


def test_a_job_of_before_there_were_leases_is_begun(folder: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job(state=JobState.RUNNING, progress=4)
    (folder / "2026-10-7").mkdir(parents=True)
    (folder / "2026-10-7" / "usage.csv").write_text("half")
    [job] = run_waiting()
    assert (job.state, job.attempts, visible(folder)) == (JobState.DONE, 1, ["2026-10-7"])


@pytest.mark.e2e
@pytest.mark.django_db(transaction=True)
def test_a_job_that_kills_its_worker_fails_after_three_times(folder: Path) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job()
    make_job(pk=8)
    for attempt in (1, 2, 3):
        assert die_at_work() == 9
        job = ExportJob.objects.get(pk=7)
        assert (job.state, job.attempts) == (JobState.RUNNING, attempt)
        ExportJob.objects.update(lease_until=timezone.now())
    failed, other = run_waiting()
    assert (failed.state, failed.error, failed.attempts) == (JobState.FAILED, runner.NEVER_FINISHED, 3)
    assert (failed.lease_until, failed.ended_at is not None) == (None, True)
    assert (other.pk, other.state) == (8, JobState.DONE)
    assert run_waiting() == []


def die_at_work() -> int:
    """What became of a process that did the waiting jobs."""
    environment = {**os.environ, **_database_environment(), "DJANGO_SETTINGS_MODULE": "llmproject.settings"}
    return subprocess.run([sys.executable, "-c", DIE_AT_WORK], env=environment, check=False).returncode


@pytest.mark.parametrize("reports", [True, False], ids=["at its next report", "at its end"])
def test_a_worker_that_lost_its_lease_writes_nothing_more(monkeypatch: pytest.MonkeyPatch, reports: bool) -> None:
    """It was suspended, or cut off from the database, for longer than the lease; another one has begun the job."""
    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_REPORTS", 0)
    make_job()

    def work(job: ExportJob, report: Progress) -> Mapping[str, object]:
        ExportJob.objects.filter(pk=7).update(attempts=2, progress=5)
        if reports:
            report(1, 9)
        return {"folder": "stale"}

    runner.run_job(ExportJob, 7, work)
    now = ExportJob.objects.get(pk=7)
    assert (now.state, now.folder, now.progress, now.attempts) == (JobState.RUNNING, "", 5, 2)
    assert now.lease_until is not None


@pytest.mark.django_db(transaction=True)
def test_a_lease_is_renewed_while_the_work_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RENEW_SECONDS", 0.01)
    make_job()

    def work(job: ExportJob, report: Progress) -> Mapping[str, object]:
        first = job.lease_until
        assert first is not None
        waited = threading.Event()
        while not ExportJob.objects.filter(pk=7, lease_until__gt=first).exists():
            assert not waited.wait(0.01)
        assert runner.run_waiting(ExportJob, work) == []
        return {}

    assert runner.run_job(ExportJob, 7, work).state == JobState.DONE


def test_progress_is_written_while_a_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_invoice(make_profile(make_account("Other")), state=InvoiceState.ISSUED, number=18)
    monkeypatch.setattr(runner, "_SECONDS_BETWEEN_REPORTS", 0)
    seen: list[tuple[str, int, int]] = []

    def spy(job: ExportJob, **values: object) -> bool:
        is_ours = set_values(job, **values)
        seen.append(ExportJob.objects.values_list("state", "progress", "total").get(pk=job.pk))
        return is_ours

    set_values = runner._set
    monkeypatch.setattr(runner, "_set", spy)
    make_job(progress=9)
    run_export(7)
    assert seen == [("running", 0, 0)] * 2 + [("done", 0, 0)]
