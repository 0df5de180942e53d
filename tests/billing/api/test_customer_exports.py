"""Exports as a customer sees them with its own key: its own, once they are done, and nothing of anybody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from billing.enums import JobState
from billing.jobs.exports import run_export
from billing.models import ExportJob
from llm.models import Account
from tests.billing.api.asking import Asker, customer, make_staff, staff_asker
from tests.billing.exports.months import SEPTEMBER, issued, make_customer, make_month, verify

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture(autouse=True)
def _folder(settings: Settings, tmp_path: Path) -> None:
    settings.BILLING_EXPORT_DIR = tmp_path / "exports"


@pytest.fixture
def acme() -> Account:
    """With an issued month, beside another account's."""
    for account in (acme := make_month(), make_month(make_customer("Globex"))):
        issued(account)
    return acme


def make_job(account: Account | None, **values: Any) -> ExportJob:
    user = make_staff(name=f"asker {ExportJob.objects.count()}")
    return ExportJob.objects.create(
        period_start=SEPTEMBER.start, account=account, formats=["csv"], requested_by=user, **values
    )


def make_done(account: Account | None) -> ExportJob:
    job = run_export(make_job(account).pk)
    assert (job.state, job.error) == (JobState.DONE, "")
    return job


def paths_of(job: ExportJob) -> list[str]:
    page = f"exports/{job.pk}/"
    return [page, f"{page}files/manifest.json/", f"{page}files/invoices.csv/"]


def fetch(asker: Asker, url: str) -> bytes:
    """What lies behind an address as an answer gives it."""
    response = asker.get(url.removeprefix("http://testserver/api/v1/"))
    assert response.status_code == 200
    return b"".join(response.streaming_content)


def test_a_customer_fetches_its_export_and_checks_it_offline(acme: Account, tmp_path: Path) -> None:
    job = make_done(acme)
    _, asker = customer(acme)

    folder = tmp_path / "fetched"
    folder.mkdir()

    (listed,) = asker.results("exports/")
    for file in [*listed["files"], {"name": "manifest.json", "url": listed["manifest_url"]}]:
        (folder / file["name"]).write_bytes(fetch(asker, file["url"]))

    assert listed == asker.get(f"exports/{job.pk}/").json()
    assert (listed["account"], listed["account_name"], listed["period"]) == (acme.pk, "Acme", "2026-09")
    assert verify(folder)[0] == 0
    written = b"".join(path.read_bytes() for path in folder.glob("*.csv"))
    assert b"Acme" in written
    assert b"Globex" not in written
    assert b"cost_usd" not in written


def test_a_customer_does_not_see_who_asked(acme: Account) -> None:
    job = make_done(acme)
    staff = staff_asker("view_exportjob")
    _, asker = customer(acme)

    for path in ("exports/", f"exports/{job.pk}/"):
        shown, for_staff = (
            found.get("results", [found])[0] for found in (asker.get(path).json(), staff.get(path).json())
        )
        assert set(for_staff) - set(shown) == {"requested_by", "error"}
        assert str(job.requested_by) not in str(shown)
        assert for_staff["requested_by"] == str(job.requested_by)


def test_exports_of_others_and_of_all_accounts_are_not_there(acme: Account) -> None:
    globex = Account.objects.get(name="Globex")
    jobs = [make_done(globex), make_done(None)]
    _, asker = customer(acme)

    assert asker.results("exports/") == []
    nothing = asker.refusal("exports/4711/", status=404)
    for job in jobs:
        for path in paths_of(job):
            assert asker.refusal(path, status=404) == nothing
    # As unknown as an id that nobody has.
    for unknown in (globex.pk, 4711):
        assert asker.refusal("exports/", {"account": unknown}) == "account: This id does not exist."
    assert asker.results("exports/", {"account": acme.pk}) == []
    _, other = customer(globex)
    assert [shown["id"] for shown in other.results("exports/")] == [jobs[0].pk]


@pytest.mark.parametrize("state", [JobState.WAITING, JobState.RUNNING, JobState.FAILED])
def test_an_export_that_is_not_done_is_not_there_either(acme: Account, state: JobState) -> None:
    job = make_job(acme, state=state, error="for staff")
    _, asker = customer(acme)

    assert asker.results("exports/") == []
    assert asker.results("exports/", {"state": state}) == []
    assert [asker.get(path).status_code for path in paths_of(job)] == [404, 404, 404]


def test_a_customer_starts_no_export(acme: Account) -> None:
    _, asker = customer(acme)

    response = asker.post("exports/", {"period": "2026-09", "account": acme.pk})

    assert (response.status_code, response.json()) == (
        403,
        {
            "detail": "API keys have read-only access here. To start something, such as an export, contact the "
            "gateway's staff."
        },
    )
    assert not ExportJob.objects.exists()
