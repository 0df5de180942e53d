"""Makes the fixture of `test_upgrade`: a database with a bit of everything, by the services and a gateway of its time.

It was run at b634e5a, once for each database, and need not run, or fit the types, on later code; README.md tells
how. What it wrote is never written again: people have such databases.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

_VAR = Path(tempfile.mkdtemp(prefix="llm-upgrade-"))
SECRET_KEY = "a secret of the tests, long enough for what it is asked to protect"
PEPPER = "a pepper of the tests"

os.environ |= {
    "DJANGO_SETTINGS_MODULE": "llmproject.settings",
    "LLM_ENV_FILE": "",
    "VAR_DIR": str(_VAR),
    "SECRET_KEY": SECRET_KEY,
    "LLM_KEY_PEPPER": PEPPER,
    "LLM_REAP_AFTER_SECONDS": "6",
    "LLM_UNPRICED_MODELS": "flag",
    "LLM_PROVIDER": "openai",
    "EMAIL_URL": "dummymail://",
    "LLM_LOG_LEVEL": "WARNING",
    "BILLING_SELLER_NAME": "Example Gateway GmbH",
    "BILLING_SELLER_ADDRESS": "Example Street 1|10115 Berlin",
    "BILLING_SELLER_TAX_ID": "DE123456789",
}
os.environ.setdefault("DATABASE_URL", f"sqlite:///{_VAR}/db.sqlite3")

import django  # noqa: E402

django.setup()

import httpx2  # noqa: E402
from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402
from django.utils import timezone  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402

from billing.closing import close_month  # noqa: E402
from billing.crediting import credit  # noqa: E402
from billing.enums import InvoiceState, JobState, MonthJobKind  # noqa: E402
from billing.exchange import add_rate  # noqa: E402
from billing.exporting import run_export  # noqa: E402
from billing.models import BillingProfile, ExportJob, Invoice, MonthJob, Plan, PlanRate, PlanVersion  # noqa: E402
from billing.monthjobs import run_month_job  # noqa: E402
from billing.periods import Period  # noqa: E402
from billing.reconcile.importing import import_report  # noqa: E402
from billing.review import approve, issue, mark_paid, submit, void  # noqa: E402
from llm.books.adjusting import decide_call  # noqa: E402
from llm.books.operations import CloseCall  # noqa: E402
from llm.books.reaper import reap  # noqa: E402
from llm.books.replay import replay_abandoned  # noqa: E402
from llm.books.spool import SpoolFile  # noqa: E402
from llm.enums import LimitMetric, LimitPer, Meter, Outcome, UsageSource, UsageStatus  # noqa: E402
from llm.keys import create_key, revoke_key, rotate_key  # noqa: E402
from llm.limits import set_limit  # noqa: E402
from llm.models import Account, ApiKey, ModelRoute, Process, RouteTarget, Usage  # noqa: E402
from llm.outbox import send_due  # noqa: E402
from llm.price_rows import load_snapshots  # noqa: E402
from llm.prices import set_price  # noqa: E402
from llm.pricing import known_cost  # noqa: E402
from llm.rerating import rerate  # noqa: E402
from llm.types import TokenCounts  # noqa: E402
from llm.verification import verify  # noqa: E402
from llm.webhooks import ensure_webhook_secret  # noqa: E402
from tests.billing.calls import LONG_AGO, make_call, make_price  # noqa: E402
from tests.fakes import FakeUpstream  # noqa: E402
from tests.gateway_process import Gateway  # noqa: E402
from tests.upgrade.b634e5a.store import store_fixture  # noqa: E402

SEPTEMBER, OCTOBER = Period(date(2026, 9, 1)), Period(date(2026, 10, 1))
ZONES = {
    "Acme": "UTC",
    "Globex": "Europe/Berlin",
    "Initech": "Asia/Tokyo",
    "Hooli": "America/Los_Angeles",
    "Stark": "Pacific/Kiritimati",
}
SPOOL = Path(settings.LLM_SPOOL_DIR)


class Secrets(dict[str, str]):
    """What callers and staff hold, by name."""


def main(target: Path) -> None:
    call_command("migrate", verbosity=0)
    secrets = Secrets()
    people = _people(secrets)
    _prices(people["pat"])
    accounts = {name: _account(name, zone, secrets) for name, zone in ZONES.items()}
    _keys(accounts["Acme"], secrets)
    _limits(accounts)
    _september(accounts, people)
    _october(accounts, people)
    with FakeUpstream() as upstream:
        environment = {
            "OPENAI_API_KEY": "sk-test-our-own-upstream-key-0123456789",
            "ANTHROPIC_API_KEY": "sk-ant-test-our-own-upstream-key-0123456789",
            "LLM_OPENAI_BASE_URL": upstream.openai_base_url,
            "LLM_ANTHROPIC_BASE_URL": upstream.anthropic_base_url,
        }
        lost = _calls_and_a_crash(environment, secrets, upstream)
        _reap_and_correct(lost, people["pat"])
        send_due()
        _calls_left_open(environment, secrets)
    _jobs(accounts, people["pat"])
    assert verify().sentences == []
    Process.objects.update(host="gateway-1")
    store_fixture(target, secrets, spool=SPOOL, exports=Path(settings.BILLING_EXPORT_DIR))


# --- Who and at what price --------------------------------------------------------------------------------------------


def _people(secrets: Secrets) -> dict[str, User]:
    """pat prepares, alex approves; both are superusers, so that they keep their rights whatever those are called."""
    people = {}
    for name in ("pat", "alex"):
        people[name] = User.objects.create_superuser(name, f"{name}@example.com", "a long password of the tests")
        secrets[f"token of {name}"] = Token.objects.create(user=people[name]).key
    client = Client()
    client.force_login(people["pat"])
    session = client.session
    session["llm_used_forms"] = {"a-form-that-was-sent": 1}
    session.save()
    secrets["session of pat"] = str(session.session_key)
    secrets["password"] = "a long password of the tests"
    return people


def _prices(user: User) -> None:
    make_price("gpt-4o", input="2.5", cache_read="1.25", output="10")
    make_price("m-small", input="0.15", output="0.6")
    make_price("m-wrong", input="4", output="4")
    for model in ("fake-no-usage", "fake-absurd-usage", "fake-400", "fake-429", "fake-cached-40", "fake-hang-headers"):
        make_price(model, input="2.5", cache_read="1.25", output="10")
    set_price("openai", "m-free", effective_from=LONG_AGO, is_free=True, created_by=user)
    make_price("claude-test", provider="anthropic", input="3", output="15")
    route = ModelRoute.objects.create(name="house")
    RouteTarget.objects.create(route=route, position=0, provider="anthropic", upstream_model="claude-test")
    RouteTarget.objects.create(route=route, position=1, provider="openai", upstream_model="gpt-4o")
    add_rate("EUR", Decimal("0.92"), on=date(2026, 9, 30), source="ECB reference rate", user=user)
    add_rate("EUR", Decimal("0.91"), on=date(2026, 10, 30), source="ECB reference rate", user=user)


def _account(name: str, zone: str, secrets: Secrets) -> Account:
    account = Account.objects.create(name=name, time_zone=zone)
    Account.objects.update(created_at=datetime(2026, 8, 31, 9, tzinfo=UTC))
    _, secrets[name] = create_key(account, name="production")
    return account


def _keys(acme: Account, secrets: Secrets) -> None:
    account = acme
    account.shows_cost, account.alert_email = True, "alerts@example.com"
    # A port that nobody listens on: its messages wait.
    account.webhook_url = "http://127.0.0.1:9/alerts"
    account.save()
    secrets["webhook"] = ensure_webhook_secret(account)
    Account.objects.filter(name="Globex").update(alert_email="globex@example.com")
    rotated, secrets["rotated, in its grace"] = create_key(account, name="rotated")
    _, secrets["successor"] = rotate_key(rotated, grace=timedelta(days=36_500))
    revoked, secrets["revoked"] = create_key(account, name="revoked")
    revoke_key(revoked)
    _, secrets["restricted"] = create_key(account, name="restricted", allowed_models=["m-small"])


def _limits(accounts: dict[str, Account]) -> None:
    acme, globex = accounts["Acme"], accounts["Globex"]
    key = ApiKey.objects.get(account=acme, name="production")
    for metric, per, amount, soft in (
        (LimitMetric.REQUESTS, LimitPer.MINUTE, 1_000, None),
        (LimitMetric.TOKENS, LimitPer.HOUR, 10_000_000, None),
        (LimitMetric.COST, LimitPer.DAY, 50_000_000, 80),
        (LimitMetric.TOKENS, LimitPer.MONTH, 200_000, 1),
        (LimitMetric.REQUESTS, LimitPer.MONTH, 1_000, None),
        (LimitMetric.COST, LimitPer.TOTAL, 900_000_000, None),
    ):
        set_limit(acme, None, metric, per, amount, soft)
    set_limit(acme, key, LimitMetric.REQUESTS, LimitPer.MONTH, 900, None)
    # Crossed by the last calls alone, whose message is still to be sent.
    set_limit(globex, None, LimitMetric.TOKENS, LimitPer.MONTH, 29_000, 1)
    set_limit(globex, None, LimitMetric.REQUESTS, LimitPer.TOTAL, 300, 1)


# --- Months that were billed ------------------------------------------------------------------------------------------


def _september(accounts: dict[str, Account], people: dict[str, User]) -> None:
    _profiles(accounts)
    for number, account in enumerate(accounts.values(), start=1):
        _calls_of_month(account, SEPTEMBER, number)
    close_month(SEPTEMBER)
    for invoice in Invoice.objects.order_by("id"):
        submit(invoice.pk, user=people["pat"])
        approve(invoice.pk, user=people["alex"])
        issue(invoice.pk, user=people["alex"])
    mark_paid(_invoice("Acme", SEPTEMBER).pk, user=people["alex"], paid_on=date(2026, 11, 20))
    _credit_notes(people)


def _profiles(accounts: dict[str, Account]) -> None:
    for name, account in accounts.items():
        plan = Plan.objects.create(name=f"Plan of {name}")
        currency = "EUR" if name == "Globex" else "USD"
        version = _version(plan, date(2026, 1, 1), currency, markup_percent=Decimal("17.5"), flat_fee=Decimal("9.99"))
        _version(plan, date(2026, 10, 1), currency, markup_percent=Decimal(20), allowance_tokens=1_000)
        _version(plan, date(2027, 6, 1), currency, minimum_commitment=Decimal(50))
        for meter, amount in ((Meter.INPUT, "0.3"), (Meter.OUTPUT, "1.2")):
            PlanRate.objects.create(
                version=version, model_pattern="m-sm*", meter=meter, price_per_million=Decimal(amount)
            )
        BillingProfile.objects.create(
            account=account,
            legal_name=f"{name} Ünïted Ltd.",
            address="Long Road 5\nSpringfield",
            country="DE",
            email="bills@example.com",
            tax_percent=Decimal(19),
            currency=currency,
            plan=plan,
            time_zone=account.time_zone,
        )


def _version(plan: Plan, start: date, currency: str, **terms: Any) -> PlanVersion:
    return PlanVersion.objects.create(plan=plan, effective_from=start, currency=currency, **terms)


def _calls_of_month(account: Account, period: Period, number: int) -> None:
    prices = {model: make_price_of(model) for model in ("gpt-4o", "m-small", "m-wrong")}
    for model, price in prices.items():
        for day in (period.start, period.start + timedelta(days=14), period.last_day):
            make_call(
                account,
                day=day,
                model=model,
                price=price,
                key=ApiKey.objects.get(account=account, name="production"),
                prompt_tokens=1_000_000 * number + 37,
                completion_tokens=250_000 * number + 11,
            )


def make_price_of(model: str) -> Any:
    from llm.models import Price

    return Price.objects.filter(provider="openai", model=model).order_by("effective_from", "id").first()


def _invoice(name: str, period: Period) -> Invoice:
    found = Invoice.objects.exclude(state=InvoiceState.VOID).exclude(kind="credit_note")
    return found.get(account__name=name, period_start=period.start)


def _credit_notes(people: dict[str, User]) -> None:
    whole = credit(_invoice("Initech", SEPTEMBER).pk, user=people["alex"], reason="The wrong legal name.")
    globex = _invoice("Globex", SEPTEMBER)
    line = globex.lines.order_by("position").first()
    assert line is not None
    by_line = credit(globex.pk, user=people["alex"], reason="An outage.", amounts={line.pk: Decimal("1.25")})
    for note in (whole, by_line):
        submit(note.pk, user=people["pat"])
        approve(note.pk, user=people["alex"])
        issue(note.pk, user=people["alex"])
    hooli = _invoice("Hooli", SEPTEMBER)
    line = hooli.lines.order_by("position").first()
    assert line is not None
    credit(hooli.pk, user=people["alex"], reason="An outage.", amounts={line.pk: Decimal("0.75")})


def _october(accounts: dict[str, Account], people: dict[str, User]) -> None:
    """With late usage of September and a price that was wrong; Stark's September was too dear by more than October."""
    for number, account in enumerate(accounts.values(), start=1):
        if account.name != "Stark":
            _calls_of_month(account, OCTOBER, number)
    make_call(accounts["Globex"], day=date(2026, 9, 20), price=make_price_of("gpt-4o"), prompt_tokens=123_456)
    set_price(
        "openai",
        "m-wrong",
        effective_from=LONG_AGO + timedelta(days=1),
        rates={Meter.INPUT: Decimal("0.4"), Meter.OUTPUT: Decimal("0.4")},
        created_by=people["pat"],
    )
    rerate(
        "openai",
        "m-wrong",
        first_day=SEPTEMBER.start,
        last_day=OCTOBER.last_day,
        reason="Ten times too dear.",
        user=people["pat"],
    )
    close_month(OCTOBER)
    drafted = _invoice("Initech", OCTOBER)
    void(drafted.pk, user=people["alex"], reason="A trial of the wrong plan.")
    close_month(OCTOBER, account=accounts["Initech"])
    for name in ("Acme", "Globex", "Hooli", "Stark"):
        submit(_invoice(name, OCTOBER).pk, user=people["pat"])
    for name in ("Acme", "Globex", "Stark"):
        approve(_invoice(name, OCTOBER).pk, user=people["alex"])
    for name in ("Acme", "Stark"):
        issue(_invoice(name, OCTOBER).pk, user=people["alex"])


