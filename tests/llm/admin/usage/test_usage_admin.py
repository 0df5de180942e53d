from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import Q
from django.test import Client
from django.test.utils import CaptureQueriesContext

from llm.admin.usage.paginator import Cursor, read_page, read_sorted, read_totals
from llm.books.figures import compute_figures
from llm.enums import AdjustmentSource, CallOutcome, Meter
from llm.models import ApiKey, Usage
from llm.prices.staff import set_price
from llm.types import TokenCounts
from tests.llm.admin.factories import (
    NOON,
    disputed_row,
    lost_row,
    make_account,
    make_key,
    on,
    open_row,
    save,
    usage_row,
)
from tests.llm.books.making import adjust_now

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

LIST = "/admin/llm/usage/"


def make_calls(key: ApiKey, number: int, *, rare: int | None = None) -> list[Usage]:
    """One a second, the oldest first; the one at `rare` is of another provider."""
    providers = ["rare" if second == rare else "openai" for second in range(number)]
    moments = [NOON + timedelta(seconds=second) for second in range(number)]
    return save(*(usage_row(key, opened_at=at, provider=name) for at, name in zip(moments, providers, strict=True)))


def listed(client: Client, **query: str) -> list[Usage]:
    return list(client.get(LIST, query).context["cl"].result_list)


def test_no_page_of_usage_counts_the_table(admin_client: Client) -> None:
    make_calls(make_key(make_account()), 120)

    with CaptureQueriesContext(connection) as queries:
        for query in ("", "?account=Acme", "?outcome=failed", "?cost=unpriced", "?status=open", "?first=2026-11-20"):
            assert admin_client.get(LIST + query).status_code == 200

    about_usage = [entry["sql"] for entry in queries if 'FROM "llm_usage"' in entry["sql"]]
    assert about_usage
    assert not [sql for sql in about_usage if "DISTINCT" in sql.upper()]
    # Totals are only of a filtered list, and bounded by an id where there are more than they add up.
    pages = [sql for sql in about_usage if "SUM(" not in sql.upper() and "COUNT(" not in sql.upper()]
    assert not [sql for sql in pages if "LIMIT" not in sql.upper()]
    assert len(pages) > 6


def test_a_page_of_50_calls_takes_few_queries(admin_client: Client, django_assert_max_num_queries: Any) -> None:
    account = make_account()
    keys = [make_key(account, f"key {number}") for number in range(50)]
    save(*(usage_row(key) for key in keys))

    with django_assert_max_num_queries(8):
        response = admin_client.get(LIST)

    assert len(response.context["cl"].result_list) == 50


def test_pages_lead_back_and_forth_without_a_total(admin_client: Client) -> None:
    calls = make_calls(make_key(make_account()), 120)
    newest_first = [call.id for call in reversed(calls)]

    first = admin_client.get(LIST).context["cl"]
    second = admin_client.get(LIST + first.older_url).context["cl"]
    third = admin_client.get(LIST + second.older_url).context["cl"]
    back = admin_client.get(LIST + third.newer_url).context["cl"]

    pages = [[call.id for call in page.result_list] for page in (first, second, third, back)]
    assert pages == [newest_first[:50], newest_first[50:100], newest_first[100:], newest_first[50:100]]
    assert (first.newer_url, third.older_url) == (None, None)


def test_going_back_to_the_top_shows_a_full_first_page(admin_client: Client) -> None:
    calls = make_calls(make_key(make_account()), 60)

    page = admin_client.get(LIST, {"after": str(calls[30].id)}).context["cl"]

    assert [call.id for call in page.result_list] == [call.id for call in reversed(calls[10:])]
    assert page.newer_url is None


def test_what_no_index_serves_is_looked_for_in_a_window() -> None:
    key = make_key(make_account())
    calls = make_calls(key, 30, rare=2)
    everything, rare = [Usage.objects.all()], Q(provider="rare")

    first = read_page(everything, rare, Cursor(), size=5, window=20)
    assert (first.rows, first.older, first.window_end) == ([], calls[10].id, calls[10].id)

    second = read_page(everything, rare, Cursor(before=first.older), size=5, window=20)
    assert [call.id for call in second.rows] == [calls[2].id]
    assert (second.older, second.window_end) == (None, None)


