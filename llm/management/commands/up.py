"""`manage.py up`: web, Celery worker and Celery beat together, in the foreground."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from llm.management.commands.bootstrap import set_up
from llm.management.invitation import reachable_host, ready_text
from llmproject.startup import refuse_used_port, refuse_wrong_settings

# How long a program may take to stop beyond the time granted to calls; the server kills its workers earlier.
STOP_MARGIN_SECONDS = 25


class Command(BaseCommand):
    help = "Runs web, Celery worker and Celery beat together until Ctrl-C."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--bootstrap", action="store_true", help="Run bootstrap first.")

    def handle(self, *args: Any, **options: Any) -> NoReturn:
        refuse_wrong_settings()
        refuse_used_port()
        key = set_up(self.stdout) if options["bootstrap"] else ""
        grace_seconds = settings.LLM_DRAIN_SECONDS + STOP_MARGIN_SECONDS
        os.chdir(settings.BASE_DIR)
        os.execve(  # noqa: S606
            sys.executable,
            [
                *(sys.executable, "-m", "llmproject.supervisor", str(grace_seconds)),
                *(reachable_host(), str(settings.WEB_PORT), str(_inherited_pipe(ready_text(key)))),
            ],
            # Human-readable, unless the environment or .env sets another format.
            {"LLM_LOG_FORMAT": "console", **os.environ},
        )


def _inherited_pipe(text: str) -> int:
    """A descriptor from which the program that replaces us reads the text.

    It may contain the demo key, which arguments and the environment would expose.
    """
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    os.set_inheritable(reader, True)  # noqa: FBT003
    return reader
