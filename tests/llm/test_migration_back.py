"""Going back behind a migration that rows of today forbid: one sentence says why."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management.base import CommandError
from django.db import connection
from django.db.migrations import RunPython

from llm.enums import Dialect
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db

migration = import_module("llm.migrations.0015_completions")


def go_back() -> None:
    """The first thing that happens then: operations are reversed from the last."""
    operation = next(each for each in reversed(migration.Migration.operations) if isinstance(each, RunPython))
    reverse: Any = operation.reverse_code
    reverse(apps, SimpleNamespace(connection=connection))


def test_calls_of_completions_keep_their_word() -> None:
    save(usage_row(make_key(make_account()), dialect=Dialect.OPENAI_COMPLETIONS))
    with pytest.raises(CommandError, match=r"^llm.0015_completions can't be reversed: the books hold calls to"):
        go_back()


def test_without_such_calls_nothing_is_in_the_way() -> None:
    save(usage_row(make_key(make_account())))
    go_back()