# --- The running month ------------------------------------------------------------------------------------------------


@contextmanager
def _gateway(environment: dict[str, str]) -> Iterator[Gateway]:
    """A gateway that is killed at the end of the block."""
    gateway = Gateway(environment)
    try:
        yield gateway
    finally:
        workers = gateway.workers()
        gateway.process.send_signal(signal.SIGKILL)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        gateway.close()


def _ask(gateway: Gateway, secret: str, model: str, *, is_stream: bool = False) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": f"hello there, {model}"}], "stream": is_stream}
    headers = {"authorization": f"Bearer {secret}"}
    try:
        return httpx2.post(
            f"{gateway.url}/v1/chat/completions", json={**body, "max_tokens": 400}, headers=headers, timeout=60
        ).status_code
    except httpx2.TransportError:
        return 0


def _begin(gateway: Gateway, secret: str, number: int) -> list[Usage]:
    """That many calls that their upstream never answers, once they are on the books."""
    known = set(Usage.objects.values_list("id", flat=True))
    for _ in range(number):
        Thread(target=_ask, args=(gateway, secret, "fake-hang-headers"), daemon=True).start()
    deadline = time.monotonic() + 20
    while len(rows := list(Usage.objects.open().exclude(id__in=known).order_by("id"))) < number:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return rows


