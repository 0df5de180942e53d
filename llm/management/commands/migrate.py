"""`manage.py migrate`, as the owner of the database if that is another role."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate

from llmproject.owner import as_owner


class Command(migrate.Command):
    """Triggers belong to the owner of the tables, and no other role can disable them."""

    def handle(self, *args: Any, **options: Any) -> None:
        with as_owner():
            super().handle(*args, **options)