def test_a_window_reads_forward_too() -> None:
    key = make_key(make_account())
    calls = make_calls(key, 30, rare=15)

    page = read_page([Usage.objects.all()], Q(provider="rare"), Cursor(after=calls[5].id), size=5, window=20)

    assert [call.id for call in page.rows] == [calls[15].id]
    assert (page.newer, page.older) == (calls[25].id, calls[15].id)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"account": "acme"}, {"plain", "failed", "unpriced", "old", "streamed"}),
        ({"account": "Other"}, {"other", "lost"}),
        ({"key": "second"}, {"other", "lost"}),
        ({"model": "gpt-special"}, {"old"}),
        ({"provider": "echo"}, {"unpriced"}),
        ({"instance": "east"}, {"streamed"}),
        ({"instance": "east", "provider": "echo"}, set()),
        ({"status": "open"}, {"other"}),
        ({"status": "void"}, {"failed"}),
        ({"outcome": "failed"}, {"failed", "lost", "taken back"}),
        ({"outcome": "timeout"}, {"failed"}),
        ({"outcome": "undecided"}, {"lost", "streamed"}),
        ({"outcome": "undecided", "account": "Acme"}, {"streamed"}),
        ({"outcome": "undecided", "cost": "disputed"}, {"streamed"}),
        ({"outcome": "lost"}, {"lost", "taken back"}),
        ({"source": "drained"}, {"old"}),
        ({"cost": "unpriced"}, {"unpriced", "taken back"}),
        ({"cost": "unpriced", "account": "Third"}, {"taken back"}),
        ({"cost": "priced", "account": "Third"}, {"priced later"}),
        ({"cost": "disputed"}, {"streamed"}),
        ({"stream": "yes"}, {"streamed"}),
        ({"first": "2026-11-20", "last": "2026-11-20"}, {"plain", "failed", "unpriced", "streamed", "other", "lost"}),
        ({"last": "2026-11-19"}, {"old", "taken back", "priced later"}),
        ({"account": "Acme", "model": "gpt-special", "status": "settled"}, {"old"}),
    ],
)
def test_filters(admin_client: Client, query: dict[str, str], expected: set[str]) -> None:
    key, other = make_key(make_account(), "first"), make_key(make_account("Other"), "second")
    rows = {
        "plain": usage_row(key),
        "failed": usage_row(
            key, status="void", outcome=CallOutcome.TIMEOUT, cost=None, prompt_tokens=0, completion_tokens=0
        ),
        "unpriced": usage_row(key, cost=None, provider="echo"),
        "old": usage_row(key, opened_at=on(date(2026, 11, 19)), model="gpt-special", usage_source="drained"),
        "streamed": disputed_row(key, is_stream=True, provider_instance="east"),
        "lost": lost_row(other),
    }
    third = make_key(make_account("Third"), "third")
    rows |= {
        "taken back": lost_row(third, opened_at=on(date(2025, 1, 1)), model="gpt-late"),
        "priced later": usage_row(third, opened_at=on(date(2025, 1, 1)), cost=None),
    }
    save(*rows.values())
    [in_flight] = save(open_row(other))
    correct(rows["taken back"], AdjustmentSource.SPOOL, cost_pico=None)
    correct(rows["priced later"], AdjustmentSource.PROVIDER, cost_pico=5)
    names = {in_flight.id: "other", **{row.id: name for name, row in rows.items()}}

    assert {names[call.id] for call in listed(admin_client, **query)} == expected


def correct(row: Usage, source: AdjustmentSource, *, cost_pico: int | None) -> None:
    """Of the same tokens."""
    counts = compute_figures(row, ()).counts
    adjust_now(row.pk, source, counts=counts, cost_pico=cost_pico, is_billable=True, reason="known by now")


def test_the_list_and_the_page_show_an_instance_that_has_another_name_than_its_provider(admin_client: Client) -> None:
    key = make_key(make_account())
    calls = save(usage_row(key, provider_instance="east"), usage_row(key, provider_instance="openai"), usage_row(key))
    pages = [
        admin_client.get(LIST).content.decode(),
        *(admin_client.get(f"{LIST}{call.pk}/change/").content.decode() for call in calls),
    ]
    assert [page.count("openai (east)") for page in pages] == [1, 1, 0, 0]
    assert not any("(openai)" in page for page in pages)


