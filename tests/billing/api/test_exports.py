"""Exports over the management API: asked for, watched, and fetched from the job's folder alone."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.db import connection
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from billing.enums import JobState
from billing.models import ExportJob
from llmproject.celery import app
from tests.billing.api.asking import API, Asker, make_staff, staff_asker
from tests.billing.factories import make_account

pytestmark = pytest.mark.django_db

CONTENT = b"number,total\nINV-2026-000017,10.00\n"


@pytest.fixture
def staff() -> Asker:
    return staff_asker("view_exportjob", "run_export")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """Messages to the broker."""
    messages: list[tuple[str, list[int]]] = []
    monkeypatch.setattr(app, "send_task", lambda name, args: messages.append((name, args)))
    return messages


@pytest.fixture
def done(settings: Settings, tmp_path: Path) -> ExportJob:
    """A finished export of one file, whose folder holds another that its manifest doesn't name."""
    settings.BILLING_EXPORT_DIR = tmp_path / "exports"
    folder = tmp_path / "exports" / "job-1"
    folder.mkdir(parents=True)
    (folder / "invoices.csv").write_bytes(CONTENT)
    (folder / "secret.txt").write_text("secret")
    (tmp_path / "exports" / "other.csv").write_text("secret")
    files = [{"name": "invoices.csv", "rows": 1, "bytes": len(CONTENT), "sha256": "0" * 64}]
    return ExportJob.objects.create(
        period_start=date(2026, 10, 1),
        formats=["csv"],
        state=JobState.DONE,
        folder="job-1",
        manifest={"files": files},
        requested_by=make_staff(name="asker"),
    )


def test_an_export_is_asked_for_and_queued_once_it_is_committed(
    staff: Asker, sent: list[Any], django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        response = staff.post("exports/", {"period": "2026-10", "formats": ["csv", "xlsx", "csv"]})
        assert sent == []

    job = ExportJob.objects.get()
    assert (response.status_code, response["Location"]) == (201, f"http://testserver{API}exports/{job.pk}/")
    assert sent == [("billing.tasks.run_export", [job.pk])]
    shown = response.json()
    assert (shown["id"], shown["period"], shown["formats"], shown["state"], shown["requested_by"]) == (
        job.pk,
        "2026-10",
        ["csv", "xlsx"],
        "waiting",
        "finance",
    )
    assert (shown["account"], shown["account_name"]) == (None, None)
    assert (shown["files"], shown["manifest_url"]) == ([], None)


def test_an_export_of_one_account_is_asked_for_by_its_id(staff: Asker, sent: list[Any]) -> None:
    account = make_account("Acme")
    make_account("Other")

    response = staff.post("exports/", {"period": "2026-10", "account": account.pk})

    job = ExportJob.objects.get()
    assert (response.status_code, job.account) == (201, account)
    assert (response.json()["account"], response.json()["account_name"]) == (account.pk, "Acme")
    assert [shown["id"] for shown in staff.results("exports/", {"account": account.pk})] == [job.pk]
    assert staff.post("exports/", {"period": "2026-10", "account": None}).status_code == 201
    assert ExportJob.objects.latest("pk").account is None
    assert len(staff.results("exports/")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ({}, "period: This field is required."),
        ({"period": "2026-13"}, "period: Must be a month such as 2026-10."),
        ({"period": None}, "period: This field may not be null."),
        ({"period": "2026-10", "formats": []}, "formats: This list may not be empty."),
        ({"period": "2026-10", "formats": ["pdf"]}, 'formats.0: "pdf" is not a valid choice.'),
        ({"period": "2026-10", "formats": "csv"}, 'formats: Expected a list of items but got type "str".'),
        ({"period": "2026-10", "account": 4711}, "account: This id does not exist."),
        ({"period": "2026-10", "account": 10**30}, "account: This id does not exist."),
        ({"period": "2026-10", "account": -1}, "account: This id does not exist."),
        ({"period": "2026-10", "account": "Acme"}, "account: A valid integer is required."),
        ({"period": "2026-10", "account": 1.5}, "account: A valid integer is required."),
        ({"period": "2026-10", "account": True}, "account: A valid integer is required."),
        ({"period": "2026-10", "account": [1]}, "account: A valid integer is required."),
        ('{"period": "2026-10", "account": 1e400}', "account: "),
        ([], "Invalid data. Expected a dictionary, but got list."),
        ("{", "JSON parse error"),
        ("[" * 40_000, "The JSON is nested too deep."),
    ],
)
def test_what_can_t_be_exported_is_told(staff: Asker, sent: list[Any], content: Any, detail: str) -> None:
    response = staff.post("exports/", content)

    assert (response.status_code, list(response.json())) == (400, ["detail"])
    assert response.json()["detail"].startswith(detail)
    assert (ExportJob.objects.count(), sent) == (0, [])


