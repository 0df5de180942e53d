"""Encrypts the webhook secrets that stand in clear, under LLM_SECRETS_KEY."""

from django.core.management import CommandError
from django.db import migrations

from llm.secretstore import MARK, can_seal, seal, unseal


def encrypt(apps, schema_editor):
    accounts = apps.get_model("llm", "Account").objects.using(schema_editor.connection.alias)
    clear = accounts.exclude(webhook_secret="").exclude(webhook_secret__startswith=MARK)
    if not clear.exists():
        return
    if not can_seal():
        raise CommandError(
            f"LLM_SECRETS_KEY is not set, and webhook secrets wait to be encrypted under it: {clear.count()}. "
            "Put a long random text into .env (python -m llmproject.envfile adds one), back it up, and migrate again."
        )
    for pk, secret in list(clear.values_list("pk", "webhook_secret")):
        accounts.filter(pk=pk, webhook_secret=secret).update(webhook_secret=seal(secret))


def decrypt(apps, schema_editor):
    accounts = apps.get_model("llm", "Account").objects.using(schema_editor.connection.alias)
    for pk, stored in list(accounts.filter(webhook_secret__startswith=MARK).values_list("pk", "webhook_secret")):
        accounts.filter(pk=pk, webhook_secret=stored).update(webhook_secret=unseal(stored))


class Migration(migrations.Migration):
    dependencies = [("llm", "0005_webhook_secret_room")]

    operations = [migrations.RunPython(encrypt, decrypt)]
