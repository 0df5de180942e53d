"""`manage.py reap [--now]`: close the calls of gateway processes that died."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from llm.books.reaper import reap
from llm.money import plural


class Command(BaseCommand):
    help = (
        "Replays settlements that dead processes left on this host's disk, then closes the calls they left "
        "open, as estimated and not billable until staff decide. A background job does the same every "
        "minute."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--now",
            action="store_true",
            help="Don't wait: treat a process as dead after three missed heartbeats, however recent its calls are.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        report = reap(at_once=options["now"])
        if report.replayed:
            self.stdout.write(f"Replayed {plural(report.replayed, 'settlement')} from disk.")
        if report.waits_s:
            seconds = plural(round(report.waits_s), "second")
            self.stdout.write(f"Too early to tell which processes are dead: run this again in {seconds}, or use --now.")
            return
        self.stdout.write(f"Closed {plural(report.reaped, 'call')} of dead processes.")
        if report.left:
            self.stdout.write(f"Skipped {plural(report.left, 'call')} of accounts whose rows are locked.")
