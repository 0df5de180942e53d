"""The database as its owner: for migrations, and anything else that changes tables rather than rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from django.conf import settings
from django.db import connection


@contextmanager
def as_owner() -> Iterator[None]:
    """Until the end of the block Django connects as in DATABASE_OWNER_URL, if that is set."""
    owner: Mapping[str, str] = settings.LLM_DATABASE_OWNER
    former = {name: connection.settings_dict[name] for name in owner}
    if owner:
        connection.close()
        connection.settings_dict.update(owner)
    try:
        yield
    finally:
        if owner:
            connection.close()
            connection.settings_dict.update(former)
