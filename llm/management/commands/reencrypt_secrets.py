"""`manage.py reencrypt_secrets`: after changing LLM_SECRETS_KEY, so that the fallbacks can be removed."""

from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from llm.models import Account
from llm.secretstore import SecretUnavailable, reseal

_SECRETS = ("secret", "seed")
"""Of an authenticator app, and of recovery codes."""


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
        for factor in Authenticator.objects.order_by("pk"):
            try:
                changed += _reencrypt_factor(factor)
            except SecretUnavailable as error:
                problems.append(f"The second factor of “{factor.user}” was left unchanged: {error}.")
        self.stdout.write(f"Secrets re-encrypted with LLM_SECRETS_KEY: {changed}.")
        if problems:
            raise CommandError("\n".join(problems))


@transaction.atomic
def _reencrypt_factor(factor: Authenticator) -> int:
    stored = Authenticator.objects.select_for_update().filter(pk=factor.pk).first()
    texts = {name: stored.data[name] for name in _SECRETS if name in stored.data} if stored else {}
    sealed = {name: reseal(text) for name, text in texts.items()}
    if sealed == texts:
        return 0
    stored.data.update(sealed)
    stored.save(update_fields=["data"])
    return 1


def _reencrypt(account: Account) -> int:
    stored = account.webhook_secret
    if (sealed := reseal(stored)) == stored:
        return 0
    # Only if it is still the one that was read: it may have been replaced at this moment.
    return Account.objects.filter(pk=account.pk, webhook_secret=stored).update(webhook_secret=sealed)
