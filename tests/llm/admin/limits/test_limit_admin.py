from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from llm.admin.limits.standing import load_standings, nearly_full
from llm.limits.changes import archive_limit
from llm.limits.periods import EVER, period_of
from llm.models import Account, Limit, LimitWindow
from tests.llm.admin.factories import make_account, make_key, make_limit, messages_of, staff_with
from tests.pages import confirm, seen_on, send, text_of

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/limit/"
ADD = f"{LIST}add/"


def new_limit(account: Account, **values: str) -> dict[str, str]:
    return {"account": str(account.pk), "metric": "tokens", "per": "month", "amount": "1,000,000", **values}


def change_url(limit: Limit) -> str:
    return f"{LIST}{limit.pk}/change/"


def listed(client: Client, **query: str) -> list[Limit]:
    return list(client.get(LIST, query).context["cl"].result_list)


@pytest.mark.parametrize(
    ("metric", "text", "amount"),
    [("tokens", "1,000,000", 1_000_000), ("requests", "60", 60), ("cost", "$12.50", 12_500_000), ("tokens", "0", 0)],
)
def test_a_limit_is_set_as_people_write_it(admin_client: Client, metric: str, text: str, amount: int) -> None:
    account = make_account()

    response = admin_client.post(ADD, new_limit(account, metric=metric, amount=text, soft_percent="80"))

    limit = Limit.objects.get()
    assert response.status_code == 302
    assert (limit.account, limit.api_key, limit.metric, limit.per) == (account, None, metric, "month")
    assert (limit.amount, limit.soft_percent) == (amount, 80)
    assert LogEntry.objects.get().change_message.endswith("per month, alert at 80 %.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"amount": "many"}, "“many” is not a whole number such as 60 or 1,000,000."),
        ({"amount": "-5"}, "“-5” is not a whole number"),
        ({"amount": "1.5"}, "“1.5” is not a whole number"),
        ({"amount": "10000000000000000"}, "is higher than a limit can be"),
        ({"amount": "9" * 50}, "at most 40 characters"),
        ({"amount": ""}, "This field is required."),
        ({"metric": "cost", "amount": "0.0000001"}, "has more than 6 decimals."),
        ({"metric": "cost", "amount": "1e3"}, "is not an amount in USD such as 12.50."),
        ({"metric": "calls"}, "Select a valid choice."),
        ({"metric": "", "amount": "x"}, "This field is required."),
        ({"per": "week"}, "Select a valid choice."),
        ({"soft_percent": "101"}, "less than or equal to 100"),
        ({"soft_percent": "0"}, "greater than or equal to 1"),
        ({"account": "x"}, "Select a valid choice."),
        ({"account": "99999999999999999999"}, "Select a valid choice."),
        ({"api_key": "77"}, "Select a valid choice."),
    ],
)
def test_a_wrong_form_sets_nothing(admin_client: Client, values: dict[str, str], complaint: str) -> None:
    response = admin_client.post(ADD, {**new_limit(make_account()), **values})

    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert not Limit.objects.exists()


def test_a_limit_for_each_end_user_stands_beside_one_for_all(admin_client: Client) -> None:
    account = make_account()
    each = {"is_per_end_user": "on", "metric": "requests", "per": "total", "amount": "9"}

    assert admin_client.post(ADD, new_limit(account, **{**each, "is_per_end_user": ""})).status_code == 302
    assert admin_client.post(ADD, new_limit(account, **each)).status_code == 302
    again = admin_client.post(ADD, new_limit(account, **each))

    assert "This account already has such a limit." in again.content.decode()
    limit = Limit.objects.get(is_per_end_user=True)
    LimitWindow.objects.create(end_user_limit=limit, end_user="a" * 32, starts_at=EVER, used=3)
    page = text_of(admin_client.get(change_url(limit)))
    assert "9 requests in total for each end user" in page
    assert "3 used at most by one end user" in page
    assert "9 requests in total for each end user" in text_of(admin_client.get(LIST))


def test_a_limit_that_one_end_user_has_nearly_used_is_among_the_full_ones(admin_client: Client) -> None:
    account = make_account()
    for amount, per in ((10, "total"), (10, "month"), (0, "day")):
        limit = make_limit(account, amount=amount, per=per, is_per_end_user=True)
        LimitWindow.objects.create(end_user_limit=limit, end_user="a" * 32, starts_at=EVER, used=8, held=1)
    assert [limit.per for limit in listed(admin_client, state="full")] == ["total"]
    assert listed(admin_client, state="full", is_per_end_user__exact="0") == []


def test_end_users_who_cannot_be_told_apart_are_not_limited(admin_client: Client) -> None:
    account = make_account()
    Account.objects.update(records_end_users=False)

    response = admin_client.post(ADD, new_limit(account, is_per_end_user="on"))

    assert "This account doesn't record end users, so they can't be limited one by one." in text_of(response)
    assert not Limit.objects.exists()


def test_a_key_of_another_account_is_refused(admin_client: Client) -> None:
    key = make_key(make_account("Other"))

    response = admin_client.post(ADD, new_limit(make_account(), api_key=str(key.pk)))

    assert "This key belongs to another account." in response.content.decode()
    assert not Limit.objects.exists()


