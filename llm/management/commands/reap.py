"""`manage.py reap [--now]`: close the calls of gateway processes that died."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from llm.books.reaper import reap


class Command(BaseCommand):
    help = (
        "Replays what dead processes of this host have left on disk, then closes the calls that dead processes have "
        "left open: estimated, and not billable until staff decide. A background job does the same each minute."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--now",
            action="store_true",
            help="Don't wait: a process that has missed three beats is dead, and its calls need not be old.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        report = reap(at_once=options["now"])
        if report.replayed:
            self.stdout.write(f"{report.replayed} settlements were replayed from disk.")
        if report.waits_s:
            self.stdout.write(
                f"Too early to tell who is dead: ask again in {report.waits_s:.0f} seconds, or say --now."
            )
            return
        self.stdout.write(f"{report.reaped} calls of dead processes were closed.")
        if report.left:
            self.stdout.write(f"{report.left} were left: somebody has locked rows of their accounts.")
