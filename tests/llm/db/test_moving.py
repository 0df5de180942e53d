"""The migration that moves open calls into their own table, and back."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.core.management.base import CommandError
from django.db import connection
from django.utils import timezone

from llm.books.batches.commit import commit_batch
from llm.db.triggers import missing_triggers
from llm.ids import boot_id
from llm.models import OpenCall, Process, Usage
from tests.llm.books.making import a_close, a_key, an_open

pytestmark = pytest.mark.django_db

migration = import_module("llm.migrations.0032_two_tables")
editor = SimpleNamespace(connection=connection)


def test_open_calls_are_moved_back_and_forth_and_closed_ones_stay() -> None:
    key = a_key()
    calls = [an_open(key, tags={"team": "search"}, end_user="0f" * 16) for _ in range(3)]
    commit_batch(calls)
    commit_batch([a_close(calls[2].id)])
    opened, closed = list(OpenCall.objects.values()), list(Usage.objects.values())

    migration.move_back(apps, editor)
    assert not OpenCall.objects.exists()
    assert sorted(row.status for row in Usage.objects.all()) == ["open", "open", "settled"]

    migration.move_open_calls(apps, editor)
    assert list(OpenCall.objects.values()) == opened
    assert list(Usage.objects.values()) == closed
    assert missing_triggers() == []
    assert [type(result).__name__ for result in commit_batch([a_close(each.id) for each in calls[:2]])] == [
        "Closed"
    ] * 2


def test_it_refuses_to_run_beside_a_gateway() -> None:
    # Those of gateways that other tests have started.
    Process.objects.all().delete()
    now = timezone.now()
    process = Process.objects.create(id=boot_id(), host="here", pid=1, started_at=now, seen_at=now)
    with pytest.raises(CommandError, match=r"1 gateway process is still running\. Stop the gateway on all hosts"):
        migration.refuse_beside_gateways(apps, editor)
    Process.objects.filter(pk=process.pk).update(seen_at=now - timedelta(minutes=1))
    migration.refuse_beside_gateways(apps, editor)
    Process.objects.filter(pk=process.pk).update(seen_at=now, ended_at=now)
    migration.refuse_beside_gateways(apps, editor)