@pytest.mark.parametrize("is_of_key", [False, True])
def test_the_same_limit_is_not_set_twice(admin_client: Client, is_of_key: bool) -> None:
    account = make_account()
    key = make_key(account) if is_of_key else None
    make_limit(account, api_key=key, amount=5)

    response = admin_client.post(ADD, new_limit(account, api_key=str(key.pk) if key else ""))

    owner = "key" if is_of_key else "account"
    assert response.content.decode().count(f"This {owner} already has such a limit. Change that one.") == 1
    assert Limit.objects.get().amount == 5


def test_an_ended_limit_stands_in_nobodys_way(admin_client: Client) -> None:
    account = make_account()
    archive_limit(make_limit(account))

    admin_client.post(ADD, new_limit(account))

    assert list(Limit.objects.in_force().values_list("amount", flat=True)) == [1_000_000]


def test_only_amount_and_threshold_change(admin_client: Client) -> None:
    account, other = make_account(), make_account("Other")
    limit = make_limit(account, metric="cost", amount=5_000_000)
    page = admin_client.get(change_url(limit)).content.decode()
    form = {**new_limit(other, metric="tokens", per="day"), "amount": "7.25", "soft_percent": ""}

    send(admin_client, change_url(limit), form)

    changed = Limit.objects.get()
    assert 'value="5.00"' in page
    assert (changed.account, changed.metric, changed.per) == (account, "cost", "month")
    assert (changed.amount, changed.soft_percent) == (7_250_000, None)
    assert LogEntry.objects.get().change_message == "Changed to $7.25 per month, no alert."


def test_a_wrong_change_is_a_form_error(admin_client: Client) -> None:
    limit = make_limit(make_account())

    response = send(admin_client, change_url(limit), {"amount": "12.5", "soft_percent": ""})

    assert "“12.5” is not a whole number" in response.content.decode()
    assert Limit.objects.get().amount == 1000


def test_a_limit_that_was_ended_meanwhile_is_not_changed(admin_client: Client) -> None:
    limit = make_limit(make_account())
    seen = seen_on(admin_client, change_url(limit))
    archive_limit(limit)

    page = text_of(admin_client.post(change_url(limit), {**seen, "amount": "5", "soft_percent": ""}))

    assert "This limit has ended. To set a limit again, add a new one." in page
    assert 'name="amount" value="5"' in page
    assert Limit.objects.get().amount == 1000
    assert not LogEntry.objects.exists()


def test_ending_asks_first_and_only_a_post_does_it(admin_client: Client) -> None:
    limit = make_limit(make_account())
    url = f"{LIST}{limit.pk}/action/end/"

    assert "It stops applying with the next call." in admin_client.get(url).content.decode()
    assert Limit.objects.in_force().exists()

    response = send(admin_client, url)
    assert messages_of(response) == ["1 limit ended."]
    assert not Limit.objects.in_force().exists()
    assert LogEntry.objects.get().change_message == "Ended: 1,000 tokens per month."


def test_limits_are_ended_together_after_one_question(admin_client: Client) -> None:
    account = make_account()
    limits = [make_limit(account, per=per) for per in ("minute", "day", "month")]
    form: dict[str, Any] = {"action": "end", "_selected_action": [limit.pk for limit in limits]}

    response = confirm(admin_client, LIST, form)

    assert messages_of(response) == ["3 limits ended."]
    assert not Limit.objects.in_force().exists()


def test_an_ended_limit_is_only_looked_at(admin_client: Client) -> None:
    limit = make_limit(make_account(), used=500)
    archive_limit(limit)

    page = admin_client.get(change_url(limit)).content.decode()

    assert "ended" in page
    assert 'name="amount"' not in page
    assert "This limit has ended." in text_of(admin_client.post(change_url(limit), {"amount": "1"}))
    assert admin_client.post(f"{LIST}{limit.pk}/action/end/").status_code == 403
    assert Limit.objects.get().amount == 1000


