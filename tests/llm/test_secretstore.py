"""Secrets in the database are encrypted, outlive a change of their key, and a lost key breaks nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.test import Client
from pytest_django import Settings

from llm.alerts.outbox import SendReport, send_due
from llm.alerts.webhooks import ensure_webhook_secret
from llm.enums import OutboxKind
from llm.models import Account, Outbox
from llm.secretstore import (
    LOST_KEY,
    NO_KEY,
    SecretUnavailable,
    can_seal,
    reseal,
    seal,
    seal_bytes,
    unseal,
    unseal_bytes,
)
from tests.llm.admin.factories import make_account, make_message
from tests.llm.payloads import THRESHOLD
from tests.llm.receivers import Receiver, running_receiver
from tests.pages import send

pytestmark = pytest.mark.django_db

SECRET = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
OLD, NEW = "the former key, long enough for what it encrypts", "the new key, long enough for what it encrypts"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


def stored() -> str:
    """As it stands in the database, past all of our code."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT webhook_secret FROM llm_account")
        return str(cursor.fetchone()[0])


def lose_the_key(settings: Settings) -> None:
    settings.LLM_SECRETS_KEY = "another key, and nobody has the former one any more"


def test_a_sealed_secret_is_unreadable_and_comes_back() -> None:
    sealed = seal(SECRET)

    assert "QUJD" not in sealed
    assert unseal(sealed) == SECRET
    assert seal(SECRET) != sealed


def test_the_longest_secret_has_room() -> None:
    longest = "whsec_" + "A" * 88

    account = Account(name="acme", webhook_secret=seal(longest))
    account.full_clean()
    account.save()

    assert unseal(stored()) == longest


def test_a_secret_that_is_made_stands_encrypted_in_the_database() -> None:
    secret = ensure_webhook_secret(make_account())

    assert secret.startswith("whsec_")
    assert secret.removeprefix("whsec_") not in stored()
    assert unseal(stored()) == secret


def test_a_former_key_decrypts_as_a_fallback(settings: Settings) -> None:
    settings.LLM_SECRETS_KEY = OLD
    sealed = seal(SECRET)

    settings.LLM_SECRETS_KEY, settings.LLM_SECRETS_KEY_FALLBACKS = NEW, [OLD]
    assert unseal(sealed) == SECRET
    resealed = reseal(sealed)
    assert reseal(resealed) == resealed

    settings.LLM_SECRETS_KEY_FALLBACKS = []
    assert unseal(resealed) == SECRET
    with pytest.raises(SecretUnavailable) as lost:
        unseal(sealed)
    assert str(lost.value) == LOST_KEY


def test_bytes_are_sealed_too_and_a_former_key_decrypts_them_as_a_fallback(settings: Settings) -> None:
    settings.LLM_SECRETS_KEY = OLD
    sealed = seal_bytes(b"a reply")
    assert b"reply" not in sealed
    settings.LLM_SECRETS_KEY, settings.LLM_SECRETS_KEY_FALLBACKS = NEW, [OLD]
    assert unseal_bytes(sealed) == b"a reply"
    settings.LLM_SECRETS_KEY_FALLBACKS = []
    for lost in (sealed, b"", sealed[:-1], b"\0" * 200):
        with pytest.raises(SecretUnavailable):
            unseal_bytes(lost)
    settings.LLM_SECRETS_KEY = ""
    with pytest.raises(SecretUnavailable):
        unseal_bytes(sealed)
    with pytest.raises(SecretUnavailable):
        seal_bytes(b"a reply")


def test_a_damaged_secret_is_lost() -> None:
    for damaged in ("fernet:", "fernet:x", seal(SECRET)[:-4]):
        with pytest.raises(SecretUnavailable, match="can't be decrypted"):
            unseal(damaged)


def test_without_a_key_nothing_is_stored(settings: Settings) -> None:
    settings.LLM_SECRETS_KEY = ""

    assert not can_seal()
    with pytest.raises(SecretUnavailable) as refused:
        seal(SECRET)
    assert str(refused.value) == NO_KEY


def test_reencrypting_moves_all_to_the_new_key(settings: Settings) -> None:
    settings.LLM_SECRETS_KEY = OLD
    make_account("old", webhook_secret=seal(SECRET))
    make_account("in clear", webhook_secret=SECRET)
    make_account("none")
    settings.LLM_SECRETS_KEY, settings.LLM_SECRETS_KEY_FALLBACKS = NEW, [OLD]
    make_account("new", webhook_secret=(newest := seal(SECRET)))

    out = StringIO()
    call_command("reencrypt_secrets", stdout=out)

    settings.LLM_SECRETS_KEY_FALLBACKS = []
    kept = dict(Account.objects.values_list("name", "webhook_secret"))
    assert out.getvalue() == "Secrets re-encrypted with LLM_SECRETS_KEY: 2.\n"
    assert {name: value and unseal(value) for name, value in kept.items()} == {
        "old": SECRET,
        "in clear": SECRET,
        "new": SECRET,
        "none": "",
    }
    assert kept["new"] == newest


def test_reencrypting_names_what_it_can_t_read_and_goes_on(settings: Settings) -> None:
    settings.LLM_SECRETS_KEY = OLD
    lost = make_account("lost", webhook_secret=seal(SECRET))
    make_account("in clear", webhook_secret=SECRET)
    lose_the_key(settings)

    out = StringIO()
    with pytest.raises(CommandError) as error:
        call_command("reencrypt_secrets", stdout=out)

    assert str(error.value) == f"The webhook secret of “lost” was left unchanged: {LOST_KEY}."
    assert out.getvalue() == "Secrets re-encrypted with LLM_SECRETS_KEY: 1.\n"
    before = lost.webhook_secret
    lost.refresh_from_db()
    assert lost.webhook_secret == before


