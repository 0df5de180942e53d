"""`manage.py demo_data`: a year of 20 invented customers, to try out the admin with."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Max
from django.utils import timezone

from billing.management.demo.books import accounts_of_the_demo, write_customer, write_plans, write_prices_of_models
from billing.management.demo.cast import CUSTOMERS
from billing.management.demo.months import bill_months, write_exchange_rates
from billing.management.demo.usage import PROCESS
from billing.models import Invoice
from billing.rollup import refresh
from llm.audit import verify
from llm.models import Account, Usage
from llm.money import plural

_ELSEWHERE = "Use a new database: set DATABASE_URL, run “manage.py bootstrap”, then this command. Nothing was changed."


class Command(BaseCommand):
    help = (
        "Fills a new database with a year of 20 invented customers: calls, limits, and invoices of every status. "
        "Running it again adds the days since. Refused if there are real calls or issued invoices."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        refuse_real_data()
        started = time.monotonic()
        until = timezone.now()
        prices = write_prices_of_models(until)
        write_plans(until)
        self._say("Writing calls; this takes about ten seconds.")
        calls = sum(write_customer(customer, prices, until) for customer in CUSTOMERS)
        self._say(f"{plural(calls, 'call')} of {len(CUSTOMERS)} customers added.")
        refresh()
        first_day = _first_day()
        write_exchange_rates(first_day, until.date())
        bill_months(CUSTOMERS, first_day, until, on_month=lambda period: self._say(f"Invoices of {period}"))
        findings = verify()
        if findings.problems:
            raise CommandError(f"The audit of the demo's books found problems: {' '.join(findings.sentences)}")
        self._say(
            f"Done in {time.monotonic() - started:.0f} s; an audit of the books found no problems. To try a role, set "
            "a password for demo-kim, demo-paula, demo-abel or demo-audrey: “manage.py changepassword demo-paula”."
        )

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _first_day() -> date:
    accounts = Account.objects.filter(name__in=[customer.name for customer in CUSTOMERS])
    return accounts.earliest("created_at").created_at.date()


def refuse_real_data() -> None:
    """Raises CommandError, saying what there is and what to do, unless all calls and invoices are the demo's."""
    names = [customer.name for customer in CUSTOMERS]
    found = []
    if real := Usage.objects.exclude(process_id=PROCESS).aggregate(last=Max("opened_at"))["last"]:
        found.append(f"there are real calls, the last of {real:%Y-%m-%d %H:%M} UTC")
    invoice = Invoice.objects.final().exclude(account__name__in=names).select_related("account").first()
    if invoice is not None:
        found.append(f"{invoice.label} was issued to {invoice.account}")
    foreign = set(Account.objects.filter(name__in=names).values_list("name", flat=True)) - accounts_of_the_demo(names)
    if foreign:
        found.append(f"there is an account {min(foreign)} that this command did not create")
    if found:
        raise CommandError(f"This database is in use: {'; '.join(found)}. {_ELSEWHERE}")
