"""`manage.py create_api_key ACCOUNT [--name NAME] [--expires YYYY-MM-DD]`: a new key; only its secret is on stdout."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from llm.keys import create_key, get_or_create_account
from llm.models import Account


class Command(BaseCommand):
    help = "Creates an API key for an account, and the account itself if it doesn't exist. Prints the secret once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("account", help="the account's name")
        parser.add_argument("--name", default="default", help="what the key is for (default: %(default)s)")
        parser.add_argument("--expires", type=_day, metavar="YYYY-MM-DD", help="the last day on which the key works")
        parser.add_argument(
            "--model", action="append", default=[], help="a model it may call; may be repeated. Default: all"
        )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            account = get_or_create_account(options["account"])
            _, secret = create_key(
                account,
                name=options["name"],
                expires_at=_end_of_day(options["expires"], account),
                allowed_models=options["model"],
            )
        except ValidationError as error:
            raise CommandError(_sentences(error)) from error
        self.stdout.write(secret)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"“{text}” is not a date; write it as YYYY-MM-DD") from error


def _end_of_day(day: date | None, account: Account) -> datetime | None:
    """The first moment after that day in the account's time zone."""
    if day is None:
        return None
    try:
        return datetime.combine(day + timedelta(days=1), time(), ZoneInfo(account.time_zone)).astimezone(UTC)
    except OverflowError as error:
        raise CommandError(
            f"--expires {day} is too far in the future; omit it for a key that never expires."
        ) from error


def _sentences(error: ValidationError) -> str:
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(f"{field}: {message}" for field, messages in error.message_dict.items() for message in messages)
