"""`manage.py migrate`, by the owner of the database where that is another than who uses it."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate

from llmproject.owner import as_owner


class Command(migrate.Command):
    """Triggers are made by who owns the tables, and nobody else can switch them off."""

    def handle(self, *args: Any, **options: Any) -> None:
        with as_owner():
            super().handle(*args, **options)
