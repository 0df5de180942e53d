"""A job that the database is away for ends with one line in the log, and a bug with an error as ever."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
import time_machine
from celery import states
from django.db import Error, IntegrityError, OperationalError
from structlog.testing import capture_logs

from llm import tasks
from llm.models import ScheduledTask
from llmproject import jobs
from llmproject.celery import app
from llmproject.jobs import BackgroundTask

pytestmark = pytest.mark.django_db


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[Error]:
    """What the reaper's job raises, one after the other."""
    errors: list[Error] = []

    def fail() -> None:
        raise errors.pop()

    monkeypatch.setattr("llm.books.reaper.reap", fail)
    return errors


def test_every_task_is_such_a_job() -> None:
    import_module("billing.tasks")
    ours = [task for name, task in app.tasks.items() if name.startswith(("llm.", "billing."))]
    assert len(ours) >= 8
    assert all(isinstance(task, BackgroundTask) for task in ours)


def test_a_job_whose_database_is_away_says_why_in_one_line(
    failing: list[Error], caplog: pytest.LogCaptureFixture
) -> None:
    failing.append(
        OperationalError('connection to server at "10.0.0.1" failed: FATAL:  sorry, too many clients already')
    )
    with capture_logs() as entries, caplog.at_level(logging.INFO):
        result = tasks.reap_lost_calls.apply()
    assert result.state == states.IGNORED
    assert entries == [
        {
            "event": "database.unavailable",
            "log_level": "warning",
            "during": "job",
            "job": "llm.tasks.reap_lost_calls",
            "reason": "too_many_connections",
        }
    ]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_a_job_that_fails_otherwise_fails(failing: list[Error]) -> None:
    failing.append(IntegrityError("a duplicate"))
    assert tasks.reap_lost_calls.apply().state == states.FAILURE


def test_who_calls_a_job_as_a_function_gets_the_error(failing: list[Error]) -> None:
    failing.append(OperationalError("connection refused"))
    with pytest.raises(OperationalError):
        tasks.reap_lost_calls()


# --- A task that kills its worker -------------------------------------------------------------------------------------


def test_tasks_whose_work_has_no_attempts_of_its_own_are_counted() -> None:
    import_module("billing.tasks")
    counted = {name for name, task in app.tasks.items() if getattr(task, "max_starts", None) is not None}
    beat = {str(entry["task"]) for entry in app.conf.beat_schedule.values()}
    jobs_of_people = {f"billing.tasks.run_waiting_{kind}" for kind in ("exports", "month_jobs", "books_jobs")}
    of_their_own = {"llm.tasks.send_outbox"} | jobs_of_people
    assert counted == beat - of_their_own


def killed(count: int, at: datetime) -> None:
    """Starts that never come to their end."""
    with time_machine.travel(at, tick=False):
        for _ in range(count):
            assert jobs.note_start("llm.tasks.reap_lost_calls", 3)


def test_a_task_that_never_finishes_is_left_alone_for_a_while_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr("llm.books.reaper.reap", lambda: ran.append(1))
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    killed(3, noon)
    with capture_logs() as entries, time_machine.travel(noon + timedelta(seconds=14), tick=False):
        assert tasks.reap_lost_calls.apply().state == states.IGNORED
    assert [(entry["event"], entry["job"]) for entry in entries] == [
        ("task.never_finishes", "llm.tasks.reap_lost_calls")
    ]
    assert ran == []
    with time_machine.travel(noon + timedelta(seconds=15), tick=False):
        assert tasks.reap_lost_calls.apply().state == states.SUCCESS
    task = ScheduledTask.objects.get()
    assert (ran, task.attempts, task.ended_at) == ([1], 0, noon + timedelta(seconds=15))


def test_the_pauses_double_up_to_a_day() -> None:
    at = datetime(2026, 11, 30, 12, tzinfo=UTC)
    killed(3, at)
    for pause_s in (*(15 * 2**doublings for doublings in range(13)), 86_400, 86_400):
        with time_machine.travel(at + timedelta(seconds=pause_s - 1), tick=False):
            assert not jobs.note_start("llm.tasks.reap_lost_calls", 3)
        at += timedelta(seconds=pause_s)
        killed(1, at)


def test_a_task_that_fails_has_come_to_its_end(failing: list[Error]) -> None:
    for _ in range(4):
        failing.append(IntegrityError("a duplicate"))
        assert tasks.reap_lost_calls.apply().state == states.FAILURE
    assert ScheduledTask.objects.get().attempts == 0
