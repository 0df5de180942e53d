"""The usage explorer: its splits and filters, what stands in its URL, its files, and who sees what."""

from __future__ import annotations

import csv
import re
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html import unescape
from io import BytesIO, StringIO
from typing import Any
from zipfile import ZipFile

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from billing.models import DailyUsage
from billing.rollup import refresh, statements
from billing.rollup.summaries import mark_stale, summarise
from billing.usage_reports.sources import Unsummed, read_unsummed
from llm.enums import CallOutcome
from llm.models import Account, ApiKey, RefusedRequests
from tests.billing.calls import make_call, make_price
from tests.billing.factories import make_account, make_daily_usage
from tests.llm.admin.factories import make_key, staff_with

pytestmark = pytest.mark.django_db

PAGE = "/admin/billing/dailyusage/"
OCTOBER = {"first": "2026-10-01", "last": "2026-10-03"}
_ROW = re.compile(r'<tr role="row"[^>]*><th role="rowheader" scope="row">(.*?)</tr>', re.DOTALL)


def make_day(key: ApiKey, day: date, **values: Any) -> DailyUsage:
    return make_daily_usage(key, day, **{"calls": 2, "cost": Decimal(2), **values})


@pytest.fixture
def _usage() -> None:
    acme, other = make_key(make_account()), make_key(make_account("Other"))
    make_day(acme, date(2026, 10, 1))
    make_day(acme, date(2026, 10, 3), model="claude", provider="anthropic", cost=Decimal("0.5"))
    make_day(other, date(2026, 10, 3), calls=4, cost=Decimal(1), unpriced_calls=1)


def read(client: Client, **query: Any) -> str:
    response = client.get(PAGE, {**OCTOBER, **query})
    assert response.status_code == 200
    return response.content.decode()


def rows(client: Client, **query: Any) -> list[tuple[str, str, str]]:
    """Name, calls and exact cost of each row; the total comes first."""
    found = []
    for row in _ROW.findall(read(client, **query)):
        name = re.sub(r"<[^>]+>", "", re.split(r"</th>|<span class=\"gw-hint", row)[0])
        calls = re.search(r'data-label="Calls">.*?title="([\d,]+)"', row, re.DOTALL)
        cost = re.search(r'data-label="Cost"><span class="gw-num" title="([^"]+)"', row)
        assert calls is not None
        assert cost is not None
        found.append((unescape(name), calls[1], cost[1]))
    return found


@pytest.mark.usefixtures("_usage")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(
            {"by": "day"}, [("2026-10-01", "2", "$2.00"), ("2026-10-02", "0", "$0.00"), ("2026-10-03", "6", "$1.50")]
        ),
        pytest.param({"by": "day", "unit": "month"}, [("October 2026", "8", "$3.50")]),
        pytest.param({"by": "time", "unit": "week"}, [("week of 2026-09-28", "8", "$3.50")]),
        pytest.param({"by": "model"}, [("gpt", "6", "$3.00"), ("claude", "2", "$0.50")]),
        pytest.param({"by": "provider"}, [("openai", "6", "$3.00"), ("anthropic", "2", "$0.50")]),
        pytest.param({"by": "account", "sort": "name"}, [("Acme", "4", "$2.50"), ("Other", "4", "$1.00")]),
        pytest.param({"by": "account", "sort": "cost"}, [("Other", "4", "$1.00"), ("Acme", "4", "$2.50")]),
        pytest.param({"by": "key"}, [("production", "4", "$2.50"), ("production", "4", "$1.00")]),
        pytest.param(
            {"by": "account", "then": "model"},
            [
                ("Acme", "4", "$2.50"),
                ("gpt", "2", "$2.00"),
                ("claude", "2", "$0.50"),
                ("Other", "4", "$1.00"),
                ("gpt", "4", "$1.00"),
            ],
        ),
    ],
)
def test_each_split_adds_up_to_the_total(
    admin_client: Client, query: dict[str, str], expected: list[tuple[str, str, str]]
) -> None:
    assert rows(admin_client, **query) == [("Total", "8", "$3.50"), *expected]


