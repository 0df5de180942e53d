from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from llm.admin.format import NOTHING, signed_count, signed_usd
from llm.books.adjusting import decide_call
from llm.books.figures import figures_of
from llm.enums import Meter, PriceSource
from llm.models import Price, Rate, RateSet, RefusedWrite, Usage, UsageAdjustment
from llm.prices import set_price
from llm.triggers import missing_triggers
from llm.types import Service, TokenCounts
from llm.verification import verify
from tests.llm.admin.factories import (
    NOON,
    disputed_row,
    lost_row,
    make_account,
    make_key,
    messages_of,
    save,
    staff_with,
    usage_row,
)

pytestmark = pytest.mark.django_db

LIST = "/admin/llm/usage/"
QUEUE = f"{LIST}?outcome=undecided"


@pytest.fixture
def call() -> Usage:
    """A lost call of 100 tokens in and 20 out at 1 USD in and 10 USD out a million, so of 0.0003 USD."""
    rates = {Meter.INPUT: Decimal(1), Meter.OUTPUT: Decimal(10)}
    price = set_price("openai", "gpt-test", rates=rates, effective_from=NOON)
    (row,) = save(lost_row(make_key(make_account()), price=price, rate_set=price.rate_sets.get()))
    return row


@pytest.fixture
def disputed(call: Usage) -> Usage:
    """As `call`, but its upstream said what can't be true."""
    claim = {"prompt_tokens": -5, "note": "<b>bold</b>"}
    (row,) = save(disputed_row(call.api_key, price=call.price, rate_set=call.rate_set, disputed_usage=claim))
    return row


def decision(**values: str) -> dict[str, str]:
    return {"billable": "yes", "figures": "estimate", "reason": "The provider's log has it.", **values}


def decide_url(call: Usage) -> str:
    return f"{LIST}{call.pk}/decide/"


def test_an_estimate_is_kept_and_billed(admin_client: Client, admin_user: User, call: Usage) -> None:
    response = admin_client.post(decide_url(call), decision())

    adjustment = UsageAdjustment.objects.get()
    assert response["Location"] == QUEUE
    assert messages_of(response) == ["Decided: 100 tokens in, 20 out, $0.0003, billable."]
    assert (adjustment.usage, adjustment.source, adjustment.is_billable) == (call, "decision", True)
    assert (adjustment.prompt_tokens, adjustment.completion_tokens, adjustment.cost) == (0, 0, Decimal(0))
    assert (adjustment.reason, adjustment.decided_by) == ("The provider's log has it.", admin_user)
    assert LogEntry.objects.get().change_message == "Decided: 100 tokens in, 20 out, $0.0003, billable."


def test_typed_tokens_are_priced_as_the_call_was(admin_client: Client, call: Usage) -> None:
    form = decision(billable="no", figures="typed", prompt_tokens="1000", completion_tokens="0")

    response = admin_client.post(decide_url(call), form)

    adjustment = UsageAdjustment.objects.get()
    assert messages_of(response) == ["Decided: 1,000 tokens in, 0 out, $0.001, not billable."]
    assert (adjustment.prompt_tokens, adjustment.completion_tokens) == (900, -20)
    assert (adjustment.cost, adjustment.is_billable) == (Decimal("0.0007"), False)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"reason": " "}, "This field is required."),
        ({"reason": "x" * 501}, "at most 500 characters"),
        ({"billable": ""}, "This field is required."),
        ({"billable": "perhaps"}, "Select a valid choice."),
        ({"figures": "guess"}, "Select a valid choice."),
        ({"figures": "typed"}, "Give a number; 0 is one."),
        ({"prompt_tokens": "0"}, "This would not count"),
        ({"figures": "typed", "prompt_tokens": "1", "completion_tokens": "x"}, "Enter a whole number."),
        ({"figures": "typed", "prompt_tokens": "-1", "completion_tokens": "1"}, "greater than or equal to 0"),
        ({"figures": "typed", "prompt_tokens": "1", "completion_tokens": "9" * 30}, "less than or equal to"),
    ],
)
def test_a_wrong_form_decides_nothing(
    admin_client: Client, call: Usage, values: dict[str, str], complaint: str
) -> None:
    response = admin_client.post(decide_url(call), decision(**values))

    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert not UsageAdjustment.objects.exists()


