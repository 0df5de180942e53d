"""`manage.py set_limit ACCOUNT
KEY_PREFIX METRIC PER AMOUNT`: what an account or a key may use; `none` removes it.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from llm.enums import LimitMetric, LimitPer
from llm.limits.amounts import describe_limit, parse_amount
from llm.limits.changes import archive_limit, limit_in_force, lock_limits, set_limit
from llm.models import Account, ApiKey, Limit

NONE = "none"
MAX_NAMED = 5
PREFIX_LENGTH = 12
"""How much of a key is stored."""


class Command(BaseCommand):
    help = (
        "Sets or changes a limit on the requests, tokens or cost (USD) of an account or one of its keys. "
        "The amount “none” ends the limit. Takes effect with the next call; earlier usage is not counted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("owner", metavar="ACCOUNT|KEY_PREFIX", help="An account's name, or a key's prefix.")
        parser.add_argument("metric", choices=LimitMetric.values)
        parser.add_argument(
            "per", choices=LimitPer.values, help="Days and months are those of the account's time zone."
        )
        parser.add_argument("amount", help="E.g. 60, 1,000,000 or, for cost, 12.50; none ends the limit.")
        parser.add_argument(
            "--each-end-user",
            action="store_true",
            help="Not one limit for all, but one for each end user that requests name.",
        )
        parser.add_argument(
            "--soft", metavar="PERCENT", help="Alert the account at this percentage; none: never. Default: unchanged."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        account, api_key = _owner(options["owner"])
        metric, per = LimitMetric(options["metric"]), LimitPer(options["per"])
        try:
            said = _change(
                account,
                api_key,
                metric,
                per,
                amount_text=options["amount"],
                soft_text=options["soft"],
                is_per_end_user=options["each_end_user"],
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except ValueError as error:
            raise CommandError(f"{error}.") from error
        self.stdout.write(said)


@transaction.atomic
def _change(
    account: Account,
    api_key: ApiKey | None,
    metric: LimitMetric,
    per: LimitPer,
    *,
    amount_text: str,
    soft_text: str | None,
    is_per_end_user: bool,
) -> str:
    """Returns what was done, in a sentence."""
    # Locked before reading the former limit, whose soft threshold may have to stay.
    lock_limits(account)
    former = limit_in_force(account, api_key, metric, per, is_per_end_user=is_per_end_user)
    if amount_text.lower() == NONE:
        return _archive(former, account, api_key)
    amount, soft_percent = parse_amount(metric, amount_text), _percent(soft_text, former)
    limit, is_new = set_limit(account, api_key, metric, per, amount, soft_percent, is_per_end_user=is_per_end_user)
    return _sentence(limit, is_new=is_new)


def _owner(text: str) -> tuple[Account, ApiKey | None]:
    """An account by name, otherwise the one key with that prefix. Raises CommandError."""
    if (account := Account.objects.filter(name=text).first()) is not None:
        return account, None
    keys = _keys_that_begin(text)
    if len(keys) == 1:
        return keys[0].account, keys[0]
    if not keys:
        # If a whole key was pasted, it must not be printed.
        shown = text if len(text) <= PREFIX_LENGTH else f"{text[:PREFIX_LENGTH]}…"
        raise CommandError(f"No account is named “{shown}”, and no key starts with it.")
    named = ", ".join(f"{key.masked} of {key.account}" for key in keys[:MAX_NAMED])
    more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    raise CommandError(
        f"{len(keys)} keys begin with “{text}”: {named}{more}. Give more characters of the one you mean."
    )


def _keys_that_begin(text: str) -> list[ApiKey]:
    if not text:
        return []
    keys = ApiKey.objects.filter(prefix__startswith=text).select_related("account")
    # Not only in the database: SQLite's LIKE ignores case.
    return [key for key in keys if key.prefix.startswith(text)]


def _percent(text: str | None, former: Limit | None) -> int | None:
    if text is None:
        return former.soft_percent if former else None
    if text.lower() == NONE:
        return None
    try:
        percent = int(text.removesuffix("%"))
    except ValueError:
        percent = 0
    if not 1 <= percent <= 100:
        raise CommandError(f"--soft must be between 1 and 100, or none, not “{text}”.")
    return percent


def _archive(former: Limit | None, account: Account, api_key: ApiKey | None) -> str:
    if former is None:
        raise CommandError(f"{_name(account, api_key)} has no such limit.")
    archive_limit(former)
    return f"{_name(account, api_key)}: no longer limited to {describe_limit(former)}."


def _sentence(limit: Limit, *, is_new: bool) -> str:
    told = f", alert at {limit.soft_percent} %" if limit.soft_percent else ""
    made = "set" if is_new else "changed"
    return f"{_name(limit.account, limit.api_key)}: {describe_limit(limit)}{told} ({made})."


def _name(account: Account, api_key: ApiKey | None) -> str:
    return f"{account}, key {api_key}" if api_key else str(account)