@pytest.mark.usefixtures("_usage")
@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ({"account": "acme"}, "4"),
        ({"model": "claude"}, "2"),
        ({"provider": "openai"}, "6"),
        ({"key": "production"}, "8"),
        ({"account": "Other", "key": "production"}, "4"),
        ({"account": "Acme", "model": "gpt"}, "2"),
        ({"last": "2026-10-02"}, "2"),
    ],
)
def test_filters_narrow_the_figures_and_stand_in_every_link(
    admin_client: Client, query: dict[str, str], calls: str
) -> None:
    page = read(admin_client, by="model", **query)
    assert rows(admin_client, by="model", **query)[0][1] == calls
    links = re.findall(r'<a href="(/admin/llm/usage/\?[^"]+)"', page)
    assert links
    for name, value in query.items():
        assert all(f"{name}={value}" in link for link in links), name


@pytest.mark.usefixtures("_usage")
@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({"account": "nobody"}, "No account has this name."),
        ({"key": "unheard-of"}, "No key has this name, start or end."),
        ({"last": "2026-09-30"}, "This is before the start date."),
        ({"last": "2027-10-02", "unit": "day"}, "At most 366 days by day. Choose longer bars."),
        ({"last": "2999-12-31", "unit": "month"}, "At most 3,660 days by month."),
        ({"first": "0001-01-01"}, "Ensure this value is greater than or equal to 2000-01-01."),
        ({"first": "yesterday"}, "Enter a valid date."),
        ({"by": "weather"}, "Select a valid choice."),
        ({"by": "model", "then": "model"}, "Choose something else than in “By”."),
        ({"by": "tag"}, "Which tag? Enter its key, such as team."),
        (
            {"by": "end_user", "then": "model", "last": "2026-10-09"},
            "At most 7 days: hours, tags, single outcomes, and end users by anything but their account",
        ),
        ({"unit": "hour", "last": "2026-10-09"}, "At most 7 days: hours"),
        ({"sort": "password"}, "The table can&#x27;t be sorted by this."),
        ({"measure": "password"}, "Select a valid choice."),
        ({"tag": "team"}, "A key and a value, such as team:search."),
        ({"end_user": "anna"}, "Choose the account too, or enter a hash."),
    ],
)
def test_a_wrong_choice_is_explained_and_shows_nothing(
    admin_client: Client, query: dict[str, str], complaint: str
) -> None:
    page = read(admin_client, **query)
    assert complaint in page
    assert "bl-usage" not in page
    assert ("Show the last 7 days" in page) == ("At most 7 days" in complaint)


def test_without_days_it_is_the_last_30_or_the_last_7_of_calls(admin_client: Client) -> None:
    today = timezone.now().date()
    month, few = today - timedelta(days=29), today - timedelta(days=6)
    for query, first in (({}, month), ({"by": "tag", "tag_key": "team"}, few), ({"unit": "hour"}, few)):
        response = admin_client.get(PAGE, query)
        question = response.context["question"]
        assert (question.first, question.last) == (first, today)


def test_it_is_for_who_may_see_usage() -> None:
    assert staff_with("view_usage").get(PAGE).status_code == 403


def test_calls_are_read_and_linked_only_for_who_may_see_them() -> None:
    make_day(make_key(make_account()), date(2026, 10, 1))
    viewer = staff_with("view_dailyusage")
    assert "/admin/llm/usage/" not in read(viewer, by="model")
    page = read(viewer, by="tag", tag_key="team")
    assert "which your role may not see" in page
    assert "bl-usage" not in page


def test_a_row_of_the_rollup_has_no_page(admin_client: Client) -> None:
    row = make_day(make_key(make_account()), date(2026, 10, 1))
    assert admin_client.get(f"{PAGE}{row.pk}/change/").status_code == 404
    assert admin_client.post(f"{PAGE}add/").status_code == 403


