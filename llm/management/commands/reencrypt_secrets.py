"""`manage.py reencrypt_secrets`: after changing LLM_SECRETS_KEY, so that the fallbacks can be removed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llm.models import Account
from llm.secretstore import SecretUnavailable, reseal


class Command(BaseCommand):
    help = (
        "Re-encrypts with LLM_SECRETS_KEY the stored secrets that are encrypted with one of its fallbacks, "
        "or not at all."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        changed, problems = 0, []
        for account in Account.objects.exclude(webhook_secret="").order_by("pk"):
            try:
                changed += _reencrypt(account)
            except SecretUnavailable as error:
                problems.append(f"The webhook secret of “{account}” was left unchanged: {error}.")
        self.stdout.write(f"Secrets re-encrypted with LLM_SECRETS_KEY: {changed}.")
        if problems:
            raise CommandError("\n".join(problems))


def _reencrypt(account: Account) -> int:
    stored = account.webhook_secret
    if (sealed := reseal(stored)) == stored:
        return 0
    # Only if it is still the one that was read: it may have been replaced at this moment.
    return Account.objects.filter(pk=account.pk, webhook_secret=stored).update(webhook_secret=sealed)
