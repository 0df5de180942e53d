from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from billing.enums import JobState
from billing.exports.downloads import files_of
from billing.jobs import exports
from billing.models import ExportJob
from tests.billing.admin.pages import make_issued, member_of, sign_in, text_of
from tests.billing.factories import make_account

pytestmark = pytest.mark.django_db

RUNNER = ("run_export", "view_exportjob")
RUN = "/admin/billing/exportjob/run/"


def body(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def test_a_month_is_exported_and_fetched(
    sent: list[Any], django_capture_on_commit_callbacks: Callable[..., Any]
) -> None:
    client = sign_in("finn", *RUNNER)
    invoice = make_issued()

    assert "Export a month" in text_of(client.get(RUN))
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(RUN, {"month": "2026-10", "formats": ["csv", "jsonl"]})
    job = ExportJob.objects.get()
    page = f"/admin/billing/exportjob/{job.pk}/change/"

    assert (answer.headers["Location"], str(job.requested_by)) == (page, "finn")
    assert (job.formats, str(job.period_start)) == (["csv", "jsonl"], "2026-10-01")
    assert sent == [("billing.tasks.run_export", [job.pk])]
    assert "waiting" in text_of(client.get(page))

    exports.run_export(job.pk)
    done = text_of(client.get(page))
    names = [file["name"] for file in files_of(ExportJob.objects.get())]
    assert all(name in done for name in names)
    manifest = client.get(f"/admin/billing/exportjob/{job.pk}/file/manifest.json/")
    assert [file["name"] for file in json.loads(body(manifest))["files"]] == names
    first = client.get(f"/admin/billing/exportjob/{job.pk}/file/{names[0]}/")
    assert first.headers["Content-Disposition"] == f'attachment; filename="{names[0]}"'
    assert invoice.label.encode() in body(first)


def test_one_account_is_exported_for_the_customer() -> None:
    client = sign_in("finn", *RUNNER)
    make_account("acme")
    invoice = make_issued()

    assert '<option value="Acme">' in text_of(client.get(RUN))
    client.post(RUN, {"month": "2026-10", "formats": ["csv"], "account": "Acme"})
    job = exports.run_export(ExportJob.objects.get().pk)

    assert (job.account, job.state) == (invoice.account, JobState.DONE)
    page = text_of(client.get(f"/admin/billing/exportjob/{job.pk}/change/"))
    assert "Export of 2026-10, Acme" in page
    assert "for the customer, without our costs" in page
    assert ">Acme</td>" in text_of(client.get("/admin/billing/exportjob/"))


@pytest.mark.parametrize("group", ["Auditors", "Billing approvers", "Billing preparers"])
def test_whoever_may_look_at_exports_may_fetch_them(group: str) -> None:
    make_issued()
    job = ExportJob.objects.create(period_start="2026-10-01", formats=["csv"])
    exports.run_export(job.pk)
    client = member_of(group)
    file = f"/admin/billing/exportjob/{job.pk}/file/invoices.csv/"

    assert file in text_of(client.get(f"/admin/billing/exportjob/{job.pk}/change/"))
    assert body(client.get(file)).startswith(b"invoice_id,")


def test_an_export_that_failed_says_why() -> None:
    client = sign_in("finn", *RUNNER)
    client.post(RUN, {"month": "2026-10", "formats": ["csv"]})
    exports.run_export(ExportJob.objects.get().pk)

    assert "There are no invoices for 2026-10." in text_of(
        client.get(f"/admin/billing/exportjob/{ExportJob.objects.get().pk}/change/")
    )
    assert "failed" in text_of(client.get("/admin/billing/exportjob/"))


@pytest.mark.parametrize(
    "name", ["../secret", "..%2Fsecret", "%2e%2e/secret", "secret", ".job-1.lock", "verify_export.pyc"]
)
def test_no_other_file_is_served(name: str, tmp_path: Path) -> None:
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "secret").write_text("secret")
    job = ExportJob.objects.create(
        period_start="2026-10-01", state=JobState.DONE, folder="2026-10-1", manifest={"files": []}
    )

    answer = sign_in("finn", *RUNNER).get(f"/admin/billing/exportjob/{job.pk}/file/{name}/")

    # Django's admin leads whatever is no page of its own elsewhere.
    assert answer.status_code in (302, 404)
    assert not answer.streaming


def test_a_running_export_shows_how_far_it_is() -> None:
    client = sign_in("finn", *RUNNER)
    job = ExportJob.objects.create(
        period_start="2026-10-01", state=JobState.RUNNING, progress=250, total=1000, formats=["csv"]
    )

    assert "250 of 1,000" in text_of(client.get("/admin/billing/exportjob/"))
    assert 'http-equiv="refresh"' in text_of(client.get(f"/admin/billing/exportjob/{job.pk}/change/"))


def test_exports_are_for_those_who_may() -> None:
    make_issued()
    job = ExportJob.objects.create(period_start="2026-10-01", formats=["csv"])
    exports.run_export(job.pk)
    file = f"/admin/billing/exportjob/{job.pk}/file/manifest.json/"

    for client in (sign_in("vera", "view_exportjob"), sign_in("nina")):
        assert client.get(RUN).status_code == 403
        assert client.post(RUN, {"month": "2026-10", "formats": ["csv"]}).status_code == 403
    assert sign_in("olga", "run_export").get(file).status_code == 403
    assert client.get(file).status_code == 403
    assert Client().get(file).status_code == 302
    assert ExportJob.objects.count() == 1


def test_a_wrong_form_exports_nothing() -> None:
    client = sign_in("finn", *RUNNER)

    assert "is not a month" in text_of(client.post(RUN, {"month": "2026", "formats": ["csv"]}))
    assert "This field is required." in text_of(client.post(RUN, {"month": "2026-10"}))
    assert "No account has this name." in text_of(
        client.post(RUN, {"month": "2026-10", "formats": ["csv"], "account": "Nobody"})
    )
    assert "Select a valid choice" in text_of(client.post(RUN, {"month": "2026-10", "formats": ["pdf"]}))
    assert not ExportJob.objects.exists()