def test_both_kinds_of_unpriced_calls_are_one_list(admin_client: Client) -> None:
    key = make_key(make_account())
    moments = [on(date(2026, 11, 20), hour) for hour in range(1, 7)]
    rows = save(
        *(lost_row(key, opened_at=at) if at.hour % 2 else usage_row(key, opened_at=at, cost=None) for at in moments)
    )
    for row in rows:
        if row.outcome == CallOutcome.LOST:
            correct(row, AdjustmentSource.SPOOL, cost_pico=None)
    newest_first = [row.id for row in reversed(rows)]
    kinds = (Usage.objects.never_priced(), Usage.objects.cost_taken_back())

    first = read_page(kinds, Q(), Cursor(), size=4)
    second = read_page(kinds, Q(), Cursor(before=first.older), size=4)
    back = read_page(kinds, Q(), Cursor(after=newest_first[3]), size=2)
    windowed = read_page(kinds, Q(model="no-such"), Cursor(), size=4, window=2)

    pages = [[call.id for call in page.rows] for page in (first, second, back)]
    assert pages == [newest_first[:4], newest_first[4:], newest_first[1:3]]
    assert (windowed.rows, windowed.older) == ([], newest_first[2])
    assert [call.id for call in listed(admin_client, cost="unpriced")] == newest_first


def test_a_day_is_that_of_the_account_wherever_it_is(admin_client: Client) -> None:
    key = make_key(make_account())
    day = date(2026, 11, 20)
    early, late = on(day - timedelta(days=1), 10), on(day + timedelta(days=1), 11)
    rows = save(usage_row(key, opened_at=early, local_day=day), usage_row(key, opened_at=late, local_day=day))

    found = listed(admin_client, first="2026-11-20", last="2026-11-20")

    assert {call.id for call in found} == {row.id for row in rows}


def test_a_call_is_found_by_any_of_its_ids(admin_client: Client) -> None:
    key, request_id = make_key(make_account()), uuid4()
    first, second = save(
        usage_row(key, request_id=request_id, upstream_response_id="chatcmpl-1"),
        usage_row(key, request_id=request_id, attempt=2),
    )
    make_calls(key, 3)

    assert [call.id for call in listed(admin_client, id=str(second.id))] == [second.id]
    assert {call.id for call in listed(admin_client, id=str(request_id))} == {first.id, second.id}
    assert [call.id for call in listed(admin_client, id="chatcmpl-1")] == [first.id]


@pytest.mark.parametrize("query", [{"account": "Nobody"}, {"key": "nothing"}, {"first": "someday"}, {"status": "x"}])
def test_a_wrong_filter_shows_nothing_and_says_why(admin_client: Client, query: dict[str, str]) -> None:
    make_calls(make_key(make_account()), 2)

    changelist = admin_client.get(LIST, query).context["cl"]

    assert changelist.result_list == []
    assert list(changelist.filter_form.errors) == list(query)


def test_unknown_parameters_and_cursors_do_no_harm(admin_client: Client) -> None:
    make_calls(make_key(make_account()), 2)

    for query in ("?before=nonsense", "?o=1.2", "?p=7", "?e=1", "?account__name__contains=A", "?all="):
        assert admin_client.get(LIST + query).status_code == 200


def test_a_call_shows_its_request_and_exact_cost(admin_client: Client) -> None:
    key, request_id = make_key(make_account()), uuid4()
    call, other = save(
        usage_row(key, request_id=request_id, cost=Decimal("0.000000000001")),
        usage_row(key, request_id=request_id, attempt=2),
    )

    page = admin_client.get(f"{LIST}{call.id}/change/")

    text = page.content.decode()
    assert "$0.000000000001" in text
    assert f"{LIST}{other.id}/change/" in text


def test_usage_can_only_be_looked_at(admin_client: Client) -> None:
    (call,) = make_calls(make_key(make_account()), 1)

    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(f"{LIST}{call.id}/change/", {"model": "x"}).status_code == 403
    assert admin_client.post(f"{LIST}{call.id}/delete/", {"post": "yes"}).status_code == 403
    assert Usage.objects.get().model == "gpt-test"


def test_usage_takes_its_permission(client: Client) -> None:
    user = User.objects.create_user("helper", is_staff=True)
    client.force_login(user)
    assert client.get(LIST).status_code == 403

    user.user_permissions.add(Permission.objects.get(codename="view_usage"))
    assert client.get(LIST).status_code == 200


def test_a_call_says_why_its_price_did_not_price_it(admin_client: Client) -> None:
    price = set_price("openai", "gpt-test", rates={Meter.INPUT: Decimal(1)}, effective_from=NOON)
    meters = {"unreported_tools": 1}
    (call,) = save(
        usage_row(make_key(make_account()), price=price, cost=None, extra_meters=meters, flags="tools_unreported")
    )

    text = admin_client.get(f"{LIST}{call.id}/change/").content.decode()

    assert "This price has no rate for something the call used" in text
    assert "The provider ran tools and didn't report their units." in text


# --- What is filtered, added up and in other orders -------------------------------------------------------------------


