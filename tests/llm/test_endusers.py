"""End users: a keyed hash on the books, a name beside them that can be deleted."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from llm.endusers import hash_end_user
from llm.models import Account, EndUser, EndUserKey, Usage
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db

KEY = bytes(range(32))
ALICE = "alice@example.org"


@pytest.fixture
def acme() -> Account:
    account = make_account()
    EndUserKey.objects.create(account=account, key=KEY)
    return account


def name_of(account: Account, name: str) -> EndUser:
    return EndUser.objects.create(account=account, end_user=hash_end_user(name, KEY), name=name)


def forget(*arguments: str) -> str:
    out = StringIO()
    call_command("forget_end_user", *arguments, stdout=out)
    return out.getvalue()


def test_a_hash_has_32_digits_and_never_changes(settings: Settings) -> None:
    settings.LLM_KEY_PEPPER = "pepper"
    assert hash_end_user(ALICE, KEY) == "e417d3f86a2e7faf5868dda9ce98b786"


def test_a_hash_depends_on_name_key_and_pepper(settings: Settings) -> None:
    hashes = {hash_end_user(ALICE, KEY), hash_end_user(ALICE.upper(), KEY), hash_end_user(ALICE, KEY[::-1])}
    settings.LLM_KEY_PEPPER = "another"
    assert len(hashes | {hash_end_user(ALICE, KEY)}) == 4


def test_forgetting_a_name_leaves_others_and_the_books(acme: Account) -> None:
    alice, bob = name_of(acme, ALICE), name_of(acme, "bob")
    [row] = save(usage_row(make_key(acme), end_user=alice.end_user))
    assert forget("Acme", ALICE) == "Names deleted: 1.\n"
    assert list(EndUser.objects.all()) == [bob]
    stored = Usage.objects.get()
    assert (stored.end_user, stored.digest, stored.is_as_written) == (alice.end_user, row.digest, True)
    assert EndUserKey.objects.filter(account=acme).exists()


def test_an_end_user_is_forgotten_by_hash_too(acme: Account) -> None:
    alice = name_of(acme, ALICE)
    assert forget("Acme", "--hash", alice.end_user.upper()) == "Names deleted: 1.\n"
    assert not EndUser.objects.exists()


def test_all_end_users_of_one_account_are_forgotten_with_their_key(acme: Account) -> None:
    name_of(acme, ALICE)
    name_of(acme, "bob")
    other = make_account("Other")
    EndUserKey.objects.create(account=other, key=KEY)
    kept = name_of(other, ALICE)
    assert forget("Acme", "--all") == "Names deleted: 2.\n"
    assert list(EndUser.objects.all()) == [kept]
    assert list(EndUserKey.objects.values_list("account", flat=True)) == [other.pk]
    assert forget("Acme", "--all") == "Names deleted: 0.\n"


@pytest.mark.parametrize("arguments", [("Acme", "carol"), ("Acme", "--hash", "0" * 32)])
def test_who_is_unknown_is_said_to_be(acme: Account, arguments: tuple[str, ...]) -> None:
    name_of(acme, ALICE)
    with pytest.raises(CommandError, match="has no such end user, or the name was already deleted"):
        forget(*arguments)
    assert EndUser.objects.count() == 1


def test_an_account_without_end_users_has_none_to_forget() -> None:
    make_account()
    with pytest.raises(CommandError, match="has no such end user"):
        forget("Acme", ALICE)
    with pytest.raises(CommandError, match="There is no account “Nobody”"):
        forget("Nobody", ALICE)
