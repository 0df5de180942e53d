"""`manage.py up`: web, Celery worker and Celery beat together, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand

from llmproject.startup import refuse_used_port, refuse_wrong_settings

# What a program may take to stop beyond the time that it grants to calls; the server kills its workers before that.
STOP_MARGIN_SECONDS = 10


class Command(BaseCommand):
    help = "Runs web, Celery worker and Celery beat together until Ctrl-C."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> NoReturn:
        refuse_wrong_settings()
        refuse_used_port()
        grace_seconds = settings.LLM_DRAIN_SECONDS + STOP_MARGIN_SECONDS
        os.chdir(settings.BASE_DIR)
        os.execve(  # noqa: S606
            sys.executable,
            [sys.executable, "-m", "llmproject.supervisor", str(grace_seconds)],
            # For the eye, unless the environment or .env asks for something else.
            {"LLM_LOG_FORMAT": "console", **os.environ},
        )