def test_a_filtered_list_is_added_up_with_its_corrections(admin_client: Client) -> None:
    key, other = make_key(make_account()), make_key(make_account("Other"))
    rows = save(*(usage_row(key) for _ in range(3)), lost_row(key), usage_row(key, cost=None), usage_row(other))
    adjust_now(
        rows[3].pk,
        AdjustmentSource.DECISION,
        counts=TokenCounts(1000, 20),
        cost_pico=10**12,
        is_billable=True,
        reason="as they say",
    )
    totals = admin_client.get(LIST, {"account": "Acme"}).context["cl"].totals
    assert (totals.calls, totals.unpriced, totals.edge) == (5, 1, None)
    assert totals.cost == sum((row.cost or Decimal(0) for row in rows[:3]), Decimal(0)) + 1
    assert admin_client.get(LIST).context["cl"].totals is None


def test_totals_and_orders_stop_at_a_window() -> None:
    calls = make_calls(make_key(make_account()), 10, rare=2)
    everything = [Usage.objects.all()]
    assert read_totals(everything, Q(), window=4).calls == 4
    assert read_totals(everything, Q(), window=4).edge == calls[6].id
    assert read_totals(everything, Q(provider="rare"), window=4).calls == 0
    assert read_totals(everything, Q(provider="rare"), window=100).calls == 1
    ids, has_more = read_sorted(everything, Q(), by="cost", offset=0, size=3, window=4)
    assert (ids, has_more) == ([call.id for call in calls[:5:-1]][:3], True)


@pytest.mark.parametrize(
    ("order", "names"),
    [("cost", ["dear", "slow", "long"]), ("tokens", ["long", "dear", "slow"]), ("duration", ["slow", "long", "dear"])],
)
def test_calls_are_listed_by_a_figure(admin_client: Client, order: str, names: list[str]) -> None:
    key = make_key(make_account())
    save(
        usage_row(key, model="dear", cost=Decimal(3), prompt_tokens=200, duration_ms=1),
        usage_row(key, model="slow", cost=Decimal(2), prompt_tokens=100, duration_ms=9000),
        usage_row(key, model="long", cost=Decimal(1), prompt_tokens=5000, duration_ms=100),
        open_row(key),
    )
    assert [call.model for call in listed(admin_client, order=order) if call.model in names] == names


def test_pages_of_another_order_follow_each_other(admin_client: Client) -> None:
    make_calls(make_key(make_account()), 60)
    first = admin_client.get(LIST, {"order": "cost"}).context["cl"]
    second = admin_client.get(LIST + first.following_url).context["cl"]
    assert [len(page.result_list) for page in (first, second)] == [50, 10]
    assert not {call.pk for call in first.result_list} & {call.pk for call in second.result_list}
    assert (first.preceding_url, second.following_url) == ("", "")
    assert admin_client.get(LIST, {"order": "cost", "from": "x"}).status_code == 200


def test_a_call_is_found_by_the_beginning_of_an_id(admin_client: Client) -> None:
    call, other = make_calls(make_key(make_account()), 2)
    for text in (
        str(call.request_id)[:8],
        f"req_{call.request_id.hex[:10]}",
        call.request_id.hex[:9].upper(),
        call.id.hex,
    ):
        assert [found.pk for found in listed(admin_client, id=text)] == [call.pk], text
    both = {found.pk for found in listed(admin_client, id=str(call.id)[:8])}
    assert both == {call.pk, other.pk}
    assert listed(admin_client, id="abc") == []


def test_a_cost_is_shown_as_a_sum(admin_client: Client) -> None:
    price = set_price(
        "openai", "gpt-test", rates={Meter.INPUT: Decimal(3), Meter.OUTPUT: Decimal(15)}, effective_from=NOON
    )
    [rate_set] = price.rate_sets.all()
    key = make_key(make_account())
    [call] = save(
        usage_row(
            key, prompt_tokens=582, completion_tokens=784, price=price, rate_set=rate_set, cost=Decimal("0.013506")
        )
    )
    response = admin_client.get(f"{LIST}{call.pk}/change/")
    assert [(term.units, term.price, term.cost) for term in response.context["cost_terms"]] == [
        (582, "$3.00", Decimal("0.001746")),
        (784, "$15.00", Decimal("0.01176")),
    ]
    [odd] = save(
        usage_row(key, prompt_tokens=582, completion_tokens=784, price=price, rate_set=rate_set, cost=Decimal(1))
    )
    assert admin_client.get(f"{LIST}{odd.pk}/change/").context["cost_terms"] == ()
