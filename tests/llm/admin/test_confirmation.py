"""What a question showed is what its answer acts on: a row that somebody has changed meanwhile is left as it is."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from llm.enums import Meter
from llm.keys import rotate_key
from llm.models import Account, ApiKey, Limit, UsageAdjustment
from llm.prices.staff import set_price
from tests.llm.admin.factories import NOON, lost_row, make_account, make_key, make_limit, messages_of, save
from tests.pages import seen_on, text_of

pytestmark = pytest.mark.django_db


def test_an_account_that_was_closed_meanwhile_is_not_opened_again(admin_client: Client) -> None:
    account = make_account(status="suspended")
    url = f"/admin/llm/account/{account.pk}/action/activate/"
    seen = seen_on(admin_client, url)
    Account.objects.update(status="closed")

    answer = admin_client.post(url, seen)

    assert messages_of(answer) == [
        "1 account was changed since this page was opened, and was left as it is. Look at it and try again."
    ]
    assert Account.objects.get().status == "closed"
    assert not LogEntry.objects.exists()


def test_of_several_rows_those_that_changed_are_left_as_they_are(admin_client: Client) -> None:
    account = make_account()
    limits = [make_limit(account, per=per) for per in ("minute", "hour", "day")]
    chosen: dict[str, Any] = {"action": "end", "_selected_action": [limit.pk for limit in limits]}
    seen = seen_on(admin_client, "/admin/llm/limit/", chosen)
    Limit.objects.filter(per__in=("minute", "hour")).update(amount=7)

    answer = admin_client.post("/admin/llm/limit/", {**chosen, **seen, "confirmed": "yes"})

    assert messages_of(answer) == [
        "2 limits were changed since this page was opened, and were left as they are. Look at them and try again.",
        "1 limit ended.",
    ]
    assert list(Limit.objects.in_force().order_by("per").values_list("per", flat=True)) == ["hour", "minute"]


@pytest.mark.parametrize("data", [{}, {"confirmed": "yes"}])
def test_an_answer_without_its_question_is_asked_first(admin_client: Client, data: dict[str, str]) -> None:
    account = make_account()

    answer = admin_client.post(f"/admin/llm/account/{account.pk}/action/close/", data)

    assert "Their billing month ends" in text_of(answer)
    assert Account.objects.get().status == "active"


def test_a_key_that_was_rotated_meanwhile_is_not_rotated_again(admin_client: Client) -> None:
    key = make_key(make_account())
    url = reverse("admin:llm_apikey_rotate", args=(key.pk,))
    seen = seen_on(admin_client, url)
    rotate_key(key, grace=timedelta(days=1))

    answer = admin_client.post(url, {**seen, "grace": "0"})

    assert messages_of(answer) == [
        "The key was changed since the page was opened. It was not rotated: look at it and try again."
    ]
    assert ApiKey.objects.count() == 2


def test_a_webhook_secret_that_was_made_meanwhile_is_not_replaced(admin_client: Client) -> None:
    account = make_account()
    url = f"/admin/llm/account/{account.pk}/webhook-secret/"
    first, second = seen_on(admin_client, url), seen_on(admin_client, url)
    admin_client.post(url, first)
    made = Account.objects.get().webhook_secret
    assert made

    answer = admin_client.post(url, second)

    assert messages_of(answer) == [
        "The webhook secret was changed since the page was opened. It was not replaced again."
    ]
    assert Account.objects.get().webhook_secret == made


def test_an_estimate_that_was_corrected_meanwhile_is_not_confirmed(admin_client: Client) -> None:
    price = set_price("openai", "gpt-test", rates={Meter.INPUT: Decimal(1)}, effective_from=NOON)
    (call,) = save(lost_row(make_key(make_account()), price=price, rate_set=price.rate_sets.get()))
    url = f"/admin/llm/usage/{call.pk}/decide/"
    form = {"billable": "yes", "figures": "estimate", "reason": "as the page says"}

    answer = text_of(admin_client.post(url, {**form, "seen": "of another page"}))

    assert "The figures of this call were changed since this page was opened. Check them and try again." in answer
    assert "as the page says" in answer
    assert not UsageAdjustment.objects.exists()
