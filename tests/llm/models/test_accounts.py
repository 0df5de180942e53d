"""Accounts and keys: what they can be, and that they can't be taken out of the books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models import ProtectedError

from llm.enums import AccountStatus
from llm.keys import create_key, rotate_key
from llm.models import Account, ApiKey, Usage
from tests.llm.admin.factories import make_account, make_key, save, usage_row

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MOMENTS = (None, NOW - timedelta(seconds=1), NOW, NOW + timedelta(seconds=1))


@pytest.mark.parametrize("column", ["name", "status"])
def test_an_account_without_a_name_or_a_known_status_is_refused_by_the_database(column: str) -> None:
    account = make_account()
    value = "" if column == "name" else "deleted"
    with pytest.raises(IntegrityError), transaction.atomic():
        Account.objects.create(**{"name": "Other", column: value})
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE llm_account SET {column} = %s", [value])  # noqa: S608
    account.refresh_from_db()
    assert Account.objects.get() == account
    assert (account.name, account.status) == ("Acme", AccountStatus.ACTIVE)


def test_two_accounts_never_share_a_name() -> None:
    make_account("Acme")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_account("Acme")
    assert Account.objects.count() == 1


@pytest.mark.parametrize("zone", ["UTC", "Europe/Lisbon", "Asia/Kathmandu"])
def test_a_time_zone_is_one_of_the_iana_database(zone: str) -> None:
    Account(name="Acme", time_zone=zone).full_clean()


@pytest.mark.parametrize("zone", ["", "Lisbon", "+01:00", "../../etc/passwd", "/etc/localtime", "a\x00b"])
def test_any_other_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Account(name="Acme", time_zone=zone).full_clean()
    assert list(refusal.value.message_dict) == ["time_zone"]


@pytest.mark.parametrize("revoked_at", MOMENTS)
@pytest.mark.parametrize("expires_at", MOMENTS)
def test_the_database_and_the_model_agree_on_what_is_usable(
    revoked_at: datetime | None, expires_at: datetime | None
) -> None:
    key = make_key(make_account())
    key.revoked_at, key.expires_at = revoked_at, expires_at
    key.save()
    is_revoked = revoked_at is not None and revoked_at <= NOW
    is_expired = expires_at is not None and expires_at <= NOW
    refusal = "revoked" if is_revoked else "expired" if is_expired else None
    assert key.refusal_at(NOW) == refusal
    assert ApiKey.objects.usable_at(NOW).exists() is (refusal is None)


def test_people_recognise_a_key_without_learning_it() -> None:
    key, secret = create_key(make_account(), name="production")
    assert str(key) == f"production ({secret[:12]}…{secret[-4:]})"
    assert key.is_usable


def refuses_deletion(record: Any) -> bool:
    try:
        record.delete()
    except ProtectedError:
        return True
    return False


def test_what_stands_in_the_books_is_never_deleted() -> None:
    key = make_key(make_account())
    save(usage_row(key))
    assert refuses_deletion(key)
    assert refuses_deletion(key.account)
    assert (Account.objects.count(), ApiKey.objects.count(), Usage.objects.count()) == (1, 1, 1)


def test_a_key_outlives_its_rotation() -> None:
    key = make_key(make_account())
    successor, _ = rotate_key(key)
    assert refuses_deletion(key)
    assert set(ApiKey.objects.all()) == {key, successor}
