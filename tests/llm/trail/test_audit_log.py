"""Every change of a watched row is in the audit log, whoever makes it and however, in the transaction of the change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import IntegrityError, connection, models, transaction
from django.test import Client, RequestFactory
from django.utils import timezone

from llm.enums import AuditAction, LimitMetric, LimitPer
from llm.keys import create_key, revoke_key
from llm.models import Account, AuditEntry, FailedSignIns, Limit, ModelRoute
from llm.signin import StaffBackend, prune_sign_in_counts
from llm.trail.actor import Actor, acting, set_actor
from llm.trail.events import MAX_ADDRESSES_COUNTED, MAX_FAILED_LISTED, OTHER_ADDRESSES, record_failed_sign_in
from llm.trail.watched import watched_tables
from tests.pages import form_on

pytestmark = pytest.mark.django_db


def entries(**conditions: Any) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(**conditions).order_by("id"))


def test_what_is_created_changed_and_deleted_is_logged_with_values() -> None:
    group = Group.objects.create(name="Auditors of Acme")
    group.name = "Auditors"
    Group.objects.filter(pk=group.pk).delete()
    account = Account.objects.create(name="Acme")
    Account.objects.filter(pk=account.pk).update(alert_email="a@example.com")
    account.name = "Acme Ltd"
    account.save(update_fields=["name"])

    logged = [
        (entry.action, entry.before and entry.before.get("name"), entry.after and entry.after.get("name"))
        for entry in entries(table_name__in=["auth_group", "llm_account"])
    ]
    assert logged == [
        ("created", None, "Auditors of Acme"),
        ("deleted", "Auditors of Acme", None),
        ("created", None, "Acme"),
        ("changed", None, None),
        ("changed", "Acme", "Acme Ltd"),
    ]
    [changed] = entries(table_name="llm_account", action="changed")[:1]
    assert (changed.before, changed.after) == ({"alert_email": ""}, {"alert_email": "a@example.com"})


def test_sql_by_hand_is_logged_too() -> None:
    account = Account.objects.create(name="Acme")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE llm_account SET name = 'Other' WHERE id = %s", [account.pk])

    [changed] = entries(table_name="llm_account", action="changed")
    assert (changed.row_id, changed.before, changed.after) == (str(account.pk), {"name": "Acme"}, {"name": "Other"})


def test_a_save_that_changes_nothing_is_no_entry() -> None:
    account = Account.objects.create(name="Acme")
    account.save()

    assert len(entries(table_name="llm_account")) == 1


def test_a_change_that_is_rolled_back_leaves_no_entry() -> None:
    with transaction.atomic():
        Account.objects.create(name="Acme")
        transaction.set_rollback(True)

    assert entries() == []


def test_secrets_are_never_in_it() -> None:
    account = Account.objects.create(name="Acme", webhook_secret="whsec_first")
    Account.objects.filter(pk=account.pk).update(webhook_secret="whsec_second")
    key, secret = create_key(account, name="app")
    revoke_key(key)
    user = User.objects.create_user("ada", password="a long secret phrase")
    user.set_password("another secret phrase")
    user.save()

    logged = json.dumps([[entry.before, entry.after] for entry in entries()])
    user.refresh_from_db()
    for text in ("whsec_", secret, user.password, bytes(key.digest).hex()):
        assert text not in logged
    [changed] = entries(table_name="llm_account", action="changed")
    assert (changed.before, changed.after) == ({"webhook_secret": "***"}, {"webhook_secret": "***"})
    [password] = entries(table_name="auth_user", action="changed")
    assert password.after == {"password": "***"}


def test_no_column_that_looks_like_a_secret_is_shown() -> None:
    """A new column with such a name, or of bytes, must be listed as secret."""
    from llm.admin.trail.describe import model_of

    shown = []
    for watched in watched_tables().values():
        model = model_of(watched.table)
        assert model is not None, watched.table
        columns = {field.column: field for field in model._meta.concrete_fields}
        assert watched.secret | watched.ignored <= columns.keys()
        shown += [
            f"{watched.table}.{name}"
            for name, field in columns.items()
            if name not in watched.secret
            and (
                isinstance(field, models.BinaryField)
                or any(word in str(name) for word in ("secret", "password", "digest"))
            )
        ]
    assert shown == []


@pytest.mark.parametrize("sql", ["UPDATE llm_auditentry SET actor = 'nobody'", "DELETE FROM llm_auditentry"])
def test_it_is_only_added_to(sql: str) -> None:
    Account.objects.create(name="Acme")

    with pytest.raises(IntegrityError, match="the audit log is never changed"), transaction.atomic():
        connection.cursor().execute(sql)

    assert len(entries(actor="")) == 1


def test_an_entry_says_who_it_was() -> None:
    with acting(Actor(7, "ada", "API token llmt_1234…abcd", "192.0.2.1")):
        Account.objects.create(name="Acme")
    Account.objects.create(name="Other")

    first, second = entries(table_name="llm_account")
    assert (first.user_id, first.actor, first.via, first.address) == (
        *(7, "ada"),
        *("API token llmt_1234…abcd", "192.0.2.1"),
    )
    assert (second.user_id, second.actor, second.via, second.address) == (None, "", "", "")


@pytest.mark.django_db(transaction=True)
def test_outside_of_a_transaction_an_entry_says_so_too() -> None:
    with acting(Actor(7, "ada")):
        account = Account.objects.create(name="Acme")
        Account.objects.filter(pk=account.pk).update(name="Other")

    assert [entry.actor for entry in entries(table_name="llm_account")] == ["ada", "ada"]


def test_a_page_and_a_command_say_who_it_was(admin_client: Client, admin_user: User) -> None:
    account = Account.objects.create(name="Acme")
    url = f"/admin/llm/account/{account.pk}/change/"
    admin_client.post(url, {**form_on(admin_client, url), "name": "Other"}, REMOTE_ADDR="192.0.2.1")

    [changed] = entries(table_name="llm_account", action="changed")
    assert (changed.user_id, changed.actor, changed.via) == (admin_user.pk, "admin", "admin")
    assert changed.address == "192.0.2.1"


def test_after_a_request_nobody_is_acting(admin_client: Client) -> None:
    admin_client.get("/admin/")
    Account.objects.create(name="Acme")

    assert [entry.actor for entry in entries(table_name="llm_account")] == [""]


def make_route() -> None:
    ModelRoute.objects.create(name="fast")


def make_limit() -> None:
    account = Account.objects.create(name="Acme")
    Limit.objects.create(account=account, metric=LimitMetric.REQUESTS, per=LimitPer.DAY, amount=5)


def grant() -> None:
    group = Group.objects.create(name="Some")
    group.permissions.add(Permission.objects.all()[0])
    User.objects.create_user("ada").groups.add(group)


@pytest.mark.parametrize(
    ("make", "tables"),
    [
        (make_route, ["llm_modelroute"]),
        (make_limit, ["llm_limit"]),
        (grant, ["auth_user_groups", "auth_group_permissions"]),
    ],
)
def test_rows_of_each_kind_are_logged(make: Callable[[], None], tables: list[str]) -> None:
    make()

    assert {table: len(entries(table_name=table, action="created")) for table in tables} == dict.fromkeys(tables, 1)


def test_each_watched_table_is_watched_by_the_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'"
            if connection.vendor == "sqlite"
            else "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal"
        )
        found = {table for table, name in cursor.fetchall() if "_audit_" in name and table != "llm_auditentry"}

    assert found == set(watched_tables())


# --- Events -----------------------------------------------------------------------------------------------------------


def test_sign_ins_are_logged_and_failures_name_only_users_that_exist() -> None:
    User.objects.create_superuser("ada", password="a long secret phrase")
    client = Client(REMOTE_ADDR="192.0.2.1")
    for name, password in (("ada", "wrong"), ("hunter2", "wrong"), ("ada", "a long secret phrase")):
        client.post("/admin/login/", {"username": name, "password": password})
    client.post("/admin/logout/")

    logged = [(entry.action, entry.actor, entry.address) for entry in entries(table_name="")]
    assert logged == [
        ("sign_in_failed", "ada", "192.0.2.1"),
        ("sign_in_failed", "", "192.0.2.1"),
        ("signed_in", "ada", "192.0.2.1"),
        ("signed_out", "ada", "192.0.2.1"),
    ]
    assert "hunter2" not in json.dumps([[each.detail, each.actor] for each in entries()])


def test_failures_beyond_twenty_a_minute_are_counted_by_address(time_machine: Any) -> None:
    time_machine.move_to("2026-11-30T12:00:10Z", tick=False)
    for number in range(MAX_FAILED_LISTED + 5):
        record_failed_sign_in("", actor=Actor(address="192.0.2.1" if number % 2 else "192.0.2.2"))
    assert len(entries(action=AuditAction.SIGN_IN_FAILED)) == MAX_FAILED_LISTED
    prune_sign_in_counts()
    assert len(entries(action=AuditAction.SIGN_IN_FAILED)) == MAX_FAILED_LISTED

    time_machine.move_to("2026-11-30T12:01:10Z", tick=False)
    prune_sign_in_counts()

    counted = entries(action=AuditAction.SIGN_IN_FAILED, occurrences__gt=1)
    assert {entry.address: entry.occurrences for entry in counted} == {"192.0.2.1": 2, "192.0.2.2": 3}
    assert FailedSignIns.objects.count() == 0


def test_addresses_without_end_are_counted_together() -> None:
    minute = timezone.now().replace(second=0, microsecond=0)
    FailedSignIns.objects.create(minute=minute, attempts=MAX_FAILED_LISTED)
    FailedSignIns.objects.bulk_create(
        FailedSignIns(minute=minute, address=f"a{number}", attempts=1) for number in range(MAX_ADDRESSES_COUNTED)
    )

    record_failed_sign_in("", actor=Actor(address="192.0.2.1"))
    record_failed_sign_in("", actor=Actor(address="192.0.2.1"))

    if timezone.now().replace(second=0, microsecond=0) == minute:
        assert FailedSignIns.objects.get(address=OTHER_ADDRESSES).attempts == 2
        assert not FailedSignIns.objects.filter(address="192.0.2.1").exists()


def test_a_command_s_attempts_are_not_sign_ins() -> None:
    StaffBackend().authenticate(None, username="ada", password="wrong")

    assert entries() == []


def test_downloads_are_logged_with_their_filters(admin_client: Client, admin_user: User) -> None:
    admin_client.get("/admin/llm/auditentry/csv/?days=7")

    [entry] = entries(action=AuditAction.DOWNLOADED)
    assert (entry.detail, entry.user_id) == ("/admin/llm/auditentry/csv/?days=7", admin_user.pk)


def test_an_actor_is_only_asked_for_when_it_is_needed(rf: RequestFactory) -> None:
    asked: list[int] = []

    def find() -> Actor:
        asked.append(1)
        return Actor(actor="ada")

    set_actor(find)
    try:
        list(Account.objects.all())
        assert asked == []
        Account.objects.create(name="Acme")
        assert asked
    finally:
        set_actor(None)
