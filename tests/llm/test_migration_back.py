"""Going back behind a migration that rows of today forbid: one sentence says why."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from llm.enums import Dialect
from tests.llm.admin.factories import make_account, make_key, save, usage_row


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_calls_of_completions_keep_their_word() -> None:
    save(usage_row(make_key(make_account()), dialect=Dialect.OPENAI_COMPLETIONS))
    try:
        with pytest.raises(CommandError, match=r"^llm.0015_completions can't be reversed: the books hold calls to"):
            call_command("migrate", "llm", "0014", verbosity=0)

        assert ("llm", "0015_completions") in MigrationRecorder(connection).applied_migrations()
    finally:
        call_command("migrate", "llm", verbosity=0)


@pytest.mark.django_db
def test_without_such_calls_nothing_is_in_the_way() -> None:
    save(usage_row(make_key(make_account())))
    migration = import_module("llm.migrations.0015_completions")

    migration.refuse_with_rows(apps, SimpleNamespace(connection=connection))
