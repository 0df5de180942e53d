"""`manage.py create_api_token USERNAME [--replace | --revoke]`: a staff user's token for the management API."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from rest_framework.authtoken.models import Token


class Command(BaseCommand):
    help = (
        "Prints a new token for the management API, on stdout alone. It may do what its user may: give the user staff"
        " status and permissions in the admin. A user has one token at a time."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--replace", action="store_true", help="refuse the user's old token from now on")
        what.add_argument("--revoke", action="store_true", help="take the token away and make no other")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        user = _user(options["username"])
        tokens = Token.objects.select_for_update().filter(user=user)
        if options["revoke"]:
            self._revoke(user, tokens.delete()[0])
            return
        if not (user.is_active and user.is_staff):
            raise CommandError(f"{user} is no active staff user: the management API would refuse the token.")
        if options["replace"]:
            tokens.delete()
        elif tokens.exists():
            raise CommandError(f"{user} has a token already. Use --replace for a new one in its place.")
        self.stdout.write(Token.objects.create(user=user).key)

    def _revoke(self, user: User, revoked: int) -> None:
        if not revoked:
            raise CommandError(f"{user} has no token.")
        self.stderr.write(f"The token of {user} is refused from now on.")


def _user(name: str) -> User:
    user = User.objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no user “{name}”. Make one with createsuperuser, or in the admin.")
    return user
