"""A job writes its export once at a time, and can be taken up again after its worker was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from billing import jobs
from billing.enums import InvoiceState, JobState
from billing.exporting import run_export, run_waiting
from billing.exports import walk
from billing.models import ExportJob
from tests.billing.factories import OCTOBER, make_account, make_invoice, make_profile

pytestmark = pytest.mark.django_db

HOLD_THE_LOCK = """
import fcntl, sys, time
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    """Where exports are written; not there yet."""
    settings.BILLING_EXPORT_DIR = tmp_path / "exports"
    return tmp_path / "exports"


@pytest.fixture
def worker(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process at work on job 7."""
    folder.mkdir()
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(folder / ".exportjob-7.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def make_job(**values: object) -> ExportJob:
    return ExportJob.objects.create(**{"pk": 7, "period_start": OCTOBER, "formats": ["csv", "jsonl"], **values})


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


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
    assert run_export(7).error == "“pdf” is no format of an export; there are csv, xlsx, jsonl, focus, xero."


def test_a_job_that_breaks_is_not_tried_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*args: object) -> None:
        raise ZeroDivisionError

    make_invoice(state=InvoiceState.ISSUED)
    make_job()
    monkeypatch.setattr(walk, "usage_of", break_down)
    with pytest.raises(ZeroDivisionError):
        run_waiting()
    job = ExportJob.objects.get(pk=7)
    assert job.state == JobState.FAILED
    assert job.error == "It failed for a reason that stands in the log: see to that, and ask again."
    assert visible(folder) == []
    assert run_waiting() == []


def test_a_job_that_another_worker_is_at_is_left_to_it(folder: Path, worker: subprocess.Popen[str]) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job(state=JobState.RUNNING, progress=4)
    job = run_export(7)
    job.refresh_from_db()
    assert (job.state, job.progress, job.started_at) == (JobState.RUNNING, 4, None)
    assert visible(folder) == []


def test_a_job_whose_worker_was_killed_is_taken_up_again(folder: Path, worker: subprocess.Popen[str]) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_job(state=JobState.RUNNING, progress=4)
    # It was killed once while it wrote, and once before it could say that it was done.
    for name in (".2026-10-7.abc.partial", "2026-10-7"):
        (folder / name).mkdir()
        (folder / name / "usage.csv").write_text("half")
    worker.kill()
    worker.wait()
    [job] = run_waiting()
    assert (job.state, job.progress) == (JobState.DONE, 0)
    assert visible(folder) == ["2026-10-7"]
    assert "half" not in (folder / "2026-10-7" / "usage.csv").read_text()


def test_progress_is_written_while_a_job_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    make_invoice(state=InvoiceState.ISSUED)
    make_invoice(make_profile(make_account("Other")), state=InvoiceState.ISSUED, number=18)
    monkeypatch.setattr(jobs, "_SECONDS_A_REPORT", 0)
    seen: list[tuple[str, int, int]] = []

    def spy(job: ExportJob, **values: object) -> None:
        set_values(job, **values)
        seen.append(ExportJob.objects.values_list("state", "progress", "total").get(pk=job.pk))

    set_values = jobs._set
    monkeypatch.setattr(jobs, "_set", spy)
    make_job(progress=9)
    run_export(7)
    assert seen == [("running", 0, 0)] * 3 + [("done", 0, 0)]
