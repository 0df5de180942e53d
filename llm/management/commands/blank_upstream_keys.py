"""`manage.py blank_upstream_keys [--old-keys]`: blank our own keys where an upstream put them into closed rows."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import ProgrammingError

from llm.books.blanking import blank_upstream_keys
from llm.money import plural
from llm.providers.registry import configured_secrets
from llmproject.owner import as_owner

_NOT_THE_OWNER = "42501"


class Command(BaseCommand):
    help = (
        "Blanks error codes and reported model names that contain one of our upstream keys, and records "
        "each row. Upgrading does this once for the configured keys; run it for keys that have been "
        "replaced since."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--old-keys", action="store_true", help="Read additional keys from standard input, one per line."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        old_keys = [line.strip() for line in sys.stdin] if options["old_keys"] else []
        try:
            # It lifts the trigger that protects closed rows, which only the owner of the table may do.
            with as_owner():
                blanked = blank_upstream_keys([*configured_secrets(), *old_keys])
        except ProgrammingError as error:
            if getattr(error.__cause__, "sqlstate", "") != _NOT_THE_OWNER:
                raise
            raise CommandError(
                "There are values to blank, but only the owner of the tables may do that; nothing was changed. Set "
                "DATABASE_OWNER_URL for this command."
            ) from error
        self.stdout.write(f"Blanked {plural(blanked, 'value')}.")
