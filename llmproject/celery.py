"""The Celery app, and the schedule of tasks."""

from __future__ import annotations

import logging.config
import os
from typing import Any

import django
import structlog
from celery import Celery, signals
from celery.schedules import crontab
from django.conf import settings

from llmproject.parentwatch import die_with_supervisor, watch_parent
from llmproject.startup import refuse_wrong_settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmproject.settings")

_log = structlog.get_logger("llmproject.celery")

HOURLY = {"expires": 3600}
NIGHTLY = {"expires": 12 * 3600}
"""A worker that returns during the day catches up on the night."""

CHATTY_LOGGERS = ("celery.app.trace", "celery.beat", "celery.worker.request", "celery.worker.strategy")
"""Three lines for each task, day and night. Failures have a higher level."""

app = Celery("llmproject", task_cls="llmproject.jobs:BackgroundTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["llm", "billing"])

# The schedule, in UTC. Each task finds its work by query, so a missed or repeated run does no harm. expires, in
# seconds: if no worker ran for a while, the first one drops all but the latest of what has piled up.
app.conf.beat_schedule = {
    "send_outbox": {"task": "llm.tasks.send_outbox", "schedule": 20.0, "options": {"expires": 20}},
    "reap": {"task": "llm.tasks.reap_lost_calls", "schedule": 60.0, "options": {"expires": 60}},
    "verify_books": {"task": "llm.tasks.verify_books", "schedule": crontab(hour=3, minute=30), "options": NIGHTLY},
    "refresh_rollups": {"task": "billing.tasks.refresh_rollups", "schedule": crontab(minute=5), "options": HOURLY},
    "close_due_months": {"task": "billing.tasks.close_due_months", "schedule": crontab(minute=20), "options": HOURLY},
    "remind_of_overdue": {"task": "billing.tasks.remind_of_overdue", "schedule": crontab(minute=35), "options": HOURLY},
    "run_exports": {"task": "billing.tasks.run_waiting_exports", "schedule": 60.0, "options": {"expires": 60}},
    "run_month_jobs": {"task": "billing.tasks.run_waiting_month_jobs", "schedule": 60.0, "options": {"expires": 60}},
    "run_books_jobs": {"task": "billing.tasks.run_waiting_books_jobs", "schedule": 60.0, "options": {"expires": 60}},
    "prune_windows": {"task": "llm.tasks.prune_windows", "schedule": crontab(hour=4, minute=10), "options": NIGHTLY},
    "prune_replies": {"task": "llm.tasks.prune_kept_replies", "schedule": 600.0, "options": {"expires": 600}},
    "prune_outbox": {"task": "llm.tasks.prune_outbox", "schedule": crontab(hour=4, minute=20), "options": NIGHTLY},
    "prune_refusals": {"task": "llm.tasks.prune_refusals", "schedule": crontab(hour=4, minute=30), "options": NIGHTLY},
    "prune_sign_ins": {"task": "llm.tasks.prune_sign_in_counts", "schedule": crontab(minute=40), "options": HOURLY},
}


@signals.celeryd_init.connect
@signals.beat_init.connect
def _start(**_kwargs: Any) -> None:
    die_with_supervisor()
    django.setup()
    refuse_wrong_settings()


@signals.beat_init.connect
def _say_that_beat_runs(**_kwargs: Any) -> None:
    """Its own messages are from one of the chatty loggers."""
    _log.info("beat.ready", jobs=sorted(app.conf.beat_schedule))


@signals.worker_process_init.connect
def _start_pool_process(**_kwargs: Any) -> None:
    # Not the kernel's signal: a thread that ends when a shutdown begins may have forked the pool.
    watch_parent(os.getppid())


@signals.setup_logging.connect
def _log_like_django(**_kwargs: Any) -> None:
    """Keeps Celery from configuring its own logging."""
    logging.config.dictConfig(settings.LOGGING)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