def _calls_and_a_crash(environment: dict[str, str], secrets: Secrets, upstream: FakeUpstream) -> list[Usage]:
    """Calls of each kind, and three that are lost with their process."""
    with _gateway(environment) as gateway:
        statuses = [
            _ask(gateway, secrets[who], model, is_stream=is_stream)
            for who in ("Acme", "Globex", "Initech")
            for model in ("gpt-4o", "fake-cached-40", "m-small", "m-free", "house", "nobody-knows-its-price")
            for is_stream in (False, True)
        ]
        # Acme has a cost limit, which a model without a price can't be held against.
        assert (statuses.count(200), statuses.count(400)) == (34, 2), statuses
        for model in ("fake-no-usage", "fake-absurd-usage", "fake-400", "fake-429"):
            _ask(gateway, secrets["Acme"], model, is_stream=True)
        _ask(gateway, secrets["restricted"], "m-small")
        upstream.stop()
        _ask(gateway, secrets["Globex"], "m-small")
        upstream.start()
        return _begin(gateway, secrets["Acme"], 3)


def _reap_and_correct(lost: list[Usage], user: User) -> None:
    """Of the three one is decided, one has a settlement that turns up late, one stays as it is."""
    deadline = time.monotonic() + 60
    while Usage.objects.open().exists():
        assert time.monotonic() < deadline
        time.sleep(1)
        reap(at_once=True)
    decide_call(lost[0].pk, counts=TokenCounts(900, 80), is_billable=True, reason="By their records.", user=user)
    disputed = Usage.objects.get(is_disputed=True)
    decide_call(disputed.pk, counts=TokenCounts(40, 12), is_billable=False, reason="A courtesy.", user=user)
    settled = Usage.objects.filter(
        status=UsageStatus.SETTLED, model="gpt-4o", opened_at__gte=lost[0].opened_at.replace(day=1)
    )
    contradicted = settled.latest("id")
    _spool(lost[1].process_id.hex, [_settlement(lost[1], 700, 60), _settlement(contradicted, 1, 1)])
    assert replay_abandoned(SPOOL) == 2


