"""A job that the database is away for ends with one line in the log, and a bug with an error as ever."""

from __future__ import annotations

import logging
from importlib import import_module

import pytest
from celery import states
from django.db import Error, IntegrityError, OperationalError
from structlog.testing import capture_logs

from llm import tasks
from llmproject.celery import app
from llmproject.jobs import Job


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
    assert all(isinstance(task, Job) for task in ours)


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
            "event": "database unavailable for a job",
            "log_level": "warning",
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