@pytest.mark.parametrize(("is_lost", "reason"), [(True, LOST_KEY), (False, NO_KEY)])
def test_a_webhook_that_can_t_be_signed_waits_and_says_why(
    receiver: Receiver, settings: Settings, is_lost: bool, reason: str
) -> None:
    account = make_account(webhook_url=receiver.url, webhook_secret=seal(SECRET) if is_lost else "")
    message = make_message(account, kind=OutboxKind.WEBHOOK, payload=THRESHOLD)
    key = settings.LLM_SECRETS_KEY
    settings.LLM_SECRETS_KEY = OLD if is_lost else ""

    assert send_due() == SendReport(sent=0, unaddressed=0, failed=1, given_up=0)
    waiting = Outbox.objects.get(pk=message.pk)
    assert (waiting.last_result, waiting.sent_at, waiting.given_up_at) == (reason, None, None)
    assert receiver.received == []

    settings.LLM_SECRETS_KEY = key
    assert send_due(now=waiting.due_at) == SendReport(sent=1, unaddressed=0, failed=0, given_up=0)
    assert len(receiver.received) == 1


def test_the_page_says_that_the_key_is_lost_and_makes_a_new_secret(admin_client: Client, settings: Settings) -> None:
    account = make_account(webhook_secret=seal(SECRET))
    lose_the_key(settings)
    page, url = f"/admin/llm/account/{account.pk}/change/", f"/admin/llm/account/{account.pk}/webhook-secret/"

    for path in (page, url):
        text = admin_client.get(path).content.decode()
        assert "This secret can&#x27;t be decrypted with LLM_SECRETS_KEY or its fallbacks" in text
    answer = send(admin_client, url)

    secret = unseal(stored())
    assert secret in answer.content.decode()
    assert "decrypted" not in admin_client.get(page).content.decode()


def test_the_page_says_that_there_is_no_key_and_makes_no_secret(admin_client: Client, settings: Settings) -> None:
    account = make_account()
    settings.LLM_SECRETS_KEY = ""
    url = f"/admin/llm/account/{account.pk}/webhook-secret/"

    answer: Any = admin_client.get(url, follow=True)
    assert "LLM_SECRETS_KEY is not set" in answer.content.decode()
    assert admin_client.post(url, {"form_token": "x"}).status_code == 302
    assert stored() == ""
    assert admin_client.get("/admin/llm/account/").status_code == 200


def encrypt_existing() -> None:
    """What the migration does, on the rows as they are."""
    loader = MigrationLoader(connection, ignore_no_migrations=True)
    (migration,) = [each for (_, name), each in loader.disk_migrations.items() if "encrypt_webhook_secrets" in name]
    (operation,) = migration.operations
    operation.code(apps, SimpleNamespace(connection=connection))  # type: ignore[attr-defined]


def test_the_upgrade_encrypts_what_stands_in_clear_once() -> None:
    make_account(webhook_secret=SECRET)

    encrypt_existing()
    encrypted = stored()
    encrypt_existing()

    assert "QUJD" not in encrypted
    assert unseal(encrypted) == SECRET
    assert stored() == encrypted


def test_the_upgrade_stops_without_a_key_only_where_there_is_something_to_encrypt(settings: Settings) -> None:
    settings.LLM_SECRETS_KEY = ""
    account = make_account()
    encrypt_existing()

    Account.objects.filter(pk=account.pk).update(webhook_secret=SECRET)
    with pytest.raises(CommandError, match="LLM_SECRETS_KEY is not set, and webhook secrets wait to be encrypted"):
        encrypt_existing()
    assert stored() == SECRET


def test_no_table_holds_a_secret_that_can_be_read() -> None:
    """Whoever adds a column that sounds like one has to say here why it may stand as it does."""
    why_not = {
        ("llm_account", "webhook_secret"): "encrypted",
        ("auth_user", "password"): "a slow hash",
        ("authtoken_token", "key"): "of before the upgrade; works for 30 days after it",
        ("django_session", "session_key"): "as the session engine has it",
        ("account_emailconfirmation", "key"): "never written: nothing here confirms an address",
        ("billing_invoiceline", "key"): "what the line is about",
        (
            "llm_enduserkey",
            "key",
        ): "opens nothing: it tells which end users are the same, and goes when they are forgotten",
        ("socialaccount_socialapp", "secret"): "never written: the identity provider's is in the environment",
        ("socialaccount_socialapp", "key"): "the same",
        ("socialaccount_socialtoken", "token"): "never written: a session has its own, encrypted",
        ("socialaccount_socialtoken", "token_secret"): "the same",
        ("llm_opencall", "credential"): "a keyed hash: it tells which key of the provider's was used",
        ("llm_usage", "credential"): "the same",
        ("llm_usedform", "token"): "of a form that was sent, and works no more",
    }
    sounds_secret = re.compile(r"secret|password|token$|credential|private|^key$|^session_key$")

    found = {
        (model._meta.db_table, field.column)
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.local_concrete_fields
        if sounds_secret.search(field.column or "")
    }

    assert found - set(why_not) == set()
