"""A fixture with calls in it is refused: its rows would no longer prove what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from llm.models import Account, Usage
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db


def dumped(tmp_path: Path, *labels: str) -> Path:
    target = tmp_path / "dump.json"
    call_command("dumpdata", *labels, output=str(target), verbosity=0)
    return target


def test_calls_are_not_loaded_and_nothing_else_of_the_file_is(tmp_path: Path) -> None:
    account = make_account("Before")
    save(usage_row(make_key(account)))
    file = dumped(tmp_path, "llm.account", "llm.usage")
    Account.objects.update(name="After")

    with pytest.raises(CommandError, match=r"llm\.Usage is a table of the books.*nothing was loaded"):
        call_command("loaddata", str(file), verbosity=0)

    assert Account.objects.get().name == "After"
    assert Usage.objects.count() == 1


def test_other_tables_are_loaded_as_ever(tmp_path: Path) -> None:
    make_account("Before")
    file = dumped(tmp_path, "llm.account")
    Account.objects.update(name="After")
    call_command("loaddata", str(file), verbosity=0)
    assert Account.objects.get().name == "Before"