def test_a_call_is_decided_once(admin_client: Client, call: Usage) -> None:
    admin_client.post(decide_url(call), decision())

    for response in (admin_client.post(decide_url(call), decision(billable="no")), admin_client.get(decide_url(call))):
        assert response["Location"] == f"{LIST}{call.pk}/change/"
        assert "What this call has used is known already." in messages_of(response)
    assert UsageAdjustment.objects.get().is_billable is True


def test_two_who_decide_at_once_decide_once(admin_client: Client, call: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's page was read before the first one's decision."""

    def somebody_was_quicker(*args: Any, **kwargs: Any) -> UsageAdjustment:
        monkeypatch.undo()
        decide_call(call.pk, counts=None, is_billable=False, reason="First.", user=None)
        return decide_call(*args, **kwargs)

    monkeypatch.setattr("llm.admin.decisions.decide_call", somebody_was_quicker)

    response = admin_client.post(decide_url(call), decision())

    assert response["Location"] == f"{LIST}{call.pk}/change/"
    assert len(messages_of(response)) == 1
    assert not LogEntry.objects.exists()


def test_figures_without_a_cost_do_not_keep_that_of_the_estimate(admin_client: Client) -> None:
    rates = {Meter.INPUT: Decimal(900_000)}
    price = set_price("openai", "gpt-test", rates=rates, effective_from=NOON)
    (call,) = save(lost_row(make_key(make_account()), price=price, completion_tokens=0))
    form = decision(figures="typed", prompt_tokens="1000000000", completion_tokens="0")

    response = admin_client.post(decide_url(call), form)

    assert "has no cost for so many tokens." in response.content.decode()
    assert not UsageAdjustment.objects.exists()


def test_other_calls_are_not_decided(admin_client: Client) -> None:
    (settled,) = save(usage_row(make_key(make_account())))

    response = admin_client.post(decide_url(settled), decision())

    assert messages_of(response) == ["What this call has used is known already."]
    assert not UsageAdjustment.objects.exists()
    assert admin_client.get(f"{LIST}{settled.request_id}/decide/").status_code == 404
    assert admin_client.get(f"{LIST}17/decide/").status_code in (302, 404)


@pytest.mark.parametrize(("permissions", "seen", "decided"), [((), 403, 403), (("view_usage",), 200, 403)])
def test_deciding_takes_its_permission(call: Usage, permissions: tuple[str, ...], seen: int, decided: int) -> None:
    client = staff_with(*permissions)
    page = client.get(f"{LIST}{call.pk}/change/")

    assert page.status_code == seen
    assert decide_url(call) not in page.content.decode()
    assert client.get(decide_url(call)).status_code == decided
    assert client.post(decide_url(call), decision()).status_code == decided
    assert not UsageAdjustment.objects.exists()


def test_who_may_change_usage_decides_but_edits_nothing(call: Usage) -> None:
    client = staff_with("change_usage")

    assert decide_url(call) in client.get(f"{LIST}{call.pk}/change/").content.decode()
    assert client.post(f"{LIST}{call.pk}/change/", {"model": "x"}).status_code == 403
    assert client.post(decide_url(call), decision()).status_code == 302
    assert UsageAdjustment.objects.count() == 1


def test_the_queue_holds_what_nobody_has_decided(admin_client: Client, call: Usage) -> None:
    key = call.api_key
    late, decided = save(lost_row(key), lost_row(key))
    decide_call(decided.pk, counts=None, is_billable=True, reason="Known.", user=None)
    values: dict[str, Any] = {"usage": late, "is_billable": True, "recorded_at": NOON, "reason": "late"}
    UsageAdjustment(source="spool", **values).stamp_digest().save()

    assert [row.pk for row in admin_client.get(QUEUE).context["cl"].result_list] == [call.pk]


def test_disputed_calls_wait_in_the_same_queue(admin_client: Client, call: Usage, disputed: Usage) -> None:
    assert {row.pk for row in admin_client.get(QUEUE).context["cl"].result_list} == {call.pk, disputed.pk}

    decide_call(disputed.pk, counts=None, is_billable=False, reason="Ours, then.", user=None)

    assert [row.pk for row in admin_client.get(QUEUE).context["cl"].result_list] == [call.pk]


def test_who_decides_on_a_disputed_call_sees_what_its_upstream_said(admin_client: Client, disputed: Usage) -> None:
    page = admin_client.get(decide_url(disputed)).content.decode()

    assert "Decide on a disputed call" in page
    assert "can&#x27;t be true" in page or "can't be true" in page
    assert "&quot;prompt_tokens&quot;: -5" in page
    assert "<b>bold" not in page


def test_a_disputed_call_is_billed_by_what_staff_found_out(admin_client: Client, disputed: Usage) -> None:
    detail = f"{LIST}{disputed.pk}/change/"
    assert "not billable until somebody decides" in admin_client.get(detail).content.decode()
    form = decision(figures="typed", prompt_tokens="1000", completion_tokens="10", reason="Their dashboard.")

    response = admin_client.post(decide_url(disputed), form)

    adjustment = disputed.adjustments.get()
    assert messages_of(response) == ["Decided: 1,000 tokens in, 10 out, $0.0011, billable."]
    assert (adjustment.source, adjustment.prompt_tokens, adjustment.completion_tokens) == ("decision", 900, -10)
    assert (adjustment.cost, adjustment.is_billable, adjustment.rate_set) == (Decimal("0.0008"), True, None)
    assert "until somebody decides" not in admin_client.get(detail).content.decode()
    disputed.refresh_from_db()
    assert (disputed.is_disputed, disputed.is_billable, disputed.prompt_tokens) == (True, False, 100)


def test_absurd_figures_that_came_too_late_are_shown_with_the_lost_call(admin_client: Client, call: Usage) -> None:
    document = {"disputed_usage": {"prompt_tokens": -17}}
    RefusedWrite.objects.create(digest="a", usage_id=call.pk, reason="disputed", document=document)
    RefusedWrite.objects.create(
        digest="b", usage_id=uuid4(), reason="of another", document={"disputed_usage": -9_876_543}
    )

    page = admin_client.get(decide_url(call)).content.decode()

    assert "Decide on a lost call" in page
    assert "&quot;prompt_tokens&quot;: -17" in page
    assert "-9876543" not in page


def test_lists_and_pages_show_the_resulting_figures(admin_client: Client, admin_user: User, call: Usage) -> None:
    form = decision(figures="typed", prompt_tokens="70100", completion_tokens="10", reason="<b>Their invoice.</b>")
    admin_client.post(decide_url(call), form)

    row = admin_client.get(LIST).content.decode()
    page = admin_client.get(f"{LIST}{call.pk}/change/").content.decode()

    for text in ("corrected", "70.1k", "$0.0702"):
        assert text in row
    assert "not billable" not in row
    for text in ("+70,000", "-10", "+$0.0699", "70,100", "$0.0702", "&lt;b&gt;Their invoice.", admin_user.username):
        assert text in page


def test_differences_carry_their_sign() -> None:
    assert [signed_count(number) for number in (1200, -35, 0)] == ["+1,200", "-35", NOTHING]
    amounts = (Decimal("1.25"), Decimal("-0.03"), Decimal(0), None)
    assert [signed_usd(amount) for amount in amounts] == ["+$1.25", "-$0.03", NOTHING, NOTHING]


# --- All meters -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rich_call() -> Usage:
    """A lost call of a model with a rate for each meter, standard and flex."""
    price = Price.objects.create(
        provider="openai", model="gpt-test", effective_from=NOON, source=PriceSource.STAFF, created_by=None
    )
    for tier, factor in (("", 2), ("flex", 1)):
        rate_set = RateSet.objects.create(price=price, service_tier=tier)
        for place, meter in enumerate(Meter, 1):
            Rate.objects.create(rate_set=rate_set, meter=meter, amount=Decimal(place * factor))
        Rate.objects.create(rate_set=rate_set, meter="web_searches", amount=Decimal(10), per_units=1000)
    rates = price.rate_sets.get(service_tier="")
    # 100 input at 2 and 20 output at 4 USD a million.
    [row] = save(lost_row(make_key(make_account()), price=price, rate_set=rates, cost=Decimal("0.00028")))
    return row


ALL_METERS = {
    "prompt_tokens": "1000",
    "completion_tokens": "100",
    "cache_read_tokens": "900",
    "cache_write_5m_tokens": "10",
    "cache_write_1h_tokens": "20",
    "audio_input_tokens": "30",
    "reasoning_tokens": "40",
    "audio_output_tokens": "50",
    "web_searches": "3",
}


def test_each_meter_of_a_decision_has_its_own_price(admin_client: Client, rich_call: Usage) -> None:
    admin_client.post(decide_url(rich_call), decision(figures="typed", **ALL_METERS))

    adjustment = UsageAdjustment.objects.get()
    assert adjustment.cache_read_tokens == 900
    assert adjustment.extra_meters == {"web_searches": 3}
    figures = figures_of(rich_call, [adjustment])
    assert figures.counts == TokenCounts(1000, 100, 900, 10, 20, 40, 30, 50, {"web_searches": 3})
    # input 40, output 10, cache read 900, writes 10 and 20, audio 30 and 50, reasoning 40, at 2 to 16 USD a million.
    tokens = 40 * 2 + 10 * 4 + 900 * 6 + 10 * 8 + 20 * 10 + 30 * 12 + 50 * 14 + 40 * 16
    assert figures.cost_pico == tokens * 10**6 + 3 * 10**10
    assert len(verify().sentences) == len(missing_triggers())


def test_a_decision_takes_the_tier_of_the_providers_records(admin_client: Client, rich_call: Usage) -> None:
    form = decision(figures="typed", prompt_tokens="1000", completion_tokens="0", service_tier="flex")
    admin_client.post(decide_url(rich_call), form)
    figures = figures_of(rich_call, UsageAdjustment.objects.all())
    assert (figures.service, figures.cost_pico) == (Service("flex"), 1000 * 10**6)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"cache_read_tokens": "980"}, "The parts below are more than this total."),
        ({"audio_input_tokens": "1001"}, "The parts below are more than this total."),
        ({"reasoning_tokens": "60"}, "The parts below are more than this total."),
        ({"web_searches": "-1"}, "greater than or equal to 0"),
        ({"speed": "f" * 21}, "at most 20 characters"),
        ({"speed": "fast"}, "The price of this call has no cost for so many tokens."),
        ({"figures": "estimate", "prompt_tokens": "", "completion_tokens": ""}, "This would not count"),
    ],
)
def test_figures_that_cannot_be_decide_nothing(
    admin_client: Client, rich_call: Usage, values: dict[str, str], complaint: str
) -> None:
    response = admin_client.post(decide_url(rich_call), decision(**{"figures": "typed", **ALL_METERS, **values}))
    assert response.status_code == 200
    assert complaint in response.content.decode()
    assert not UsageAdjustment.objects.exists()


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        (TokenCounts(10, 0, cache_read_tokens=11), "The parts of the prompt tokens are more than their total."),
        (TokenCounts(10, 5, reasoning_tokens=3, audio_output_tokens=3), "The parts of the completion tokens are"),
        (TokenCounts(-1, 0), "A call uses from 0 to 1,000,000,000 of each meter."),
        (TokenCounts(1, 0, extra_meters={"web_searches": -1}), "A call uses from 0 to 1,000,000,000 of each meter."),
        (TokenCounts(10**9 + 1, 0), "A call uses from 0 to 1,000,000,000 of each meter."),
    ],
)
def test_no_other_way_leads_to_figures_that_cannot_be(rich_call: Usage, counts: TokenCounts, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        decide_call(rich_call.pk, counts=counts, is_billable=True, reason="x", user=None)
    assert not UsageAdjustment.objects.exists()
