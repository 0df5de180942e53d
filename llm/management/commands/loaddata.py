"""`manage.py loaddata`, but for the books: a fixture cuts moments to milliseconds, and with them every row's proof."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands.loaddata import Command as DjangoCommand

from llm.models.digested import Digested


class Command(DjangoCommand):
    def save_obj(self, obj: Any) -> bool:
        if isinstance(obj.object, Digested):
            name = obj.object._meta.label
            raise CommandError(
                f"{name} is a table of the books, whose digests don't survive dumpdata and loaddata; "
                "nothing was loaded. See docs/operations.md, “Moving from SQLite to PostgreSQL”."
            )
        return super().save_obj(obj)
