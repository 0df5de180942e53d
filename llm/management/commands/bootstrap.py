"""`manage.py bootstrap`: everything a first start needs; running it again changes nothing."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import checks
from django.core.management import call_command
from django.core.management.base import BaseCommand, OutputWrapper
from django.db import connection, transaction
from django.db.models import Q

from llm.keys import create_key, get_or_create_account
from llm.management.invitation import base_url, curl_line
from llm.models import ApiKey, Price
from llm.prices.builtin import ensure_builtin_prices
from llmproject.startup import refuse_wrong_settings

ADMIN_NAME = "admin"
ACCOUNT_NAME = "demo"
PASSWORD_BYTES = 15
UNUSED_FILES = ["redoc", "*.map"]


class Command(BaseCommand):
    help = "Brings the database up to date, and creates the first staff user, a demo key and prices where missing."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        key = set_up(self.stdout)
        self.stdout.write(f"\nTry it:\n\n{curl_line(key)}\n")


def set_up(stdout: OutputWrapper) -> str:
    """All steps, announcing slow ones; returns the secret of the demo key if it is new."""
    refuse_wrong_settings()
    connection.ensure_connection()
    _say(stdout, "Preparing the database; the first time, this takes a minute.")
    call_command("migrate", interactive=False, verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0, ignore_patterns=UNUSED_FILES)
    if not Price.objects.exists():
        _say(stdout, "Importing prices; this takes about ten seconds.")
        call_command("import_prices", stdout=stdout)
    ensure_builtin_prices()
    # Printed before the commit: a crash may lose a printed secret, but never leave one that was not shown.
    with transaction.atomic():
        key = _create_demo_key()
        _say(stdout, _summary(password=_create_admin(), key=key))
    return key


def _say(stdout: OutputWrapper, text: str) -> None:
    stdout.write(text)
    stdout.flush()


def _create_admin() -> str:
    """The new user's password; empty if a superuser exists."""
    users = get_user_model().objects
    if users.filter(Q(is_superuser=True) | Q(username=ADMIN_NAME)).exists():
        return ""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    users.create_superuser(ADMIN_NAME, password=password)
    return password


def _create_demo_key() -> str:
    """The new key's secret; empty if any key exists."""
    if ApiKey.objects.exists():
        return ""
    _, secret = create_key(get_or_create_account(ACCOUNT_NAME), name="first start")
    return secret


def _summary(*, password: str, key: str) -> str:
    base = base_url()
    lines = [
        ("Admin", f"{base}/admin/"),
        ("User", f"{ADMIN_NAME}, password {password}" if password else "as before"),
        ("API key", key or f"as before; to create another: {_manage('create_api_key', ACCOUNT_NAME)}"),
        ("Provider", _describe_provider()),
        ("Invoices", _billing_advice()),
        ("API docs", f"{base}/docs/"),
    ]
    shown = "\n".join(f"  {name:<9} {value}" for name, value in lines if value)
    once = "\nThe password and the key are shown only once; store them now.\n" if password or key else ""
    return f"\nLLM Billing Gateway\n\n{shown}\n{once}"


def _describe_provider() -> str:
    model = settings.LLM_DEFAULT_MODEL
    default_model = f"default model {model}" if model else "no default model"
    if settings.LLM_PROVIDERS:
        named = ", ".join(f"{each.name} ({each.provider})" for each in settings.LLM_PROVIDERS)
        return f"{named}; default {settings.LLM_PROVIDER}, {default_model}"
    if os.environ.get("LLM_PROVIDER", "").strip():
        return f"{settings.LLM_PROVIDER}, {default_model}"
    return "LLM_PROVIDER is not set, so the built-in echo provider answers; set it in .env"


def _billing_advice() -> str:
    """What must be set before invoices can be issued, according to billing."""
    found = checks.run_checks(tags=["billing"], include_deployment_checks=True)
    return " ".join(f"{message.msg} {message.hint or ''}".strip() for message in found)


def _manage(*words: str) -> str:
    python = Path(sys.executable)
    if python.is_relative_to(settings.BASE_DIR):
        python = python.relative_to(settings.BASE_DIR)
    return " ".join([str(python), "manage.py", *words])