def _calls_left_open(environment: dict[str, str], secrets: Secrets) -> None:
    """Five whose process was killed; of three the spool knows how they ended."""
    with _gateway(environment) as gateway:
        for _ in range(3):
            assert _ask(gateway, secrets["Globex"], "gpt-4o") == 200
        rows = [*_begin(gateway, secrets["Acme"], 4), *_begin(gateway, secrets["Globex"], 1)]
    settled, estimated, voided = rows[:3]
    _spool(
        settled.process_id.hex,
        [
            _settlement(settled, 1_234, 321),
            _settlement(estimated, 55, 5, status=UsageStatus.ESTIMATED, usage_source=UsageSource.ESTIMATED),
            _settlement(
                voided,
                0,
                0,
                status=UsageStatus.VOID,
                usage_source=UsageSource.NONE,
                outcome=Outcome.UPSTREAM_UNREACHABLE,
                upstream_status=None,
                upstream_response_id="",
                reported_model="",
            ),
        ],
    )


def _settlement(row: Usage, prompt: int, completion: int, **values: Any) -> CloseCall:
    assert row.price_id is not None
    counts = TokenCounts(prompt, completion)
    cost = known_cost(counts, load_snapshots([row.price_id])[row.price_id])
    assert cost is not None
    told: dict[str, Any] = {
        "status": UsageStatus.SETTLED,
        "usage_source": UsageSource.REPORTED,
        "outcome": Outcome.OK,
        "upstream_status": 200,
        "upstream_response_id": f"chatcmpl-{row.pk.hex[-12:]}",
        "reported_model": row.upstream_model,
        "duration_ms": 4_321,
        **values,
    }
    return CloseCall(
        id=row.pk,
        counts=counts,
        cost_pico=cost.pico,
        rate_set_id=cost.rate_set_id,
        account_id=row.account_id,
        **told,
    )