@pytest.mark.usefixtures("_usage")
def test_a_period_is_compared_with_the_one_before(admin_client: Client) -> None:
    key = ApiKey.objects.get(account__name="Acme")
    make_day(key, date(2026, 9, 2), cost=Decimal(5))
    page = read(admin_client, by="account")
    assert "compared with 1 Sep 2026 to 3 Sep 2026" in page
    assert re.findall(r'title="Before: ([^"]+)">([^<]+)<', page)[-3:] == [
        ("$5.00", "-30.0 %"),
        ("$5.00", "-50.0 %"),
        ("$0.00", "new"),
    ]
    assert "compared with" not in read(admin_client, by="account", compare="no")


def test_calls_that_no_day_holds_yet_are_counted_once(admin_client: Client) -> None:
    account, price = make_account(), make_price()
    for _ in range(2):
        make_call(account, day=date(2026, 10, 2), price=price, prompt_tokens=500_000)
    before = rows(admin_client, by="account")
    refresh()
    make_call(account, day=date(2026, 10, 2), price=price, prompt_tokens=500_000)
    after = rows(admin_client, by="account")
    assert before == [("Total", "2", "$2.00"), ("Acme", "2", "$2.00")]
    assert after == [("Total", "3", "$3.00"), ("Acme", "3", "$3.00")]


