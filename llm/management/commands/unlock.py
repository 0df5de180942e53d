"""`manage.py unlock`: delete failed sign-in attempts, so that users may try again at once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llm.signin import unlock
from llmproject.clientaddress import UNKNOWN, client_address


class Command(BaseCommand):
    help = "Lets users sign in again after too many wrong passwords: all of them, or those named."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--address", default="", help="from this address")
        parser.add_argument("--user", default="", help="as this user, from any address")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["address"] and client_address(options["address"], "", ()) == UNKNOWN:
            raise CommandError(f"“{options['address']}” is not an IP address.")
        forgotten = unlock(address=options["address"], user=options["user"])
        self.stdout.write(f"Cleared counters of failed attempts: {forgotten}.")
