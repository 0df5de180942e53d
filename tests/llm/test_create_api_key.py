"""`manage.py create_api_key`: one key, its secret alone on standard output, or a sentence and nothing written."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO

import pytest
import time_machine
from django.core.management import CommandError, call_command

from llm.enums import AccountStatus
from llm.keys import get_or_create_account, load_caller
from llm.models import Account, ApiKey

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@time_machine.travel(NOW, tick=False)
def run(*arguments: str) -> str:
    output = StringIO()
    call_command("create_api_key", *arguments, stdout=output)
    return output.getvalue()


def assert_refused(message: str, *arguments: str) -> None:
    """Nothing new may be left behind: no key, and no account that was to get it."""
    accounts = Account.objects.count()
    with pytest.raises(CommandError, match=message):
        run(*arguments)
    assert (Account.objects.count(), ApiKey.objects.count()) == (accounts, 0)


def test_the_secret_stands_alone_on_standard_output() -> None:
    output = run("acme")
    assert output.endswith("\n")
    assert output.count("\n") == 1
    caller = load_caller(output.strip())
    assert (caller.account_name, caller.key_name, caller.allowed_models) == ("acme", "default", frozenset())


def test_an_account_is_made_where_there_is_none() -> None:
    run("acme")
    account = Account.objects.get()
    assert (account.name, account.status, account.time_zone) == ("acme", AccountStatus.ACTIVE, "UTC")


def test_an_account_that_exists_gets_another_key() -> None:
    account = get_or_create_account("acme")
    secrets = {run("acme"), run("acme")}
    assert len(secrets) == 2
    assert [key.account for key in ApiKey.objects.all()] == [account, account]


def test_a_key_has_the_name_and_the_models_that_it_is_given() -> None:
    run("acme", "--name", "CI", "--model", "gpt-4o", "--model=o3")
    key = ApiKey.objects.get()
    assert (key.name, key.allowed_models, key.expires_at) == ("CI", ["gpt-4o", "o3"], None)


@pytest.mark.parametrize(
    ("zone", "expires_at"),
    [
        ("UTC", datetime(2026, 12, 2, tzinfo=UTC)),
        ("Asia/Kathmandu", datetime(2026, 12, 1, 18, 15, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 12, 2, 5, tzinfo=UTC)),
    ],
)
def test_a_key_works_to_the_end_of_its_last_day_where_the_account_is(zone: str, expires_at: datetime) -> None:
    Account.objects.create(name="acme", time_zone=zone)
    run("acme", "--expires", "2026-12-01")
    assert ApiKey.objects.get().expires_at == expires_at


def test_today_may_be_the_last_day() -> None:
    run("acme", "--expires", "2026-11-20")
    assert ApiKey.objects.get().expires_at == datetime(2026, 11, 21, tzinfo=UTC)


def test_a_day_in_the_past_is_refused() -> None:
    assert_refused("expires_at: The expiry must be in the future", "acme", "--expires", "2026-11-19")


@pytest.mark.parametrize("day", ["tomorrow", "2026-02-30", "01.12.2026", "2026-12-01T00:00Z", ""])
def test_what_is_no_day_is_refused(day: str) -> None:
    assert_refused("is not a date; write it as YYYY-MM-DD", "acme", "--expires", day)


def test_the_last_day_of_all_is_refused_in_a_sentence() -> None:
    assert_refused("--expires", "acme", "--expires", "9999-12-31")


def test_a_closed_account_is_refused() -> None:
    Account.objects.create(name="acme", status=AccountStatus.CLOSED)
    assert_refused("is closed", "acme")


@pytest.mark.parametrize("arguments", [("",), ("x" * 101,), ("acme", "--name", ""), ("acme", "--name", "x" * 101)])
def test_names_that_do_not_fit_are_refused(arguments: tuple[str, ...]) -> None:
    assert_refused("name: ", *arguments)


def test_an_account_must_be_named() -> None:
    assert_refused("required: account")