def test_asking_needs_its_own_permission(sent: list[Any]) -> None:
    response = staff_asker("view_exportjob").post("exports/", {"period": "2026-10"})

    assert (response.status_code, response.json()) == (
        403,
        {"detail": "This needs the permission billing.run_export."},
    )
    assert (ExportJob.objects.count(), sent) == (0, [])


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_away_fails_no_request(staff: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, args: list[int]) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(app, "send_task", refuse)

    assert staff.post("exports/", {"period": "2026-10"}).status_code == 201
    assert ExportJob.objects.get().state == JobState.WAITING


def test_files_are_listed_from_the_manifest_and_fetched(staff: Asker, done: ExportJob) -> None:
    (listed,) = staff.results("exports/", {"state": "done", "period": "2026-10"})
    (file,) = listed["files"]
    url = f"http://testserver{API}exports/{done.pk}/files/invoices.csv/"
    assert file == {"name": "invoices.csv", "rows": 1, "bytes": len(CONTENT), "sha256": "0" * 64, "url": url}

    response = staff.get(f"exports/{done.pk}/files/invoices.csv/")

    assert (response.status_code, b"".join(response.streaming_content)) == (200, CONTENT)
    assert response["Content-Disposition"] == 'attachment; filename="invoices.csv"'
    assert response["Content-Length"] == str(len(CONTENT))


@pytest.mark.parametrize("name", ["secret.txt", "..%2Fother.csv", "%2e%2e", ".", "a%00b", "manifest.json", "x" * 5000])
def test_nothing_but_what_the_manifest_names_is_served(staff: Asker, done: ExportJob, name: str) -> None:
    assert staff.get(f"exports/{done.pk}/files/{name}/").status_code == 404


@pytest.mark.parametrize("name", ["../other.csv", "link.csv", "gone.csv", "/etc/passwd"])
def test_a_manifest_leads_nowhere_else_either(staff: Asker, done: ExportJob, name: str, tmp_path: Path) -> None:
    (tmp_path / "exports" / "job-1" / "link.csv").symlink_to(tmp_path / "exports" / "other.csv")
    done.manifest = {"files": [{"name": name, "rows": 0, "bytes": 0, "sha256": ""}]}
    done.save()

    assert staff.get(f"exports/{done.pk}/files/{name}/").status_code == 404


@pytest.mark.django_db(transaction=True)
async def test_a_file_comes_in_pieces_to_who_is_served_by_asgi(
    done: ExportJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The request has a thread of its own, whose connection must not outlive it.
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    asker = await sync_to_async(staff_asker)("view_exportjob")
    big = b"x" * 700_000
    (tmp_path / "exports" / "job-1" / "invoices.csv").write_bytes(big)
    request = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": f"{API}exports/{done.pk}/files/invoices.csv/",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"authorization", f"Bearer {asker.secret}".encode())],
    }
    sent: list[Any] = []
    received = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return received.pop() if received else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await get_asgi_application()(request, receive, send)

    pieces = [message.get("body", b"") for message in sent[1:]]
    assert sent[0]["status"] == 200
    assert b"".join(pieces) == big
    assert max(map(len, pieces)) == 64 * 1024
