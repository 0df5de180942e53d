"""`manage.py reset_second_factor`: for someone who has lost a phone, a passkey and the recovery codes."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from llm.signin import reset_second_factor


class Command(BaseCommand):
    help = "Deletes a user's second factor, so that the password alone signs them in and they can set up a new one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="the user's name")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user “{options['user']}”.")
        if not reset_second_factor(user):
            raise CommandError(f"{user} has no second factor.")
        self.stdout.write(f"{user} signs in with the password alone and can set up a new second factor.")
