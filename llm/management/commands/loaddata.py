"""`manage.py loaddata`, except for the books and invoices: a fixture truncates moments to milliseconds, which breaks
their digests.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands.loaddata import Command as DjangoCommand

from llmproject.owner import as_owner


class Command(DjangoCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        # Afterwards Django sets the tables' sequences, which only the owner may do.
        with as_owner():
            super().handle(*args, **options)

    def save_obj(self, obj: Any) -> bool:
        if getattr(obj.object, "is_proven", False):
            name = obj.object._meta.label
            raise CommandError(
                f"{name} is a table of the books, whose digests don't survive dumpdata and loaddata; nothing was "
                "loaded. See docs/operations.md, “Moving from SQLite to PostgreSQL”."
            )
        return super().save_obj(obj)
