"""`manage.py create_api_token USERNAME`: create, replace or revoke a staff user's token for the management API."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from rest_framework.authtoken.models import Token

from billing.enums import TokenScope
from billing.models import StaffToken
from billing.staff.tokens import DEFAULT_DAYS, MAX_DAYS, create_token, revoke_token


class Command(BaseCommand):
    help = (
        "Creates a token for the management API and prints it once, to stdout only. It may do what both "
        "its scopes and its user's permissions allow: give the user staff status and permissions in the "
        "admin."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument(
            "--name", default="", help="a name that says what it is for, unique among the user's tokens"
        )
        parser.add_argument(
            "--scope",
            action="append",
            choices=TokenScope.values,
            help="what it may do; may be given several times. Default: read",
        )
        parser.add_argument(
            "--days",
            type=int,
            default=DEFAULT_DAYS,
            help=f"days until the token expires, at most {MAX_DAYS}. Default: {DEFAULT_DAYS}",
        )
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--replace", action="store_true", help="revoke the token of that name and create a new one")
        what.add_argument(
            "--revoke", action="store_true", help="revoke the token of that name, or without --name all of the user's"
        )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.select_for_update().filter(username=options["username"]).first()
        if user is None:
            raise CommandError(
                f"There is no user “{options['username']}”. Create one with createsuperuser, or in the admin."
            )
        name = options["name"] or "management API"
        if options["revoke"]:
            self._revoke(user, _usable(user, options["name"]), plain_too=not options["name"])
            return
        if options["replace"]:
            _revoke_all(_usable(user, name))
            Token.objects.filter(user=user).delete()
        elif _usable(user, name).exists():
            raise CommandError(
                f"{user} has a token “{name}” already. Use --replace for a new one in its place, or another --name."
            )
        self.stdout.write(_create(user, name, options["scope"] or [TokenScope.READ], options["days"]))

    def _revoke(self, user: User, tokens: QuerySet[StaffToken], *, plain_too: bool) -> None:
        revoked = _revoke_all(tokens)
        if plain_too:
            revoked += Token.objects.filter(user=user).delete()[0]
        if not revoked:
            raise CommandError(f"{user} has no such token.")
        self.stderr.write(f"Tokens of {user} revoked: {revoked}.")


def _usable(user: User, name: str) -> QuerySet[StaffToken]:
    """Tokens of that name that aren't revoked; all of them if it is empty."""
    tokens = StaffToken.objects.filter(user=user, revoked_at=None, expires_at__gt=timezone.now())
    return tokens.filter(name=name) if name else tokens


def _revoke_all(tokens: Iterable[StaffToken]) -> int:
    return sum(revoke_token(token) for token in tokens)


def _create(user: User, name: str, scopes: list[str], days: int) -> str:
    try:
        return create_token(user, name=name, scopes=[TokenScope(scope) for scope in scopes], days=days)[1]
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from error
