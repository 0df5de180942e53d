"""The Celery app, and the table of what runs when."""

from __future__ import annotations

import logging.config
import os
from typing import Any

import django
from celery import Celery, signals
from django.conf import settings

from llmproject.parentwatch import die_with_supervisor, watch_parent
from llmproject.startup import refuse_wrong_settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmproject.settings")

app = Celery("llmproject")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["llm", "billing"])

# name -> {"task": dotted path, "schedule": crontab(...) in UTC}. Each task here has a management command that does the
# same, and finds its work by query: one that was missed, or ran twice, costs nothing.
app.conf.beat_schedule = {}


@signals.celeryd_init.connect
@signals.beat_init.connect
def _start(**_kwargs: Any) -> None:
    die_with_supervisor()
    django.setup()
    refuse_wrong_settings()


@signals.worker_process_init.connect
def _start_pool_process(**_kwargs: Any) -> None:
    # Not the kernel's signal: the pool may have been forked by a thread, which ends when a shutdown begins.
    watch_parent(os.getppid())


@signals.setup_logging.connect
def _log_like_django(**_kwargs: Any) -> None:
    """Keeps Celery from setting up logs of its own."""
    logging.config.dictConfig(settings.LOGGING)
