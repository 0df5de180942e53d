"""The tasks that Celery runs, when it runs them, and that a worker outlives those that fail."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

import pytest
import structlog
from celery.schedules import crontab
from django.conf import settings
from django.core import mail
from pytest_django import Settings
from structlog.testing import capture_logs

from llm import tasks
from llm.alerts.outbox import LEASE
from llm.books.batches.commit import commit_batch
from llm.books.operations import Claim
from llm.enums import LimitMetric, LimitPer, OutboxKind
from llm.ids import uuid7
from llm.limits.changes import set_limit
from llm.models import IdempotencyKey, KeptReply, LimitWindow, Outbox
from llmproject.celery import app
from llmproject.supervisor import gateway_programs
from tests.gateway_process import _database_environment
from tests.llm.books.making import a_close, a_key, an_open
from tests.llm.receivers import Receiver, running_receiver
from tests.output import written_to

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY_S = 24 * 3600


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        # Loggers keep what they were first bound with.
        tasks._log = structlog.get_logger("llm.tasks")
        yield entries
    tasks._log = structlog.get_logger("llm.tasks")


def a_message(kind: OutboxKind, cause: str = "limit:3") -> Outbox:
    return Outbox.objects.create(
        kind=kind,
        cause=cause,
        event="limit.threshold",
        account=a_key().account,
        payload={
            "api_key_id": None,
            "metric": "requests",
            "per": "total",
            "amount": 10,
            "used": 9,
            "percent": 80,
            "window_starts_at": "1970-01-01T00:00:00+00:00",
        },
        created_at=NOW,
        due_at=NOW,
    )


# --- When -------------------------------------------------------------------------------------------------------------


def test_the_table_names_tasks_that_exist_and_that_need_no_arguments() -> None:
    app.loader.import_default_modules()
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in app.tasks
        assert "args" not in entry
        assert "kwargs" not in entry


def test_what_no_worker_has_taken_lapses_before_it_would_pile_up() -> None:
    for entry in app.conf.beat_schedule.values():
        schedule = entry["schedule"]
        every_s = DAY_S if isinstance(schedule, crontab) else schedule
        assert 0 < entry["options"]["expires"] <= every_s


def test_messages_go_out_within_seconds_and_clearing_up_is_for_the_night() -> None:
    table = app.conf.beat_schedule
    assert table["send_outbox"]["schedule"] == 20
    assert table["reap"]["schedule"] == 60
    assert table["verify_books"]["schedule"] == crontab(hour=3, minute=30)
    assert table["prune_windows"]["schedule"] == crontab(hour=4, minute=10)
    assert table["prune_outbox"]["schedule"] == crontab(hour=4, minute=20)
    assert app.conf.timezone == "UTC"


def test_no_result_is_kept() -> None:
    app.loader.import_default_modules()
    ours = [task for name, task in app.tasks.items() if name.startswith(("llm.", "billing."))]
    assert ours
    assert all(task.ignore_result for task in ours)


def test_a_task_that_kills_its_process_is_not_delivered_again() -> None:
    assert app.conf.task_acks_late
    assert not app.conf.task_reject_on_worker_lost


def test_a_sender_that_hangs_is_stopped_before_its_lease_is_over() -> None:
    task = tasks.send_outbox
    assert task.soft_time_limit < task.time_limit < LEASE.total_seconds()


# --- What -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_due_messages_are_sent_and_counted_in_one_line(settings: Settings, log: list[Any]) -> None:
    settings.LLM_ALERT_EMAIL, settings.LLM_WEBHOOK_URL = "operator@example.com", ""
    a_message(OutboxKind.MAIL, "first")
    a_message(OutboxKind.WEBHOOK, "second")

    tasks.send_outbox()

    assert len(mail.outbox) == 1
    assert not Outbox.objects.filter(sent_at=None).exists()
    counts = {"sent": 1, "unaddressed": 1, "failed": 0, "given_up": 0}
    assert log == [{"event": "outbox.flushed", "log_level": "info", **counts}]


@pytest.mark.django_db
def test_old_windows_go_and_are_counted_in_one_line(log: list[Any]) -> None:
    limit, _ = set_limit(a_key().account, None, LimitMetric.REQUESTS, LimitPer.MINUTE, 5, None)
    LimitWindow.objects.create(limit=limit, starts_at=datetime.now(UTC) - timedelta(days=8))
    tasks.prune_windows()
    assert not LimitWindow.objects.exists()
    assert log == [{"event": "limits.windows_pruned", "log_level": "info", "deleted": 1}]


@pytest.mark.django_db
def test_old_idempotency_keys_go_and_are_counted_in_one_line(log: list[Any], settings: Settings) -> None:
    key = a_key()
    calls = [an_open(key, claim=Claim(letter * 64, "c" * 64)) for letter in "ab"]
    commit_batch(calls)
    commit_batch([a_close(each.id) for each in calls])
    tasks.prune_windows()
    assert log == []
    IdempotencyKey.objects.update(claimed_at=datetime.now(UTC) - timedelta(hours=settings.LLM_IDEMPOTENCY_HOURS + 1))
    tasks.prune_windows()
    assert not IdempotencyKey.objects.exists()
    assert log == [{"event": "idempotency.keys_pruned", "log_level": "info", "deleted": 2}]


@pytest.mark.django_db
def test_kept_replies_go_when_their_time_is_over_or_none_are_kept_any_more(log: list[Any], settings: Settings) -> None:
    settings.LLM_KEPT_REPLY_MINUTES = 10
    now = datetime.now(UTC)
    for minutes in (1, 9, 11, 60):
        KeptReply.objects.create(request_id=uuid7(), sealed=b"x", kept_at=now - timedelta(minutes=minutes))
    tasks.prune_kept_replies()
    assert KeptReply.objects.count() == 2
    settings.LLM_KEPT_REPLY_MINUTES = 0
    tasks.prune_kept_replies()
    assert not KeptReply.objects.exists()
    assert log == [{"event": "idempotency.replies_pruned", "log_level": "info", "deleted": 2}] * 2


@pytest.mark.django_db
@pytest.mark.parametrize("task", [tasks.send_outbox, tasks.prune_windows, tasks.prune_kept_replies])
def test_a_task_that_finds_nothing_to_do_says_nothing(task: Any, log: list[Any]) -> None:
    task()
    assert log == []


# --- In a worker ------------------------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


class Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def log(self) -> str:
        return written_to(self.output)


@pytest.fixture
def worker(transactional_db: None) -> Iterator[Worker]:
    """The worker of `manage.py up`, on the database and the broker of the tests."""
    [command] = [program.command for program in gateway_programs() if program.name == "worker"]
    with TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            env={**os.environ, **_database_environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        yield Worker(process, output)
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.e2e
@pytest.mark.slow
def test_a_worker_outlives_tasks_that_fail_and_those_it_does_not_know(receiver: Receiver, worker: Worker) -> None:
    arrived = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        arrived.set()

    receiver.answer = answer
    message = a_message(OutboxKind.WEBHOOK)
    account = message.account
    assert account is not None
    account.webhook_url = receiver.url
    account.save()

    for _ in range(3):
        app.send_task("llm.tasks.send_outbox", args=["one argument too many"])
        app.send_task("llm.tasks.nobody_knows")
    app.send_task("llm.tasks.send_outbox")

    assert arrived.wait(60), worker.log()
    assert worker.process.poll() is None
    assert len(receiver.received) == 1
    log = worker.log()
    assert "TypeError" in log
    assert "llm.tasks.nobody_knows" in log
    # Tasks that do what they should have no lines of their own.
    assert " received" not in log
    assert " succeeded" not in log
