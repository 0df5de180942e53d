"""`manage.py blank_upstream_keys [--old-keys]`: blank what an upstream has put of our own keys into closed rows."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from llm.providers.registry import configured_secrets
from llm.redacting import blank_upstream_keys


class Command(BaseCommand):
    help = (
        "Blanks error codes and reported model names that hold an upstream key of ours, and records each row. "
        "Upgrading does it once for the keys that are configured; run it for keys that have been replaced since."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--old-keys", action="store_true", help="Read further keys from standard input, one a line."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        old_keys = [line.strip() for line in sys.stdin] if options["old_keys"] else []
        blanked = blank_upstream_keys([*configured_secrets(), *old_keys])
        self.stdout.write(f"{blanked} values were blanked.")