def test_limits_are_never_deleted(admin_client: Client) -> None:
    limit = make_limit(make_account())

    assert admin_client.post(f"{LIST}{limit.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Limit.objects.exists()


def test_the_list_says_what_is_used(admin_client: Client) -> None:
    account = make_account(time_zone="Asia/Kathmandu")
    make_limit(account, used=700, held=112, soft_percent=80)
    make_limit(account, metric="cost", amount=2_000_000, per="total", used=500_000, api_key=make_key(account))
    # A period that is over has no say.
    LimitWindow.objects.create(
        limit=make_limit(account, per="day"), starts_at=timezone.now() - timedelta(days=9), used=9
    )

    page = admin_client.get(LIST).content.decode()

    for text in (
        "1,000 tokens per month",
        "81 %",
        "700 used, 112 reserved",
        "80 %",
        "$2.00 in total",
        "25 %",
        "never",
    ):
        assert text in page
    assert ">0 used<" in page


@pytest.mark.slow
def test_filters(admin_client: Client) -> None:
    acme, other = make_account(), make_account("Other")
    limits = {
        "plain": make_limit(acme),
        "full": make_limit(acme, per="day", used=400, held=500),
        "cost": make_limit(other, metric="cost"),
        "ended": make_limit(other, per="hour"),
    }
    archive_limit(limits["ended"])
    names = {limit.pk: name for name, limit in limits.items()}

    def found(**query: str) -> set[str]:
        return {names[limit.pk] for limit in listed(admin_client, **query)}

    assert found() == {"plain", "full", "cost"}
    assert found(state="full") == {"full"}
    assert found(state="ended") == {"ended"}
    assert found(state="all") == set(limits)
    assert found(account=str(other.pk)) == {"cost"}
    assert found(metric__exact="cost") == {"cost"}
    assert found(per__exact="day") == {"full"}
    assert found(account="nonsense") == set()
    assert found(q="Other") == {"cost"}


def test_nearly_full_is_of_the_current_period_of_the_accounts_zone() -> None:
    now = timezone.now()
    near, far = make_account("Near"), make_account("Far", time_zone="Pacific/Kiritimati")
    full = make_limit(near, used=799, held=1, per="day")
    abroad = make_limit(far, used=5000, per="day")
    make_limit(near, used=799, per="hour")
    make_limit(near, amount=0, used=3, metric="requests")
    other_start = period_of("day", "UTC", now).starts_at - timedelta(days=1)
    LimitWindow.objects.create(limit=make_limit(near, metric="cost"), starts_at=other_start, used=1000)
    archive_limit(make_limit(far, metric="requests", used=1000))

    assert set(nearly_full(now)) == {full, abroad}


def test_percents_are_rounded_down_and_go_beyond_a_hundred() -> None:
    account = make_account()
    limits = [
        make_limit(account, per="hour", used=999),
        make_limit(account, per="day", used=2500),
        make_limit(account, amount=0),
    ]

    limits = list(Limit.objects.select_related("account").filter(pk__in=[limit.pk for limit in limits]).order_by("pk"))

    assert [standing.percent for standing in load_standings(limits, timezone.now())] == [99, 250, 100]


@pytest.mark.slow
def test_the_list_takes_as_many_queries_for_50_limits_as_for_one(
    admin_client: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(50):
        account = make_account(f"account {number}")
        make_limit(account, api_key=make_key(account), used=5)

    with django_assert_max_num_queries(6):
        response = admin_client.get(LIST)

    assert len(response.context["cl"].result_list) == 50


def test_an_account_and_a_key_show_the_limits_that_bind_them(admin_client: Client) -> None:
    account = make_account()
    key, sibling = make_key(account, "first"), make_key(account, "second")
    whole = make_limit(account, used=500)
    own = make_limit(account, api_key=key, amount=10)
    others = make_limit(account, api_key=sibling, amount=20)
    archive_limit(make_limit(account, per="day"))

    of_account = admin_client.get(f"/admin/llm/account/{account.pk}/change/")
    of_key = admin_client.get(f"/admin/llm/apikey/{key.pk}/change/")

    def shown(response: Any) -> set[Limit]:
        return {standing.limit for standing in response.context["limit_standings"]}

    assert (shown(of_account), shown(of_key)) == ({whole, own, others}, {whole, own})
    assert "500 used" in of_account.content.decode()
    assert f"{ADD}?account={account.pk}&amp;api_key={key.pk}" in of_key.content.decode()


def test_the_link_to_add_a_limit_fills_the_form(admin_client: Client) -> None:
    key = make_key(make_account())

    page = admin_client.get(ADD, {"account": str(key.account_id), "api_key": str(key.pk)}).content.decode()

    assert f'<option value="{key.account_id}" selected>Acme</option>' in page
    assert f'<option value="{key.pk}" selected>' in page
    assert "Earlier usage in the period is not counted." in page


@pytest.mark.parametrize("value", ["x", "99999999999999999999", "-1", ""])
def test_a_wrong_link_does_no_harm(admin_client: Client, value: str) -> None:
    assert (
        admin_client.get(ADD, {"account": value, "api_key": value, "metric": value, "nope": value}).status_code == 200
    )


@pytest.mark.parametrize(
    ("permissions", "seen", "added", "ended"),
    [
        ((), 403, 403, 403),
        (("view_limit",), 200, 403, 403),
        (("change_limit",), 200, 403, 200),
        (("add_limit",), 403, 200, 403),
    ],
)
def test_permissions_hold_in_every_view(permissions: tuple[str, ...], seen: int, added: int, ended: int) -> None:
    limit = make_limit(make_account())
    client = staff_with(*permissions)

    urls = (LIST, ADD, f"{LIST}{limit.pk}/action/end/")

    assert [client.get(url).status_code for url in urls] == [seen, added, ended]


def test_who_may_not_see_limits_sees_none_on_an_account() -> None:
    account = make_account()
    make_limit(account)

    page = staff_with("view_account").get(f"/admin/llm/account/{account.pk}/change/").content.decode()

    assert "1,000 tokens per month" not in page
    assert "<h2>Limits</h2>" not in page
