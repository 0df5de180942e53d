"""`manage.py serve`: the web server, in the foreground."""

from __future__ import annotations

import math
import os
import sys
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand

from llmproject.startup import refuse_used_port, refuse_wrong_settings, warn_of_settings


class Command(BaseCommand):
    help = "Runs the web server in the foreground, after checking the settings."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> NoReturn:
        refuse_wrong_settings()
        warn_of_settings()
        refuse_used_port()
        # exec: the server replaces this process, so signals sent here reach it, and Django's memory is freed.
        os.execve(sys.executable, _server_command(), {**os.environ, "LLM_PROCESS": "web"})  # noqa: S606


def _server_command() -> list[str]:
    options = {
        "--host": settings.WEB_HOST,
        "--port": settings.WEB_PORT,
        "--workers": settings.WEB_WORKERS,
        "--drain-seconds": math.ceil(settings.LLM_DRAIN_SECONDS),
        "--metrics-folder": settings.VAR_DIR / "metrics",
        "--log-level": settings.LLM_LOG_LEVEL,
        "--log-format": settings.LLM_LOG_FORMAT,
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "llmproject.server", *words]
