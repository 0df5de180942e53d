"""`manage.py forget_end_user ACCOUNT (NAME
--hash HASH
--all)`: delete readable names, nothing on the books.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llm.endusers import Forgotten, forget_all, forget_hash, forget_name
from llm.models import Account


class Command(BaseCommand):
    help = (
        "Deletes the readable name of an end user. The account's calls keep a hash, from which the name "
        "can't be read; --all deletes the key of these hashes too, so that no name can be tested against "
        "them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("account", help="the account's name")
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("name", nargs="?", help="the end user's name, exactly as the caller gave it")
        which.add_argument("--hash", metavar="HASH", help="the end user's hash, as the calls show it")
        which.add_argument(
            "--all", action="store_true", help="all end users of the account, and the key of their hashes"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        account = Account.objects.filter(name=options["account"]).first()
        if account is None:
            raise CommandError(f"There is no account “{options['account']}”.")
        forgotten = _forget(account, options)
        if not any(forgotten) and not options["all"]:
            raise CommandError(f"The account “{account}” has no such end user, or the name was already deleted.")
        replies = f" Kept replies deleted: {forgotten.replies:,}." if forgotten.replies else ""
        self.stdout.write(f"Names deleted: {forgotten.names:,}.{replies}")


def _forget(account: Account, options: dict[str, Any]) -> Forgotten:
    if options["all"]:
        return forget_all(account)
    if options["hash"] is not None:
        return forget_hash(account, options["hash"].lower())
    return forget_name(account, options["name"])
