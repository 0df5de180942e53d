"""`manage.py bootstrap`: everything a first start needs; a later one finds it done."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import transaction
from django.db.models import Q

from llm.keys import create_key, get_or_create_account
from llm.models import ApiKey, Price
from llmproject.startup import refuse_wrong_settings

ADMIN_NAME = "admin"
ACCOUNT_NAME = "demo"
PASSWORD_BYTES = 15
UNUSED_FILES = ["redoc", "*.map"]
EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104


class Command(BaseCommand):
    help = "Brings the database up to date, and creates the first staff user, a demo key and prices where missing."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_wrong_settings()
        call_command("migrate", interactive=False, verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0, ignore_patterns=UNUSED_FILES)
        if not Price.objects.exists():
            call_command("import_prices", stdout=self.stdout)
        # Printed before it is committed: what is printed may be lost by a crash, a secret that nobody saw never stays.
        with transaction.atomic():
            self.stdout.write(_summary(password=_create_admin(), key=_create_demo_key()))
            self.stdout.flush()


def _create_admin() -> str:
    """The new user's password; empty where there is a superuser already."""
    users = get_user_model().objects
    if users.filter(Q(is_superuser=True) | Q(username=ADMIN_NAME)).exists():
        return ""
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    users.create_superuser(ADMIN_NAME, password=password)
    return password


def _create_demo_key() -> str:
    """The new key's secret; empty where there is any key already."""
    if ApiKey.objects.exists():
        return ""
    _, secret = create_key(get_or_create_account(ACCOUNT_NAME), name="first start")
    return secret


def _summary(*, password: str, key: str) -> str:
    base = f"http://{_shown_host()}:{settings.WEB_PORT}"
    lines = [
        ("Admin", f"{base}/admin/"),
        ("User", f"{ADMIN_NAME}, password {password}" if password else "as before"),
        ("API key", key or f"as before; another one: {_manage('create_api_key', ACCOUNT_NAME)}"),
        ("Provider", _describe_provider()),
        ("API docs", f"{base}/docs/"),
    ]
    shown = "\n".join(f"  {name:<9} {value}" for name, value in lines)
    once = "\nThe password and the key are shown this once; note them down.\n" if password or key else ""
    return f"\nLLM Billing Gateway\n\n{shown}\n{once}\nTry it:\n\n{_curl(base, key)}\n"


def _shown_host() -> str:
    host = EVERY_INTERFACE.get(settings.WEB_HOST, settings.WEB_HOST)
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _describe_provider() -> str:
    if os.environ.get("LLM_PROVIDER", "").strip():
        model = settings.LLM_DEFAULT_MODEL
        return f"{settings.LLM_PROVIDER}, {f'default model {model}' if model else 'no default model'}"
    return "LLM_PROVIDER is not set, so the built-in echo provider answers; set it in .env"


def _curl(base: str, key: str) -> str:
    body = {
        "model": settings.LLM_DEFAULT_MODEL or "NAME-OF-A-MODEL",
        "messages": [{"role": "user", "content": "Hello"}],
    }
    return (
        f"curl {base}/v1/chat/completions -H 'Authorization: Bearer {key or 'YOUR-KEY'}' "
        f"-H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )


def _manage(*words: str) -> str:
    python = Path(sys.executable)
    if python.is_relative_to(settings.BASE_DIR):
        python = python.relative_to(settings.BASE_DIR)
    return " ".join([str(python), "manage.py", *words])
