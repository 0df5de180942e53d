"""A database and a Django of a run's own: nothing of the machine's configuration reaches it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.faults.postgres import Database


@contextlib.contextmanager
def scratch_database(server_url: str, folder: Path) -> Iterator[Database | None]:
    """None for SQLite. Either way DATABASE_URL names an empty database when the block starts."""
    if not server_url:
        os.environ["DATABASE_URL"] = f"sqlite:///{folder / 'db.sqlite3'}"
        yield None
        return
    database = Database(server_url, f"llm_faults_{os.getpid()}")
    database.create()
    os.environ["DATABASE_URL"] = database.url
    try:
        yield database
    finally:
        database.drop()


def set_up_django(folder: Path) -> None:
    """With an up-to-date schema in the database that DATABASE_URL names."""
    for name in [name for name in os.environ if name.startswith(("OPENAI_", "ANTHROPIC_", "LLM_", "WEB_"))]:
        del os.environ[name]
    os.environ["DJANGO_SETTINGS_MODULE"] = "llmproject.settings"
    os.environ["LLM_ENV_FILE"] = ""
    os.environ["VAR_DIR"] = str(folder / "var")
    os.environ["SECRET_KEY"] = "a secret of the campaign, long enough for what it is asked to protect"
    os.environ["LLM_KEY_PEPPER"] = "a pepper of the campaign"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