def test_a_refresh_in_between_counts_nothing_twice(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    make_call(make_account(), day=date(2026, 10, 2), price=make_price(), prompt_tokens=500_000)
    reads: list[Unsummed] = []

    def read_then_refresh(*args: Any, **kwargs: Any) -> Unsummed:
        reads.append(read_unsummed(*args, **kwargs))
        if len(reads) == 1:
            refresh()
        return reads[-1]

    monkeypatch.setattr("billing.usage_reports.explorer.read_unsummed", read_then_refresh)
    # The page's transaction is not the refresh's: in real life another process has that.
    monkeypatch.setattr("billing.usage_reports.explorer.room_for_sums", nullcontext)
    assert rows(admin_client, by="account")[0] == ("Total", "1", "$1.00")
    assert [len(read.cells.rows) for read in reads] == [1, 0]


def test_calls_are_split_by_what_no_day_tells(admin_client: Client) -> None:
    account, price = make_account(), make_price()
    make_call(account, day=date(2026, 10, 2), price=price, prompt_tokens=1_000_000, tags={"team": "search"})
    make_call(account, day=date(2026, 10, 2), price=price, prompt_tokens=500_000, end_user="ab" * 16)
    make_call(account, day=date(2026, 10, 2), price=price, outcome=CallOutcome.TIMEOUT)
    total = ("Total", "3", "$3.00")

    assert rows(admin_client, by="tag", tag_key="team") == [
        total,
        ("search", "1", "$2.00"),
        ("(without team)", "2", "$1.00"),
    ]
    assert rows(admin_client, by="end_user", sort="-cost") == [
        total,
        ("(no end user)", "2", "$2.00"),
        ("abababababab…", "1", "$1.00"),
    ]
    assert rows(admin_client, by="outcome") == [total, ("ok", "2", "$3.00"), ("timed out", "1", "$0.00")]
    assert [row for row in rows(admin_client, by="time", unit="hour") if row[1] != "0"] == [
        total,
        ("2026-10-02 12:00", "3", "$3.00"),
    ]
    assert rows(admin_client, by="model", tag="team:search")[0] == ("Total", "1", "$2.00")
    assert rows(admin_client, by="model", outcome="failed")[0] == ("Total", "1", "$0.00")


def test_hours_are_those_of_the_only_account_and_else_of_utc(admin_client: Client) -> None:
    make_call(make_account("Acme", time_zone="America/New_York"), day=date(2026, 10, 2))
    query = {"by": "time", "unit": "hour", "first": "2026-10-02", "last": "2026-10-02"}
    alone = rows(admin_client, **query)
    page = read(admin_client, **query)
    make_account("Other", time_zone="Europe/Berlin")

    assert "Hours are in America/New_York time" in page
    assert (alone[1][0], alone[-1][0], len(alone)) == ("2026-10-02 00:00", "2026-10-02 23:00", 25)
    assert [row for row in alone if row[1] != "0"][1] == ("2026-10-02 08:00", "1", "$0.00")
    assert [row for row in rows(admin_client, **query) if row[1] != "0"][1][0] == "2026-10-02 12:00"
    assert "Hours are in America/New_York time" in read(admin_client, account="Acme", **query)


def test_more_calls_than_a_page_reads_are_refused_with_a_way_out(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = make_account()
    refresh()
    for day in (date(2026, 9, 2), *[date(2026, 10, 2)] * 3):
        make_call(account, day=day)
    monkeypatch.setattr("billing.usage_reports.sources.MAX_CALLS", 3)
    by_tag = {"by": "tag", "tag_key": "team"}
    page = read(admin_client, **by_tag)
    assert "not compared: the period before has too many calls to read as well" in page
    assert rows(admin_client, **by_tag)[0][1] == "3"
    monkeypatch.setattr("billing.usage_reports.sources.MAX_CALLS", 2)
    assert "There are more than 2 calls to read one by one. Choose fewer days" in read(admin_client, **by_tag)
    assert rows(admin_client, by="outcome") == [("Total", "3", "$0.00"), ("ok", "3", "$0.00")]
    monkeypatch.setattr("billing.usage_reports.sources.MAX_UNSUMMED_CALLS", 2)
    page = read(admin_client, by="account")
    assert "too many came in since then" in page


def test_more_days_than_a_page_reads_are_refused_with_a_way_out(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(make_account())
    for day in (1, 2, 3):
        make_day(key, date(2026, 10, day))
    monkeypatch.setattr("billing.usage_reports.sources.MAX_DAY_ROWS", 2)
    monkeypatch.setattr("billing.usage_reports.sources.DAYS_UNCOUNTED", 2)
    page = read(admin_client, by="model", then="account")
    assert "more than 2 daily totals to answer. Choose at most 2 days, one account" in page
    assert rows(admin_client, by="account", then="model")[1:] == [("Acme", "6", "$6.00"), ("gpt", "6", "$6.00")]


def test_files_hold_what_is_shown_exactly_and_no_formulas(admin_client: Client) -> None:
    key = make_key(make_account("=HYPERLINK(1)"))
    make_day(key, date(2026, 10, 1), cost=Decimal("0.000000012345"))
    response = admin_client.get(PAGE, {**OCTOBER, "by": "account", "then": "model", "download": "csv"})
    lines = list(csv.DictReader(StringIO(response.content.decode())))

    assert response["Content-Disposition"] == 'attachment; filename="usage-by-account-2026-10-01-2026-10-03.csv"'
    assert [(line["account"], line["model"], line["cost"]) for line in lines] == [
        ("'=HYPERLINK(1)", "gpt", "0.000000012345"),
        ("Total", "", "0.000000012345"),
    ]
    over_time = admin_client.get(PAGE, {**OCTOBER, "by": "account", "download": "chart"}).content.decode()
    assert over_time.splitlines()[:2] == ["time,'=HYPERLINK(1)", "2026-10-01,0.000000012345"]
    book = admin_client.get(PAGE, {**OCTOBER, "by": "account", "download": "xlsx"})
    with ZipFile(BytesIO(book.content)) as parts:
        sheet = parts.read("xl/worksheets/sheet1.xml").decode()
        assert "<f>" not in sheet
        assert "=HYPERLINK(1)" in parts.read("xl/sharedStrings.xml").decode()


def test_an_empty_page_says_what_to_do_next(admin_client: Client) -> None:
    assert "Create a key" in read(admin_client)
    make_call(make_account(), day=date(2026, 9, 1))
    assert "No calls were made in this period." in read(admin_client)
    assert "No usage matches these filters" in read(admin_client, account="Acme")


def test_the_chart_holds_what_the_table_does(admin_client: Client) -> None:
    account = make_account()
    for number in range(25):
        make_day(make_key(account, f"key {number:02}"), date(2026, 10, 1 + number % 3), cost=Decimal(number + 1))
    response = admin_client.get(PAGE, {**OCTOBER, "by": "key"})
    chart, shown = response.context["chart"], response.context["shown"]

    assert len(chart["series"]) == 10
    assert sum(Decimal(value) for part in chart["series"] for value in part["values"]) == Decimal(325)
    assert [row.name.text for row in shown.rows[:2]] == ["key 24", "key 23"]
    assert (len(shown.rows), shown.others.name.text, shown.others.figures.cost) == (20, "Other (5 more)", Decimal(15))
    assert sum((row.figures.cost for row in shown.all_rows), Decimal(0)) == Decimal(325)
    assert "These bars as a table" in response.content.decode()


@pytest.mark.slow
def test_a_thousand_accounts_take_few_queries(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    accounts = Account.objects.bulk_create(Account(name=f"Account {number}") for number in range(1000))
    keys = ApiKey.objects.bulk_create(
        ApiKey(account=account, name="production", digest=account.name.encode()) for account in accounts
    )
    DailyUsage.objects.bulk_create(
        DailyUsage(
            account_id=key.account_id,
            api_key=key,
            local_day=date(2026, 10, 1) + timedelta(days=key.pk % 3),
            provider="openai",
            model="gpt",
            calls=1,
            cost=Decimal(1),
        )
        for key in keys
    )
    mark_stale(date(2026, 10, day) for day in (1, 2, 3))
    for by in ("time", "model", "account", "key"):
        with django_assert_max_num_queries(50):
            found = rows(admin_client, by=by, then="provider")
        assert found[0] == ("Total", "1,000", "$1,000.00")


# --- What days know of outcomes, times and end users ----------------------------------------------------------------


def make_month() -> Account:
    """Calls of October that are in their days: an instance, a failure without usage, a client that left, end users."""
    account, price = make_account(), make_price()
    common: dict[str, Any] = {"day": date(2026, 10, 2), "price": price}
    make_call(account, **common, prompt_tokens=1_000_000, end_user="ab" * 16, duration_ms=900, is_stream=True)
    make_call(account, **common, prompt_tokens=500_000, provider_instance="openai-eu", duration_ms=3000)
    make_call(account, **common, outcome=CallOutcome.CLIENT_GONE, duration_ms=200_000, end_user="cd" * 16)
    make_call(account, **common, status="void", outcome=CallOutcome.UPSTREAM_FAILED, duration_ms=100)
    refresh()
    return account


LONG = {"first": "2026-09-01", "last": "2026-10-31"}


@pytest.mark.parametrize("is_summed", [True, False])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            {"by": "outcome"},
            [("ok", "2", "$3.00"), ("client gone", "1", "$0.00"), ("failed", "0", "$0.00")],
        ),
        ({"by": "instance"}, [("openai", "2", "$2.00"), ("openai-eu", "1", "$1.00")]),
        ({"by": "model", "outcome": "failed"}, [("gpt-4o", "0", "$0.00")]),
        ({"by": "model", "instance": "openai-eu"}, [("gpt-4o", "1", "$1.00")]),
        ({"by": "account", "outcome": "ok"}, [("Acme", "2", "$3.00")]),
    ],
)
def test_long_periods_are_split_by_what_days_know(
    admin_client: Client, query: dict[str, str], expected: list[tuple[str, str, str]], *, is_summed: bool
) -> None:
    make_month()
    if not is_summed:
        mark_stale([date(2026, 10, 2)])
    assert rows(admin_client, **LONG, **query)[1:] == expected


def test_failures_and_latencies_are_in_every_table(admin_client: Client) -> None:
    make_month()
    response = admin_client.get(PAGE, {**LONG, "by": "account"})
    [row] = response.context["shown"].rows
    assert (row.figures.failed_calls, row.p50, row.p95) == (1, "0.5\N{EN DASH}1 s", "over 128 s")
    response = admin_client.get(PAGE, {**LONG, "by": "outcome", "measure": "failed_calls"})
    assert [each.figures.failed_calls for each in response.context["shown"].rows] == [1, 0, 0]


def test_days_and_calls_agree_on_failures_and_latencies(admin_client: Client) -> None:
    make_month()
    query = {"first": "2026-10-02", "last": "2026-10-02", "by": "model"}
    by_day, by_hour = (
        admin_client.get(PAGE, {**query, "unit": unit}).context["shown"].total for unit in ("day", "hour")
    )
    assert by_day.figures == by_hour.figures
    assert sum(by_day.figures.latencies) == 4


def test_end_users_of_long_periods_are_those_of_days(admin_client: Client) -> None:
    account = make_month()
    expected = [("Total", "3", "$3.00"), ("abababababab…", "1", "$2.00"), ("(no end user)", "1", "$1.00")]
    expected.append(("cdcdcdcdcdcd…", "1", "$0.00"))
    assert rows(admin_client, **LONG, by="end_user") == expected
    make_call(account, day=date(2026, 10, 3), end_user="cd" * 16)
    live = rows(admin_client, **LONG, by="end_user", account="Acme")
    assert live[-1] == ("cdcdcdcdcdcd…", "2", "$0.00")


def test_a_days_smaller_end_users_are_one_row(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.rollup.statements.MAX_END_USERS", 1)
    for each in (statements.end_user_days_sql, statements.days_sql):
        each.cache_clear()
    make_month()
    statements.end_user_days_sql.cache_clear()
    assert rows(admin_client, **LONG, by="end_user")[1:] == [
        ("abababababab…", "1", "$2.00"),
        ("(no end user)", "1", "$1.00"),
        ("(smaller end users)", "1", "$0.00"),
    ]


def test_days_from_before_the_upgrade_say_what_they_lack_until_they_are_rebuilt(admin_client: Client) -> None:
    make_month()
    DailyUsage.objects.update(outcome_group="", failed_calls=0)
    summarise()
    mark_stale([date(2026, 10, 2)])
    assert "are being summed up again after an upgrade" in read(admin_client, **LONG, by="account")
    assert ("(not known yet)", "3", "$3.00") in rows(admin_client, **LONG, by="outcome")
    refresh()
    assert not DailyUsage.objects.of_former_shape().exists()
    assert "are being summed up again after an upgrade" not in read(admin_client, **LONG, by="account")
    assert rows(admin_client, **LONG, by="outcome")[1] == ("ok", "2", "$3.00")


def test_refused_requests_stand_beside_the_calls(admin_client: Client) -> None:
    account = make_month()
    key = make_key(account, "other")
    noon = datetime(2026, 10, 2, 12, tzinfo=UTC)
    for model, requests in (("gpt-4o", 3), ("unknown", 4)):
        RefusedRequests.objects.create(
            minute=noon,
            last_at=noon,
            account_id=account.pk,
            api_key_id=key.pk,
            model=model,
            code="x",
            requests=requests,
        )
    response = admin_client.get(PAGE, {**LONG, "by": "model"})
    shown = response.context["shown"]
    assert [(row.name.text, row.refused) for row in shown.rows] == [("gpt-4o", 3)]
    assert shown.total.refused == 7
    assert admin_client.get(response.context["refused_url"]).status_code == 200
    assert admin_client.get(PAGE, {**LONG, "by": "account"}).context["shown"].rows[0].refused == 7
    assert admin_client.get(PAGE, {**LONG, "by": "model", "outcome": "ok"}).context["shown"].refused is None


@pytest.mark.usefixtures("_usage")
def test_a_download_stands_in_the_history(admin_client: Client) -> None:
    admin_client.get(PAGE, {**OCTOBER, "by": "model", "download": "csv"})
    admin_client.get(PAGE, {**OCTOBER, "by": "model"})
    [entry] = LogEntry.objects.all()
    assert entry.change_message == "Downloaded (csv): by=model&download=csv&first=2026-10-01&last=2026-10-03"
