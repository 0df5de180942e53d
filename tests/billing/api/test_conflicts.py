"""Somebody else was quicker: the management API answers 409 with a sentence, and nothing is written."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from billing.models import ExportJob, Plan
from tests.billing.api.asking import staff_asker

pytestmark = pytest.mark.django_db


def ask_for_an_export() -> Any:
    return staff_asker("view_exportjob", "run_export").post("exports/", {"period": "2026-10", "formats": ["csv"]})


def test_a_row_that_is_there_already_is_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    Plan.objects.create(name="Team")
    monkeypatch.setattr("billing.api.exports.queue_export", lambda pk: Plan.objects.create(name="Team"))

    answer = ask_for_an_export()

    assert answer.status_code == 409
    assert answer.json() == {
        "detail": "This already exists: another request added it in the meantime. Nothing was written."
    }
    assert not ExportJob.objects.exists()


def test_a_rule_of_the_database_is_a_conflict_and_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.api.exports.queue_export", lambda pk: Plan.objects.create(name=""))

    answer = ask_for_an_export()

    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("Something this request depends on was changed in the meantime.")
    assert not ExportJob.objects.exists()
    assert connection.is_usable()