def _spool(process: str, closes: list[CloseCall]) -> None:
    """As the process would have left it when it died."""
    from uuid import UUID

    file = SpoolFile.create(SPOOL / f"{UUID(process)}.spool")
    file.append(closes)
    file.close()


# --- Jobs -------------------------------------------------------------------------------------------------------------


def _jobs(accounts: dict[str, Account], user: User) -> None:
    formats = ["csv", "xlsx", "jsonl", "focus", "xero"]
    for account in (None, accounts["Globex"]):
        done = ExportJob.objects.create(
            period_start=SEPTEMBER.start, formats=formats, account=account, requested_by=user
        )
        assert run_export(done.pk).state == JobState.DONE
    ExportJob.objects.create(period_start=SEPTEMBER.start, formats=formats, requested_by=user)
    # Its worker was killed.
    ExportJob.objects.create(
        period_start=SEPTEMBER.start,
        formats=["csv"],
        requested_by=user,
        state=JobState.RUNNING,
        started_at=timezone.now(),
    )
    checked = MonthJob.objects.create(kind=MonthJobKind.VERIFY, period_start=SEPTEMBER.start, requested_by=user)
    assert run_month_job(checked.pk).findings == []
    for kind in (MonthJobKind.CLOSE, MonthJobKind.VERIFY):
        MonthJob.objects.create(kind=kind, period_start=OCTOBER.start, requested_by=user)
    report = (settings.BASE_DIR / "tests/billing/reports/openai_costs.json").read_bytes()
    import_report("openai", report, file_name="costs.json", user=user)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
